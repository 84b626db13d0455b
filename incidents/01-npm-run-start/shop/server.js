// A customer's server: it streams news to whoever is connected, and on SIGTERM ends when the last of them has gone.
"use strict";
const http = require("node:http");

const server = http.createServer((request, response) => response.write("welcome\n"));
process.on("SIGTERM", () => server.close());
server.listen(process.env.PORT, "127.0.0.1", () => console.log("listening"));
