"""reap --keep: it sleeps, buries what is new, leaves the culprit's own children, and says how many."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sexton import proc
from tests.support.lines import DEADLINE
from tests.support.processes import await_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

# PID 1 of a namespace, deaf to SIGCHLD. Each "orphan" it reads makes a grandchild that is left to it; each
# "own" a child that it only waits for when it reads "wait".
PROGRAM = """
import os, subprocess, sys
children = []
print("up", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "orphan":
        # The middle one stays in this session and group: nothing but its fork tells who made the orphan.
        subprocess.run(["sh", "-c", "true & exec true"])
    elif word == "own":
        children.append(subprocess.Popen(["sh", "-c", "exit 7"]))
    elif word == "wait":
        print([child.wait() for child in children], flush=True)
        continue
    print("done", flush=True)
"""


class Kept:
    def __init__(self) -> None:
        self.outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            bufsize=0,  # so that select sees every line that was not read
            stdout=subprocess.PIPE,
        )
        assert self.read(self.outer.stdout) == "up"
        [self.pid] = proc.children(self.outer.pid)
        self.sexton = subprocess.Popen(
            [sys.executable, "-m", "sexton", "reap", "--keep", str(self.pid)],
            bufsize=0,  # so that select sees every line that was not read
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.first = self.read(self.sexton.stderr)

    @staticmethod
    def read(stream: IO[bytes] | None) -> str:
        assert stream is not None
        assert select.select([stream], [], [], DEADLINE)[0]
        return stream.readline().decode().strip()

    def say(self, word: str) -> str:
        assert self.outer.stdin is not None
        self.outer.stdin.write(word.encode() + b"\n")
        self.outer.stdin.flush()
        return self.read(self.outer.stdout)

    def close(self) -> None:
        for popen in (self.sexton, self.outer):
            popen.kill()
            popen.communicate(timeout=DEADLINE)


@pytest.fixture
def kept() -> Iterator[Kept]:
    one = Kept()
    yield one
    one.close()


def test_orphans_are_buried_and_own_children_are_not(kept: Kept) -> None:
    assert "proc connector" in kept.first
    assert kept.say("own") == "done"
    for _ in range(3):
        assert kept.say("orphan") == "done"
    reaped = 0
    while reaped < 3:
        line = kept.read(kept.sexton.stdout)
        if "reaped" in line:
            assert "was seen to be forked by another" in line
            reaped += 1
        else:
            assert "inject" in line
            assert "refused" in line
    [own] = proc.children(kept.pid)
    await_end(own)
    assert kept.say("wait") == "[7]"
    kept.sexton.send_signal(signal.SIGTERM)
    _, err = kept.sexton.communicate(timeout=DEADLINE)
    assert kept.sexton.returncode == 0
    assert b"told to stop: 3 zombies reaped, 1 left alone" in err


def test_it_ends_with_the_culprit(kept: Kept) -> None:
    kept.outer.kill()
    _, err = kept.sexton.communicate(timeout=DEADLINE)
    assert b"ended: 0 zombies reaped" in err
    assert kept.sexton.returncode == 0


def test_without_the_connector_a_pidfd_wakes_it() -> None:
    """In a PID namespace of its own there is no connector: the end of a known process makes it look."""
    program = (
        "import os, subprocess, sys\n"
        # A grandchild that lives until its input ends, in a session that is not its parent's.
        "reading, writing = os.pipe()\n"
        "subprocess.run(['setsid', 'sh', '-c', 'cat >/dev/null & true'], stdin=reading, close_fds=True)\n"
        "os.close(reading)\n"
        "keep = subprocess.Popen([sys.executable, '-m', 'sexton', 'reap', '--keep', '1'], stderr=2)\n"
        "input()\n"
        "os.close(writing)\n"
        "input()\n"
        "keep.terminate()\n"
        "keep.wait()\n"
    )
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        bufsize=0,  # so that select sees every line that was not read
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as outer:
        assert outer.stdin is not None
        assert "each by a pidfd" in Kept.read(outer.stderr)
        outer.stdin.write(b"\n")
        outer.stdin.flush()
        line = Kept.read(outer.stdout)
        while "inject" not in line:
            line = Kept.read(outer.stdout)
        assert "reaped" in line
        outer.stdin.write(b"\n")
        outer.stdin.flush()
        _, err = outer.communicate(timeout=DEADLINE)
        assert b"told to stop: 1 zombie reaped" in err


def test_asleep_it_uses_no_time(kept: Kept) -> None:
    """Ends elsewhere wake it, and nothing else: it has no timer, so its wait in the kernel has none either."""
    number, for_ever = {"x86_64": (7, 0xFFFFFFFF), "aarch64": (73, 0)}[platform.machine()]  # poll(2), ppoll(2)
    call = proc.syscall(kept.sexton.pid)
    until = time.monotonic() + DEADLINE
    while not (isinstance(call, proc.Syscall) and call.number == number):
        assert time.monotonic() < until, f"it does not fall asleep: {call}"
        os.sched_yield()
        call = proc.syscall(kept.sexton.pid)
    assert call.args[2] & 0xFFFFFFFF == for_ever
