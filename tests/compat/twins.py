"""Runs the same case under a peer and under sexton-init by that name, and makes what they said comparable."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.running import Place, Running, start

PEERS = {
    "tini": "tini",
    "tini-static": "tini-static",
    "docker-init": "tini",
    "dumb-init": "dumb-init",
    "catatonit": "catatonit",
}
"""Each name we answer to that Debian has a program for, and that program."""

NAMES = [*PEERS, "pause"]

# What the C libraries say differently: Debian's tini and dumb-init are linked with glibc, sexton-init with musl.
GLIBC_WORDS = {
    "Not a tty": "Inappropriate ioctl for device",
    "Arithmetic exception": "Floating point exception",
    "Child process status": "Child exited",
    "Symbolic link loop": "Too many levels of symbolic links",
    "Filename too long": "File name too long",
}

REPLACED: list[tuple[str, str]] = [
    # Pids.
    (r"(\[\w+ ? tini) \(\d+\)", r"\1 (PID)"),
    (r"((?:pid[ =:]+'?)|with PID )\d+", r"\1PID"),
    (r"\(catatonit:\d+\)", "(catatonit:PID)"),
    (r"pid1 \(\d+\)", "pid1 (PID)"),
    (r"child process \d+", "child process PID"),
    # Texts that nobody matches as a whole are our own: what is matched in them stays.
    (
        r"(?m)^\[WARN  tini \(PID\)\] Tini is not running as PID 1.*\n.*zombie reaping won't work.*\n.*\n",
        "<not PID 1>\n",
    ),
    (r"(?ms)^(\S+) \(tini version 0\.19\.0\).*\Z", r"<usage of \1>\n"),
    # Debian has 0.1.7, we are as 0.2.1.
    (r"tini version [\d.]+_catatonit", "tini version X_catatonit"),
    # tini polls, and at its highest verbosity says each time that it found nothing.
    (r"(?m)^\[TRACE tini \(PID\)\] No child to (?:reap|wait)\n", ""),
    # tini's child says this into a buffer that its exec discards, unless stdout is a terminal.
    (r"(?m)^\[DEBUG tini \(PID\)\] tcsetpgrp failed: no tty \(ok to proceed\)\n", ""),
    # musl's names of the real-time signals.
    (r"'RT(\d+)'", lambda match: f"'Real-time signal {int(match[1]) - 34}'"),  # type: ignore[list-item]
]


def plain(text: str) -> str:
    """The text without what differs from run to run, or from C library to C library."""
    for pattern, by in REPLACED:
        text = re.sub(pattern, by, text)
    for musl, glibc in GLIBC_WORDS.items():
        text = text.replace(musl, glibc)
    return text


def by_writer(text: str) -> str:
    """Lines of the init after those of its command: stdio holds tini's back until it ends, parent and child race."""
    lines = text.splitlines(keepends=True)
    init = re.compile(r"\[(\w+ ? tini \(|dumb-init\])|\w+ \(catatonit:")
    return "".join(
        [line for line in lines if not init.match(line)] + sorted(line for line in lines if init.match(line))
    )


@dataclass(frozen=True)
class Outcome:
    """How a run ended, comparable: code is negative for a signal, as subprocess has it."""

    code: int
    out: str
    err: str

    @classmethod
    def of(cls, code: int, out: str, err: str) -> Outcome:
        return cls(code, by_writer(plain(out)), by_writer(plain(err)))


@dataclass(frozen=True)
class Case:
    """A command line as it is typed, with variables before it: "TINI_VERBOSITY=3 tini -g -- sh -c 'exit 3'"."""

    line: str
    place: Place = Place.HERE
    before: tuple[str, ...] = ()  # words between the place and the init: unshare, setpriv
    blocked: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()
    path: str | None = None  # PATH; the init is then started by its whole name

    def words(self) -> tuple[dict[str, str], list[str]]:
        """The variables and the words."""
        words = shlex.split(self.line)
        env = {}
        while re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        return env, words

    @property
    def program(self) -> str:
        return self.words()[1][0]


def signal_state(case: Case) -> Callable[[], None]:
    """What makes the case's signal state in the child; Python ignores PIPE and XFSZ: the inits must not see it."""

    def prepare() -> None:
        for sig in range(1, signal.NSIG):
            if sig not in {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
                signal.signal(sig, signal.SIG_IGN if sig in case.ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, case.blocked)

    return prepare


class Side:
    """One of the two: a directory where each name is a program, first in PATH."""

    def __init__(self, folder: Path, monster: Path) -> None:
        self.folder = folder
        self.monster = monster
        self._known: dict[Case, Outcome] = {}

    def path(self) -> str:
        """PATH for a run on this side; the monster is in it too."""
        return f"{self.folder}:{self.monster.parent}:/usr/sbin:/usr/bin:/sbin:/bin"

    def start(self, case: Case, stack: ExitStack, host: Sequence[str] = (), **how: Any) -> Running:
        """Start it; the end of the stack ends what is left."""
        env, words = case.words()
        found = shutil.which(words[0], path=str(self.folder))
        assert found, f"{words[0]} is not among {NAMES}"
        if case.path is not None:
            words[0] = found
        return stack.enter_context(
            start(
                [*case.before, *words],
                place=case.place,
                host=host or [self.monster, "2", "host"],
                env={"PATH": self.path() if case.path is None else case.path, "LC_ALL": "C"} | env,
                preexec=signal_state(case),
                **how,
            )
        )

    def run(self, case: Case) -> Outcome:
        """Run it to its end without input; what has been run before is remembered."""
        if case not in self._known:
            with ExitStack() as stack:
                result = self.start(case, stack, stdin=subprocess.DEVNULL).wait()
            self._known[case] = Outcome.of(result.code, result.out, result.err)
        return self._known[case]


@dataclass(frozen=True)
class Twins:
    """The peer's side and ours."""

    peer: Side
    ours: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.peer, self.ours

    def assert_same(self, case: Case) -> Outcome:
        """Run both and compare; gives what both did."""
        expected, got = self.peer.run(case), self.ours.run(case)
        assert got == expected, f"{case.line}\n    peer: {expected}\n    ours: {got}"
        return got

    def assert_differs(self, case: Case, **wanted: Any) -> None:
        """Run both: ours has the wanted fields, and the peer has not, or the difference is none any more."""
        expected, got = self.peer.run(case), self.ours.run(case)
        assert got != expected, f"{case}: no difference any more, take it off the table"
        assert got == replace(got, **wanted)


def make_side(folder: Path, programs: dict[str, Path], monster: Path) -> Side:
    """A directory with a link of each name to its program."""
    folder.mkdir()
    for name, program in programs.items():
        os.symlink(program, folder / name)
    return Side(folder, monster)
