"""Incident 2 with a real browser: see README.md."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from incidents.replaying import Table
from sexton import proc
from sexton.doctor.cure import await_reaping
from tests.support.lines import DEADLINE
from tests.support.processes import await_end

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLE = "headless Chromium under Node as PID 1, cured while it runs"
HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "build" / "page-metrics"
PAGES = 2


def install() -> Path:
    """The service's one dependency, as package.json has it; where its modules are."""
    assert shutil.which("chromium"), "Chromium is needed: apt-get install chromium"
    wanted = (HERE / "package.json").read_text()
    have = MODULES / "package.json"
    if not have.exists() or have.read_text() != wanted or not (MODULES / "node_modules/puppeteer-core").is_dir():
        MODULES.mkdir(parents=True, exist_ok=True)
        have.write_text(wanted)
        subprocess.run(["npm", "install", "--silent", "--no-package-lock", "--no-audit"], cwd=MODULES, check=True)
    return MODULES / "node_modules"


@contextmanager
def service(*before: str | Path) -> Iterator[tuple[int, proc.Process]]:
    """The service behind these words, PID 1 of its namespace: its port, and that PID 1 as it is seen from here."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *before, "node", HERE / "service.js"]
    environment = {**os.environ, "NODE_PATH": str(install())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as outer:
        try:
            assert outer.stdout
            port = int(outer.stdout.readline().split()[1])
            first = proc.stat(proc.children(outer.pid)[0])
            assert isinstance(first, proc.Process)
            yield port, first
        finally:
            outer.send_signal(signal.SIGKILL)


def ask(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", path)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def pages(port: int) -> int:
    """Have some pages measured; how many were."""
    return sum(ask(port, "/page").endswith(" nodes") for _ in range(PAGES))


def zombies(first: proc.Process) -> int:
    """How many stay, once every browser has come to its end and PID 1 has had a second for what it left."""
    while living := [one for one in proc.snapshot().descendants(first.pid) if not _is_done(one)]:
        for process in living:
            await_end(process.pid)
    await_reaping([one for one in proc.snapshot().descendants(first.pid) if one.zombie], 1.0)
    return len([one for one in proc.snapshot().descendants(first.pid) if one.zombie])


def _is_done(process: proc.Process) -> bool:
    return process.zombie or process.comm.startswith("node")


def sexton(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sexton", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


class Visitors:
    """Asks the service whether it is alive, all the time, and counts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.lost = 0
        self.over = threading.Event()
        self.first = threading.Event()
        self.thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self.over.is_set():
            try:
                good = ask(self.port, "/alive") == "alive"
            except OSError:
                good = False
            self.answered += good
            self.lost += not good
            self.first.set()

    def __enter__(self) -> Self:
        self.thread.start()
        assert self.first.wait(DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(DEADLINE)


def as_it_was() -> tuple[dict[str, object], dict[str, object]]:
    """Node as PID 1: what it has after some pages, and after the cure."""
    with service() as (port, first):
        before: dict[str, object] = {"PID 1": first.comm, "pages measured": pages(port), "zombies": zombies(first)}
        diagnosis: dict[str, Any] = json.loads(sexton("doctor", "--pid", first.pid, "--json").stdout)
        causes = [one["rule"] for one in diagnosis["findings"] if one["severity"] == "problem"]
        before["cause, by sexton doctor"] = ", ".join(causes)
        with Visitors(port) as visitors:
            done = sexton("reap", "--parent", first.pid, "--yes", "--json")
            assert done.returncode in {0, 1}, done.stderr
        deeds = [json.loads(line) for line in done.stdout.splitlines()]
        after: dict[str, object] = {
            "PID 1": "the same node",
            "pages measured": pages(port),
            "zombies": sum(one["result"] == "refused" for one in deeds),
            "cause, by sexton doctor": "-",
        }
        before["reaped by inject"] = before["requests lost meanwhile"] = "-"
        after["reaped by inject"] = sum((one["rung"], one["result"]) == ("inject", "reaped") for one in deeds)
        after["requests lost meanwhile"] = visitors.lost if visitors.answered else "all"
        return before, after


def with_init(init: Path) -> dict[str, object]:
    """The same service with sexton-init in front."""
    with service(init, "--") as (port, first):
        counts: dict[str, object] = {"PID 1": first.comm, "pages measured": pages(port), "zombies": zombies(first)}
        done = sexton("doctor", "--pid", first.pid, "--json")
        causes = [one["rule"] for one in json.loads(done.stdout)["findings"] if one["severity"] == "problem"]
        counts["cause, by sexton doctor"] = ", ".join(causes) or "healthy"
        counts["reaped by inject"] = counts["requests lost meanwhile"] = "-"
        return counts


def replay(init: Path) -> Table:
    """As it was, cured without a restart, and with the init in front."""
    before, after = as_it_was()
    return {"as it was": before, "sexton reap": after, "sexton-init": with_init(init)}


def check(table: Table) -> None:
    """Zombies appear, doctor names the cause, reap clears them while the service answers, and the init has none."""
    before, cured, after = table.values()
    assert before["PID 1"] == "node"
    assert before["pages measured"] == PAGES
    assert isinstance(before["zombies"], int)
    assert before["zombies"] >= PAGES
    assert before["cause, by sexton doctor"] in {"pid1-waits-for-its-own", "pid1-does-not-reap"}
    assert cured["reaped by inject"] == before["zombies"]
    assert cured["zombies"] == 0
    assert cured["requests lost meanwhile"] == 0
    assert cured["pages measured"] == PAGES
    assert after["pages measured"] == PAGES
    assert after["zombies"] == 0
    assert after["cause, by sexton doctor"] == "healthy"
