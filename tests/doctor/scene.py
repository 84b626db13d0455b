"""A scene: real processes in a PID namespace of their own, brought into a situation step by step."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sexton import proc
from sexton.doctor.diagnosis import diagnose
from sexton.doctor.look import collect
from tests.support.lines import DEADLINE, Lines
from tests.support.processes import kill

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding

SOURCE = str(Path(proc.__file__).parent.parent.parent)
# `sexton` for an interpreter that is started with -I.
SEXTON = f"import sys; sys.path.insert(0, {SOURCE!r}); sys.argv[0] = 'sexton'; from sexton.cli import main; main()"

# What every script starts with. `say` tells the test, `hear` waits for it; the end of the test ends all.
PRELUDE = f"""
import ctypes, os, signal, subprocess, sys, threading
sys.path.insert(0, {SOURCE!r})
libc = ctypes.CDLL(None, use_errno=True)
def say(word): os.write(1, word.encode() + b"\\n")
def hear(): return sys.stdin.readline() or os._exit(0)
def rest():
    while True: signal.pause()
def named(name): open("/proc/self/comm", "w").write(name)
def child(body, *args):
    pid = os.fork()
    if pid == 0:
        try: body(*args)
        finally: os._exit(0)
    return pid
def sleeper(name="victim"):
    named(name); rest()
"""


# PID 1 of the scenes whose culprit is another process.
INIT = ("tini", "--", "{python}")


class Scene:
    """PID 1 of a new namespace runs `argv`; `{python}` in it stands for this script in Python."""

    def __init__(self, script: str, *argv: str, before: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-I", "-c", PRELUDE + script]
        words = [word for part in argv or ("{python}",) for word in (command if part == "{python}" else [part])]
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        self._popen = subprocess.Popen(
            [*before, *unshare, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        self._lines = Lines(os.dup(self._popen.stdout.fileno()), "the scene")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # unshare's --kill-child ends PID 1, and the kernel then ends the rest of the namespace.
        self._popen.kill()
        self._popen.communicate(timeout=DEADLINE)
        self._lines.close()

    def expect(self, word: str) -> None:
        """Wait for the script to say it."""
        assert self.line() == word

    def line(self) -> str:
        """The next line that the script says."""
        line = self._lines.line()
        assert line is not None, "the scene has ended"
        return line.strip()

    def tell(self, word: str = "go") -> None:
        """Let the script's `hear` return."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(word.encode() + b"\n")

    def all(self) -> tuple[proc.Process, ...]:
        """Every process of the scene, PID 1 first."""
        return proc.snapshot().descendants(self._popen.pid)

    @property
    def first(self) -> str:
        """The pid of its PID 1, as a word."""
        return str(self.all()[0].pid)

    def named(self, name: str) -> tuple[proc.Process, ...]:
        """The processes of that name."""
        return tuple(process for process in self.all() if process.comm == name)

    def kill(self, name: str) -> tuple[proc.Process, ...]:
        """End every process of that name in the scene, and wait until each is dead, reaped or not."""
        processes = self.named(name)
        assert processes, f"no {name} in the scene: {[p.name for p in self.all()]}"
        for process in processes:
            kill(process.pid)
        return processes

    def look(self, settle: float = 0.0) -> Evidence:
        """The evidence, of this scene alone. What it is about has happened already, so nothing needs to
        settle.
        """
        return collect(choose=lambda at, _: {p.pid for p in at.descendants(self._popen.pid)}, settle=settle)

    def diagnose(self) -> dict[str, Finding]:
        """The findings by rule; one that two culprits share would be two, and no scene has that."""
        found = diagnose(self.look())
        rules = [finding.rule for finding in found]
        assert len(set(rules)) == len(rules), rules
        return {finding.rule: finding for finding in found}

    def until(self, true: Callable[[dict[str, Finding]], object]) -> dict[str, Finding]:
        """Look again until it is so: for what the kernel gives no event of, as a thread that has fallen
        asleep.
        """
        until = time.monotonic() + DEADLINE
        while True:
            found = self.diagnose()
            if true(found):
                return found
            assert time.monotonic() < until, f"it did not come to that; found {list(found)}"


def check(
    found: dict[str, Finding], rule: str, *, culprit: str, victims: int = 1, confidence: str = "certain"
) -> Finding:
    """The rule is among the findings, with this culprit; and no other rule claims a zombie."""
    assert rule in found, f"{rule} is not among {list(found)}"
    finding = found[rule]
    assert finding.culprit is not None
    assert (finding.culprit.comm, len(finding.victims), finding.confidence) == (culprit, victims, confidence)
    others = [f.rule for f in found.values() if f.rule != rule and any(v.zombie for v in f.victims)]
    assert not others
    assert finding.facts
    assert finding.cures
    assert finding.culprit.name in finding.what
    return finding


def python() -> str:
    """The kernel's name for this interpreter when it is started by its path."""
    return Path(sys.executable).name[:15]
