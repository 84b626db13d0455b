"""A family: monsters under sexton-init in one of the modes, with the log of the monsters and the events of the init."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.lines import DEADLINE, Pipe, events
from tests.support.monsters import Note, await_notes, join, rest_of
from tests.support.running import Place, Proc, Running, start


@dataclass(frozen=True)
class Mode:
    """Where sexton-init runs and which /proc it finds."""

    place: Place
    proc: Proc = Proc.OWN

    def __str__(self) -> str:
        return f"{self.place.value}-{self.proc.value}"


GIVE_UP = 9.5
"""Seconds: after 10 s sexton-init stops waiting for those it has killed; no test has a reason to come to that."""

NO_EXECUTABLE = re.compile(r"^==\d+==WARNING: reading executable name failed.*\n", re.MULTILINE)
"""What the sanitizers' runtime says by itself where there is no /proc."""

PID1 = Mode(Place.PID1)
BESIDE = Mode(Place.BESIDE)
PLACED_MODES = [PID1, BESIDE]
ALL_MODES = [Mode(place, proc) for place in (Place.PID1, Place.BESIDE) for proc in Proc]


@dataclass
class Ending:
    """How a family ended. `left` are the pids that the plain init saw after sexton-init (Place.BESIDE)."""

    code: int
    out: str
    err: str
    notes: list[Note]
    events: list[dict[str, Any]]

    @property
    def left(self) -> list[int]:
        """Who was alive, or a zombie, after sexton-init had ended."""
        return [int(note.rest[0]) for note in self.notes if note.word == "left"]

    def got(self, sig: int) -> Counter[int]:
        """How often each pid got that signal."""
        return Counter(note.pid for note in self.notes if note.word == "got" and note.signal == sig)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of that kind."""
        return [event for event in self.events if event["event"] == kind]


@dataclass
class Family:
    """A started family; `notes` are what the test has read of the log so far."""

    run: Running
    log: Pipe
    stream: Pipe
    notes: list[Note] = field(default_factory=list)

    def await_note(self, word: str, count: int = 1) -> list[Note]:
        """Wait for that many notes of that word."""
        found = await_notes(self.log, word, count)
        self.notes += found
        return found

    def await_event(self, kind: str) -> dict[str, Any]:
        """Wait for the next event of that kind."""
        text = self.stream.until(lambda line: f'{{"event":"{kind}"' in line.replace(" ", ""))[-1]
        return events([text])[0]

    def send(self, sig: int) -> None:
        """Send a signal to sexton-init."""
        self.run.send(sig)

    def end(self, deadline: float = DEADLINE) -> Ending:
        """Wait until sexton-init, and with it the whole namespace, has ended."""
        result = self.run.wait(deadline)
        notes = self.notes + rest_of(self.log)
        self.stream.rest()
        found = events(self.stream.seen.decode().splitlines())
        times = [event["time"] for event in found if "time" in event]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert max(gaps, default=0) < GIVE_UP, f"sexton-init gave up waiting for somebody: {found}"
        return Ending(result.code, result.out, NO_EXECUTABLE.sub("", result.err), notes, found)


class Starter:
    """Starts sexton-init in a mode, over monsters or any command."""

    def __init__(self, init: Path, monster: Path, stack: ExitStack) -> None:
        self.init = init
        self.monster = monster
        self.stack = stack

    def __call__(
        self,
        mode: Mode,
        options: str | Sequence[str],
        *statements: str,
        command: Sequence[str | Path] = (),
        without_us: bool = False,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        before: Sequence[str | Path] = (),
        init: Path | None = None,
        report: bool = True,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        fds: Sequence[int] = (),
    ) -> Family:
        """Start `sexton-init OPTIONS -- monster LOG STATEMENTS`, or `command`.

        `before` is put before sexton-init; its words MONSTER and LOG become the program and its log.
        `without_us`: the command alone, to compare with.
        """
        log, stream = Pipe("the monsters' log"), Pipe("the events")
        self.stack.callback(log.close)
        self.stack.callback(stream.close)
        words: list[str | Path] = list(options.split() if isinstance(options, str) else options)
        if report:
            words = ["--events", str(stream.write_fd), *words]
        if statements:
            command = [self.monster, str(log.write_fd), *join(*statements)]
        if command:
            words += ["--", *command]
        names: dict[str | Path, str | Path] = {"MONSTER": self.monster, "LOG": str(log.write_fd)}
        run = start(
            [
                *(names.get(word, word) for word in before),
                *(command if without_us else [init or self.init, *words]),
            ],
            place=mode.place,
            proc=mode.proc,
            host=[self.monster, str(log.write_fd), "host"],
            env=env,
            stdin=stdin,
            pipes=[log, stream],
            stdout=stdout,
            stderr=stderr,
            fds=fds,
        )
        self.stack.enter_context(run)
        return Family(run, log, stream)

    def plain(self, *words: str | Path, before: Sequence[str | Path] = (), **how: Any) -> Running:
        """Start `sexton-init WORDS` as a plain child of the test: for what leaves no process behind."""
        return self.stack.enter_context(start([*before, self.init, *words], place=Place.HERE, **how))
