"""A culprit for the tests: a program with children that it never asked for and never waits for."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from typing import Self

from sexton import proc

DEADLINE = 30.0

# Forks, then becomes the program: so the children are its own by PPid, and nothing in it knows of them.
INHERIT = """
import os, sys
children = []
for at in range(int(sys.argv[1])):
    children.append(os.fork())
    if children[-1] == 0:
        os._exit(at & 0x7F)
print(*children, flush=True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def await_end(pid: int) -> None:
    """Until the process is dead, a zombie or gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], DEADLINE)[0], f"process {pid} lives on"
    finally:
        os.close(handle)


class Culprit:
    """A program that says "up" on standard output, answers there, and ends when standard input does."""

    def __init__(self, command: list[str], zombies: int) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", INHERIT, str(zombies), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self.popen.pid
        self._rest = b""
        try:
            for child in self.line().split():
                await_end(int(child))
            assert self.line() == "up"
            assert len(self.zombies()) >= zombies
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate(timeout=DEADLINE)

    def _children(self) -> tuple[int, ...]:
        found = proc.children_pids(self.pid)
        assert not isinstance(found, proc.Missing)
        return found

    @property
    def process(self) -> proc.Process:
        found = proc.stat(self.pid)
        assert isinstance(found, proc.Process)
        return found

    def zombies(self) -> list[proc.Process]:
        found = [proc.stat(pid) for pid in self._children()]
        return [one for one in found if isinstance(one, proc.Process) and one.zombie]

    def line(self) -> str:
        assert self.popen.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.popen.stdout], [], [], DEADLINE)
            assert ready, f"no word from process {self.pid}, which is {proc.stat(self.pid)}"
            block = os.read(self.popen.stdout.fileno(), 65536)
            assert block, f"it ended: {self.popen.wait(DEADLINE)}"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def write(self, text: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(text.encode())
        self.popen.stdin.flush()

    def ask_json(self, question: str) -> object:
        self.write(question + "\n")
        return json.loads(self.line())

    def signal(self, signum: int) -> None:
        self.popen.send_signal(signum)
