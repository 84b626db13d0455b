"""A culprit for the tests: a program with children that it never asked for and never waits for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Self

from sexton import proc
from tests.support.lines import DEADLINE, Lines
from tests.support.processes import await_end

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


class Culprit:
    """A program that says "up" on standard output, answers there, and ends when standard input does."""

    def __init__(self, command: list[str], zombies: int) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", INHERIT, str(zombies), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self.popen.pid
        assert self.popen.stdout is not None
        self.lines = Lines(os.dup(self.popen.stdout.fileno()), f"process {self.pid}")
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
        self.lines.close()

    @property
    def process(self) -> proc.Process:
        found = proc.stat(self.pid)
        assert isinstance(found, proc.Process)
        return found

    def zombies(self) -> list[proc.Process]:
        found = map(proc.stat, proc.children(self.pid))
        return [one for one in found if isinstance(one, proc.Process) and one.zombie]

    def line(self) -> str:
        line = self.lines.line()
        assert line is not None, f"it ended: {self.popen.wait(DEADLINE)}"
        return line

    def write(self, text: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(text.encode())
        self.popen.stdin.flush()

    def ask_json(self, question: str) -> object:
        self.write(question + "\n")
        return json.loads(self.line())

    def signal(self, signum: int) -> None:
        self.popen.send_signal(signum)
