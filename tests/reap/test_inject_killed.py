"""sexton is killed at every step of an inject, and the culprit goes on with its own registers every time."""

from __future__ import annotations

import hashlib
import os
import platform
import random
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sexton import proc
from sexton.doctor.inject import Site, inject
from tests.reap.culprit import Culprit
from tests.support.lines import DEADLINE
from tests.support.processes import await_end

if TYPE_CHECKING:
    from pathlib import Path

Start = Callable[..., Culprit]

BEFORE = ["seize", "interrupt", "wait for the stop", "write the frame", "set the registers", "block the signals"]
WALK = [
    "enter wait4",
    "wait to enter wait4",
    "leave wait4",
    "wait to leave wait4",
    "give the mask back",
    "give the registers back",
]
LONG, SHORT = [*BEFORE, *WALK, "detach"], [*BEFORE, "detach"]
# Before Linux 6.9 no event tells of the reaping, so it goes along always.
CALM = SHORT if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 9) else LONG
# On aarch64 it has to be taken out of the call first.
OUT = [] if platform.machine() == "x86_64" else ["enter its call", "leave its call out", "leave its call"]
TIMED = [*LONG[:3], *OUT, *LONG[3:]]

PYTHON = """
import hashlib, signal, time
bad = 0
def answer(*_):
    print(hashlib.sha256(b"%d" % bad).hexdigest(), flush=True)
signal.signal(signal.SIGUSR1, answer)
print("up", flush=True)
while True:
    start = time.monotonic()
    time.sleep(0.003)
    bad += time.monotonic() - start < 0.003
"""

NODE = """
const { createHash } = require("crypto");
let ticks = 0, late = 0;
setInterval(() => { ticks++; }, 2);
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  console.log(JSON.stringify({ sum: createHash("sha256").update(line).digest("hex"), ticks }));
}).on("close", () => process.exit(0));
console.log("up");
"""


KILLED = "the tracer was ended by SIGKILL; the culprit runs on by itself"


class Subject:
    """A culprit and the question that shows whether it is still itself."""

    def __init__(self, start: Start, kind: str, steady: Path, zombies: int) -> None:
        commands = {
            "python asleep": [sys.executable, "-c", PYTHON],
            "node in epoll_wait": ["node", "-e", NODE],
            "C that spins": [steady],
            "C with threads": [steady, "threads"],
        }
        self.kind = kind
        self.turn = 0
        self.asked = 0
        self.culprit = start(commands[kind], zombies)

    def threads(self, site: Site) -> list[int]:
        """Every thread in its turn, in place of the one where it would be noticed least."""
        found = proc.threads(site.culprit.pid)
        assert isinstance(found, dict)
        tids = sorted(found)
        self.turn += 1
        return tids[self.turn % len(tids) :] + tids[: self.turn % len(tids)]

    def check(self) -> None:
        status = proc.status(self.culprit.pid)
        assert isinstance(status, proc.Status)
        assert status.tracer == 0
        threads = proc.threads(self.culprit.pid)
        assert isinstance(threads, dict)
        assert not [thread for thread in threads.values() if thread.state in "tT"]
        if self.kind == "node in epoll_wait":
            self.asked += 1
            answer = self.culprit.ask_json(f"question {self.asked}")
            assert isinstance(answer, dict)
            assert answer["sum"] == hashlib.sha256(f"question {self.asked}".encode()).hexdigest()
            return
        self.culprit.signal(signal.SIGUSR1)
        line = self.culprit.line()
        if self.kind == "python asleep":
            assert line == hashlib.sha256(b"0").hexdigest()
        else:
            assert line.startswith("ok "), line


KINDS = ["python asleep", "node in epoll_wait", "C that spins", "C with threads"]


def tell(end: int, text: str) -> None:
    os.write(end, text.encode())


def tell_pid(end: int, _: str) -> None:
    tell(end, f"{os.getpid():8}")


def die_at(step: int) -> Callable[[str], None]:
    """A step hook that kills its own process, which is the tracer's, before that step."""
    seen = 0

    def hook(_: str) -> None:
        nonlocal seen
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    return hook


@pytest.mark.parametrize("walk", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_before_every_step(
    culprit: Start, steady: Path, kind: str, walk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracer dies before its first step, before its second, ... until it is through; six times over."""
    rounds = 6
    subject = Subject(culprit, kind, steady, rounds * (len(TIMED) + 5))
    monkeypatch.setattr(Site, "threads", lambda site: subject.threads(site))  # noqa: PLW0108 - to bind it
    if walk:
        monkeypatch.setattr("sexton.doctor.inject._TELLS_OF_REAPING", (99, 0))
    zombies = subject.culprit.zombies()
    for _ in range(rounds):
        for step in range(len(TIMED) + 5):  # a signal on its way takes two steps more
            [outcome] = inject(subject.culprit.process, [zombies.pop()], die_at(step))
            subject.check()
            if outcome.why != KILLED:
                assert outcome.result == "reaped"
                assert step >= len(LONG if walk else SHORT), outcome
                break
        else:
            pytest.fail("it was killed every time")
    left = subject.culprit.zombies()
    outcomes = inject(subject.culprit.process, left)
    assert {one.result for one in outcomes} <= {"reaped"}, outcomes
    assert not subject.culprit.zombies()
    subject.check()


@pytest.mark.parametrize(
    ("program", "steps"),
    [("read line", CALM), ("exec sleep 1000", TIMED)],  # nanosleep has a time limit, read has none
)
def test_the_steps_are_these(culprit: Start, program: str, steps: list[str]) -> None:
    """It goes along with a thread whose system call has a time limit, and lets any other walk by itself."""
    subject = culprit(["sh", "-c", f"echo up; {program}"], 1)
    while subject.process.state != "S" or subject.process.comm != program.split()[-2].replace("read", "sh"):
        os.sched_yield()
    reading, writing = os.pipe()
    [outcome] = inject(subject.process, subject.zombies(), lambda name: tell(writing, name + "\n"))
    os.close(writing)
    with open(reading) as names:
        assert names.read().split("\n")[:-1] == steps
    assert outcome.result == "reaped"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_from_outside_at_any_moment(culprit: Start, steady: Path, kind: str) -> None:
    """Not between two steps but inside of them too: the killer knows nothing of where the tracer is."""
    count = 60
    subject = Subject(culprit, kind, steady, count)
    chance = random.Random(5)
    for zombie in subject.culprit.zombies():
        reading, writing = os.pipe()
        sexton = os.fork()
        if sexton == 0:
            os.close(reading)
            inject(subject.culprit.process, [zombie], partial(tell_pid, writing))
            os._exit(0)
        os.close(writing)
        # sexton dies, and its tracer follows, since it asked for that. So death meets it in any step.
        tracer = int(os.read(reading, 8))
        for _ in range(chance.randrange(len(TIMED))):
            assert select.select([reading], [], [], DEADLINE)[0]
            if not os.read(reading, 8):
                break
        os.kill(sexton, signal.SIGKILL)
        os.waitpid(sexton, 0)
        await_end(tracer)
        os.close(reading)
        subject.check()
    outcomes = inject(subject.culprit.process, subject.culprit.zombies())
    assert {one.result for one in outcomes} <= {"reaped"}, outcomes
    assert not subject.culprit.zombies()
    subject.check()
