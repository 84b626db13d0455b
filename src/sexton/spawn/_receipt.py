"""What a tree leaves in place of its processes: a receipt."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_FOUND = {"pidns": "the kernel ended its PID namespace", "cgroup": "everybody in its cgroup was ended"}


@dataclass(slots=True)
class Entry:
    """One process that the guard had to do with.

    pid      as the guard sees it
    name     the kernel's name of it, 15 bytes at most
    how      how it was found: "command"; "adopted" as an orphan; "signal", "stop" or "kill", when it was first sent one
    signals  what it was sent, in order: ("SIGTERM", "SIGKILL")
    code     how it ended: the exit code, -N for signal N; None: its own parent buried it, or it is still there
    adopted  it had lost its parent, and the guard buried it
    """

    pid: int
    name: str
    how: str
    signals: list[str] = field(default_factory=list)
    code: int | None = None
    adopted: bool = False

    def copy(self) -> Entry:
        """Its own, that does not change with the tree."""
        return Entry(self.pid, self.name, self.how, [*self.signals], self.code, self.adopted)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Which processes of a tree the guard had to do with, and how each ended.

    A process that its own parent buried before any stop is the parent's affair, and not here.

    entries     each process; Entry says what of it
    why         what began the stop: "exit" (the command ended, others were left), "stop", "kill", "timeout", "lease",
                "owner", "signal"; "" when nothing had to be stopped
    contain     what contained it: "subreaper", "pidns" or "cgroup"
    empty       nothing is left: the guard has looked, or the kernel has ended what contained it
    guard_lost  the guard itself was killed; the library ended what it could find. With "subreaper" that is who carries
                the tree's mark, so that it is not empty for certain
    lines_lost  so many lines of the guard were lost since nobody read them; entries may be missing
    """

    entries: tuple[Entry, ...]
    why: str
    contain: str
    empty: bool
    guard_lost: bool = False
    lines_lost: int = 0

    @property
    def leftovers(self) -> tuple[Entry, ...]:
        """Those other than the command that a stop had to end."""
        return tuple(entry for entry in self.entries if entry.how in {"stop", "kill"})

    @property
    def killed(self) -> tuple[Entry, ...]:
        """Those that were sent SIGKILL."""
        return tuple(entry for entry in self.entries if "SIGKILL" in entry.signals)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{entry.pid} ({entry.name}): {_how(entry)}{', adopted' if entry.adopted else ''}"
            f"{', sent ' + ' '.join(entry.signals) if entry.signals else ''}, {self._end(entry)}"
            for entry in self.entries
        ]
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        """What is known of what is left, for a person."""
        if self.guard_lost:
            end = _FOUND[self.contain] if self.empty else "who had its mark, SEXTON_TREE in the environment, was ended"
            return f"its guard was killed; {end}"
        return "nothing is left" if self.empty else "not verified empty"

    def _end(self, entry: Entry) -> str:
        if entry.code is not None:
            return f"ended by signal {-entry.code}" if entry.code < 0 else f"exit status {entry.code}"
        if self.guard_lost:
            return "ended after its guard was killed"
        return "buried by its parent" if entry.how != "command" else "running"


def _how(entry: Entry) -> str:
    return {"command": "the command", "adopted": "an orphan", "signal": "signalled"}.get(
        entry.how, f"found by the {entry.how}"
    )
