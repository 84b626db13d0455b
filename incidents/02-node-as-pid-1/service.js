// The page-metrics service, with what matters of it: each page starts a "browser" that has a helper, and ends it hard.
"use strict";
const http = require("node:http");
const { spawn } = require("node:child_process");

// The helper ends when its input ends, a moment after the browser that should have reaped it. So it is PID 1's.
const BROWSER = "cat <&3 & echo up; exec sleep infinity";

function measure(answer) {
  const browser = spawn("sh", ["-c", BROWSER], { stdio: ["ignore", "pipe", "inherit", "pipe"] });
  browser.on("error", (error) => answer(503, error.code));
  browser.stdout?.on("data", () => browser.kill("SIGKILL"));
  browser.on("exit", (code) => {
    browser.stdio[3].destroy();
    if (code === null) answer(200, "measured");
    else answer(503, "no helper could be started");
  });
}

const server = http.createServer((request, response) => {
  measure((status, text) => response.writeHead(status, { connection: "close" }).end(text));
});
server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
