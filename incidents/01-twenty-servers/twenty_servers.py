"""Incident 1 with twenty servers, and operators at work: see README.md."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from incidents.replaying import Table, output, real_root, servers, taken
from tests.containers.podman import Container, Podman
from tests.support.lines import DEADLINE, Lines
from tests.support.processes import Stat, status

TITLE = "twenty servers behind npm run start, stopped, restarted and scaled under load"
HERE = Path(__file__).parent

FILE = f"/incident/{HERE.name}/sexton.toml"
APPS = 20
STOPPED, RESTARTED, STEADY, ADDED = range(5), range(5, 10), range(10, 20), 5
LONG = 4 * DEADLINE  # for twenty npm at once


class Platform:
    """What the operators do, when the platform is that of the incident."""

    def __init__(self, podman: Podman) -> None:
        self.control = podman.home / "control"
        os.mkfifo(self.control)
        words = [f"--volume={self.control}:/control", *real_root(HERE.parent)]
        self.container = podman.start(*words, "python3", f"/incident/{HERE.name}/operators.py")
        self.ports: dict[int, int] = {}

    def await_up(self, lines: Lines) -> None:
        lines.until(lambda line: line == "hosting")
        self.ports = dict(enumerate(self._tell(lines, "start", APPS)))

    def stop(self, lines: Lines, which: Sequence[int]) -> None:
        self._tell(lines, "stop", *which)
        for at in which:
            del self.ports[at]

    def restart(self, lines: Lines, which: Sequence[int]) -> None:
        self.ports |= zip(which, self._tell(lines, "restart", *which), strict=True)

    def grow(self, lines: Lines, more: int) -> None:
        self.ports |= enumerate(self._tell(lines, "start", more), APPS)

    def stop_all(self, lines: Lines) -> None:
        self.stop(lines, list(self.ports))

    def end(self) -> None:
        """It takes no SIGTERM: the engine kills it."""

    def _tell(self, lines: Lines, *words: object) -> list[int]:
        self.control.write_text(" ".join(map(str, words)) + "\n")
        while (said := lines.line(LONG)) is not None and not said.startswith("done"):
            pass
        assert said
        return [int(port) for port in said.split()[1:]]


class Sexton:
    """The same, when it is `sexton up`."""

    def __init__(self, podman: Podman, init: Path) -> None:
        self.program = Path(sys.executable).with_name("sexton")
        words = [f"--env=SEXTON_INIT={init}", *real_root(HERE.parent)]
        self.container = podman.start(*words, self.program, "up", "--file", FILE)
        self.ports: dict[int, int] = {}

    def await_up(self, lines: Lines) -> None:
        seen: set[str] = set()
        while len(seen) < APPS:
            line = lines.line(LONG)
            assert line is not None, self.container.logs()
            seen |= {name for name in (f"shop.{at}" for at in range(APPS)) if f"{name}: ready" in line}
        self._look()

    def stop(self, lines: Lines, which: Sequence[int]) -> None:
        self._tell("stop", *(f"shop.{at}" for at in which))
        self._look()

    def restart(self, lines: Lines, which: Sequence[int]) -> None:
        self._tell("restart", *(f"shop.{at}" for at in which))
        self._look()

    def grow(self, lines: Lines, more: int) -> None:
        self._tell("scale", f"shop={APPS + more}")
        self._look()

    def stop_all(self, lines: Lines) -> None:
        self._tell("stop", "all")
        self._look()

    def end(self) -> None:
        """By the engine's SIGTERM."""
        self.container.stop()
        assert self.container.wait() == 0

    def _look(self) -> None:
        (app,) = json.loads(self._tell("status", "--json"))["apps"]
        ready = [one for one in app["instances"] if one["state"] == "ready"]
        self.ports = {one["number"]: one["ports"]["http"] for one in ready}

    def _tell(self, command: str, *words: str) -> str:
        ended = self.container.exec(self.program, command, "--file", FILE, *words)
        assert ended.code == 0, (command, ended, self.container.logs())
        return ended.out


def answers(port: int) -> bool:
    """Whether a customer is served."""
    visitor = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        visitor.request("GET", "/news")
        return visitor.getresponse().readline() == b"welcome\n"
    except OSError:
        return False
    finally:
        visitor.close()


class Load:
    """Customers who visit some servers all the time."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.visits = self.refused = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._visit, args=(ports,))

    def _visit(self, ports: Sequence[int]) -> None:
        while not self._enough.is_set():
            for port in ports:
                self.visits += 1
                self.refused += not answers(port)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


@contextlib.contextmanager
def following(container: Container) -> Iterator[Lines]:
    """What the container says; it is ended after that."""
    with output(container) as lines:
        try:
            yield lines
        finally:
            container.remove()


def run(host: Platform | Sexton) -> dict[str, object]:
    """A day of the operators, and a count of what there is after each of it."""
    with following(host.container) as lines:
        host.await_up(lines)
        started, ever = dict(host.ports), set(host.ports.values())
        counts: dict[str, object] = {
            "servers started": len(servers(host.container)),
            "ports of their own": len(ever),
            "servers that answer": sum(map(answers, ever)),
        }
        with Load([started[at] for at in STEADY]) as load:
            host.stop(lines, STOPPED)
            host.restart(lines, RESTARTED)
            ever |= set(host.ports.values())
            host.grow(lines, ADDED)
            ever |= set(host.ports.values())
        assert load.visits >= len(STEADY)
        counts |= {
            "the others' visitors refused meanwhile": load.refused,
            "servers there should be then": len(host.ports),
            "servers there are": len(servers(host.container)),
            "servers that answer then": sum(map(answers, host.ports.values())),
        }
        host.stop_all(lines)
        left = servers(host.container)
        counts |= {
            "servers alive when all are stopped": len(left),
            "their memory, MB": sum(memory(each, host.container) for each in left) // 1024,
            "ports still taken": sum(map(taken, ever)),
            "<defunct>": len(host.container.zombies()),
        }
        host.end()
    return counts


def memory(process: Stat, container: Container) -> int:
    """Its resident kilobytes."""
    return int(status(process.pid, container.proc)["VmRSS"].split()[0])


def replay(init: Path) -> Table:
    """The platform as it was, and `sexton up`, which is PID 1 of its container too."""
    with Podman() as podman:
        return {"stop npm": run(Platform(podman)), "sexton up": run(Sexton(podman, init))}


def check(table: Table) -> None:
    """Whatever npm left is still there in the evening; with sexton it is what it should be at every moment."""
    platform, sexton = table.values()
    before = STEADY.stop - len(STOPPED) + ADDED
    for counts in (platform, sexton):
        assert counts["servers started"] == counts["ports of their own"] == counts["servers that answer"] == APPS
        assert counts["the others' visitors refused meanwhile"] == 0
        assert counts["servers there should be then"] == counts["servers that answer then"] == before
    leaked = len(STOPPED) + len(RESTARTED)
    assert platform["servers there are"] == before + leaked
    assert platform["servers alive when all are stopped"] == platform["ports still taken"] == before + leaked
    assert platform["their memory, MB"] != 0
    assert sexton["servers there are"] == before
    assert [sexton[name] for name in list(sexton)[-4:]] == [0, 0, 0, 0]
