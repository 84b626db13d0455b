// The application: takes uploads, and on SIGTERM finishes those that are under way before it ends.
"use strict";
const fs = require("node:fs");
const http = require("node:http");

const server = http.createServer((request, response) => {
  let bytes = 0;
  console.log("main_app: an upload begins");
  request.on("data", (chunk) => (bytes += chunk.length));
  request.on("end", () => response.writeHead(200, { connection: "close" }).end(`${bytes} bytes`));
});

process.on("SIGTERM", () => {
  console.log("main_app: SIGTERM, finishing what is under way");
  server.close();
});

server.listen(0, "127.0.0.1", () => {
  console.log(`main_app: listening ${server.address().port}`);
  fs.writeFileSync(process.env.APP_IS_UP, "up\n");
});
