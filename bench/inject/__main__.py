"""How long does `sexton reap` hold a busy Node server, over 1,000 zombies, and does that lose a request?

    python -m bench.inject [ZOMBIES]

The server is PID 1 of a PID namespace and has inherited the zombies; ten connections ask it without a pause. Once the
thread is chosen as always, once it must be the first, which answers the requests. The bar: 2 ms at p99, none lost.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from sexton import proc
from sexton.doctor.inject import Outcome, Site, inject

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER = """
const http = require("http");
const server = http.createServer((request, response) => {
  let sum = 0;
  for (let i = 0; i < 20000; i++) sum += Math.sqrt(i);  // some work for each
  response.end(`answer ${request.url.slice(1)}`);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""
INHERIT = """
import os, sys
children = []
for _ in range(int(sys.argv[1])):
    children.append(os.fork())
    if children[-1] == 0:
        os._exit(0)
for pid in children:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
os.execvp("node", ["node", "-e", sys.argv[2]])
"""
BAR = 0.002  # seconds, at p99
BATCH, PAUSE = 50, 0.1


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def run(zombies: int, title: str) -> bool:
    command = [
        "unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", INHERIT, str(zombies), SERVER
    ]  # fmt: skip
    load_script = Path(__file__).with_name("load.js")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        port = int(outer.stdout.readline())
        server = proc.stat(proc.children(outer.pid)[0])
        assert isinstance(server, proc.Process)
        dead = [one for one in proc.snapshot().children(server.pid) if one.zombie]
        with subprocess.Popen(["node", load_script, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            assert load.stdin is not None
            assert load.stdout is not None
            load.stdout.readline()
            outcomes: list[Outcome] = []
            took = 0.0
            for at in range(0, len(dead), BATCH):
                begin = time.monotonic()
                outcomes += inject(server, dead[at : at + BATCH])
                took += time.monotonic() - begin
                time.sleep(PAUSE)  # the server at full speed, before the next
            load.stdin.close()
            asked = json.loads(load.stdout.readline())
        outer.kill()
    stops = [one.stopped_for for one in outcomes if one.result == "reaped"]
    p99 = percentile(stops, 0.99)
    print(
        f"{title:34} {len(stops)} of {len(dead)} reaped in {took:.2f} s; held for"
        f" {statistics.median(stops) * 1000:.3f} ms median, {p99 * 1000:.3f} ms p99, {max(stops) * 1000:.3f} ms most;"
        f" {asked['sent']} requests, {asked['lost']} lost, {asked['p99']:.1f} ms p99"
    )
    return len(stops) == len(dead) and p99 <= BAR and asked["lost"] == 0


def main() -> int:
    zombies = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    good = run(zombies, "the thread that sexton chooses")

    def first(site: Site) -> list[int]:
        return [site.culprit.pid]

    with patch.object(Site, "threads", first):
        good = run(zombies, "the thread that answers requests") and good
    print("within the bar" if good else "NOT within the bar")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
