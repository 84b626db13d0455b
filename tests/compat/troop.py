"""A small family under an init, which logs every signal that each of its members gets."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.compat.twins import Case, Outcome, Side
from tests.support.lines import Pipe, until
from tests.support.monsters import Note, await_notes, join, parse
from tests.support.processes import Handle, children, stat
from tests.support.running import Place, Result, Running

# The last one that a queue gives out: when it has come through, everything sent before it has.
MARKER = signal.SIGRTMAX
# Sent to a member itself, for the same reason.
DIRECT = signal.SIGRTMAX - 1

FAMILY = ("as kid fork stubborn", "as far fork setsid stubborn", "await 2", "as main stubborn")
"""COMMAND, a child in its group, and one in another session."""

PATIENT = ["sh", "-c", '"$@"; echo "over $?"; read go', "sh"]
"""A plain init that stays when the one under test has ended, until it is told to go."""


@dataclass
class Troop:
    """A family that is ready; what its members have got so far is in `notes`."""

    run: Running
    init: Handle
    log: Pipe
    members: dict[str, Handle]
    notes: list[Note] = field(default_factory=list)

    def send(self, sig: int) -> None:
        """Send it to the init."""
        self.init.send(sig)

    def await_got(self, label: str, sig: int) -> None:
        """Wait until that member has got that signal."""
        while not any(note.word == "got" and note.label == label and note.signal == sig for note in self.notes):
            self.notes += await_notes(self.log, "got")

    def settle(self, marker: bool = True) -> None:
        """Wait until all that was sent to the init has come through, and every member has logged its part."""
        if marker:
            self.send(MARKER)
            self.await_got("main", MARKER)
        for label, member in self.members.items():
            if member.alive():
                member.send(DIRECT)
                self.await_got(label, DIRECT)

    def got(self, *, but: Iterable[int] = (DIRECT, MARKER)) -> dict[str, list[int]]:
        """Which signals each member got, in order of number, each once: standard ones merge while they wait."""
        found: dict[str, set[int]] = {label: set() for label in self.members}
        for note in self.notes:
            if note.word == "got" and note.signal not in but:
                found[note.label].add(note.signal)
        return {label: sorted(signals) for label, signals in found.items()}

    def end(self) -> Outcome:
        """Kill COMMAND and wait for the init."""
        self.members["main"].kill()
        return self.wait()

    def wait(self) -> Outcome:
        """Wait for the init and take the rest of the log."""
        result: Result = self.run.wait()
        self.notes += [parse(line) for line in self.log.rest()]
        return Outcome.of(result.code, result.out, result.err)

    @property
    def left(self) -> int:
        """How many the plain init saw alive after this one (Place.BESIDE)."""
        return sum(note.word == "left" for note in self.notes)


def await_state(pid: int, wanted: str) -> None:
    """Look until the process is in one of those states (a letter each)."""
    until(lambda: stat(pid).state in wanted, f"process {pid} in state {wanted}")


def muster(
    side: Side,
    init: str,
    place: Place,
    stack: ExitStack,
    *,
    statements: Iterable[str] = FAMILY,
    ready: int = 3,
    before: tuple[str, ...] = (),
    host: Sequence[str] = (),
    deeper: int = 0,
    **how: Any,
) -> Troop:
    """Start the family under `init` ("TINI_VERBOSITY=3 tini -g --") and wait until each member is ready.

    `deeper` is how many processes `before` puts between the place and the init.
    """
    log = Pipe("the family's log")
    stack.callback(log.close)
    words = " ".join(f"'{word}'" for word in join(*statements))
    case = Case(f"{init} monster {log.write_fd} {words}", place, before)
    run = side.start(
        case,
        stack,
        host=host or [str(side.monster), str(log.write_fd), "host"],
        **{"stdin": subprocess.DEVNULL, "pipes": [log]} | how,
    )
    notes = await_notes(log, "ready", ready)
    init_pid = run.init.pid
    for _ in range(deeper):
        [init_pid] = children(init_pid)
    main = run.handle(next(pid for pid in children(init_pid) if stat(pid).comm == "monster"))
    return Troop(run, run.handle(init_pid), log, {"main": main} | _relatives(run, main.pid), notes)


def _relatives(run: Running, main_pid: int) -> dict[str, Handle]:
    main = stat(main_pid)
    found = {}
    for pid in children(main.pid):
        near = stat(pid).session == main.session
        found["kid" if near else "far"] = run.handle(pid)
    return found
