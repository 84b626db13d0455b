// A customer's server: a plain one, which ends at SIGTERM as every Node program does.
"use strict";
const http = require("node:http");

const server = http.createServer((request, response) => response.end("welcome"));
server.listen(process.env.PORT, "127.0.0.1", () => console.log("listening"));
