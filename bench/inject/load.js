// Requests without a pause on ten kept connections, each answer checked; a line of JSON when its input ends.
const http = require("http");
const port = Number(process.argv[2]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 10 });
const times = [];
let sent = 0, lost = 0, stopping = false, open = 0;

function one() {
  const n = ++sent, begin = process.hrtime.bigint();
  open++;
  const done = (ok) => {
    open--;
    if (!ok) lost++;
    times.push(Number(process.hrtime.bigint() - begin) / 1e6);
    if (!stopping) one();
    else if (!open) {
      times.sort((a, b) => a - b);
      const at = (q) => times[Math.min(times.length - 1, Math.floor(times.length * q))];
      console.log(JSON.stringify({ sent, lost, median: at(0.5), p99: at(0.99), longest: at(1) }));
      process.exit(0);
    }
  };
  http.get({ port, agent, path: `/${n}` }, (answer) => {
    let body = "";
    answer.on("data", (part) => { body += part; });
    answer.on("end", () => done(body === `answer ${n}`));
  }).on("error", () => done(false));
}

for (let i = 0; i < 10; i++) one();
process.stdin.on("data", () => {}).on("end", () => { stopping = true; });
console.log("running");
