// The page-metrics service: opens a page of its own in headless Chromium, counts it, and closes the browser.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const puppeteer = require("puppeteer-core");

const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

async function measure(port) {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "page-metrics-"));
  const browser = await puppeteer.launch({
    executablePath: "/usr/bin/chromium", headless: true, args: ARGUMENTS, userDataDir: home,
  });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${port}/subject`);
    const metrics = await page.metrics();
    return metrics.Nodes;
  } finally {
    await browser.close();
    fs.rmSync(home, { recursive: true, force: true });
  }
}

const server = http.createServer((request, response) => {
  if (request.url === "/subject") return response.end("<p>Measure me.</p>");
  if (request.url === "/alive") return response.end("alive");
  measure(server.address().port).then(
    (nodes) => response.end(`${nodes} nodes`),
    (error) => { response.statusCode = 503; response.end(error.message); },
  );
});
server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
