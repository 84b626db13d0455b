"""What is known of a tree, from what its guard said: bytes in, state out, no input or output of its own.

Both the blocking Tree and the asynchronous one feed it.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections import deque
from typing import cast

from sexton import events
from sexton.spawn._receipt import Entry, Receipt

_RTMIN, _RTMAX = 34, 64  # whatever a C library keeps for itself
KEEP = 10_000
"""So many events and buried processes are remembered: a tree may live for years."""


class Record:
    """The state of one tree. Lines are kept as they came; what is asked of them is made into an event then."""

    def __init__(self) -> None:
        self.pid = 0  # of the command, as the guard sees it
        self.empty = False
        self.closed = False  # the guard hung up
        self.rescued = False  # the guard was lost; whom it left behind was ended by us
        self.why = ""
        self._error = ""  # what the guard could not do once the command ran
        self.killed: dict[int, float] = {}  # who was sent SIGKILL, or could not be, and is not buried yet; and when
        self.seen = 0  # events so far, those that were forgotten too
        self.answers: dict[int, events.Event] = {}  # by the number of the command that each answers
        self.ignored: set[int] = set()  # the commands whose answers nobody waits for
        self._lines: deque[events.Line] = deque(maxlen=KEEP)
        self._last: dict[str, events.Line] = {}  # the last one of each name
        self._answered = 0
        self._lost = 0
        self._tail = b""
        self._alive: dict[int, Entry] = {}
        self._buried: deque[Entry] = deque(maxlen=KEEP)

    def feed(self, data: bytes) -> None:
        """Take what was read from the guard; b"" is the end."""
        if not data:
            self.closed = True
            return
        *whole, self._tail = (self._tail + data).split(b"\n")
        for line in events.read(whole):
            self._last[line["event"]] = line
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a newer guard may say it in another way
                self._take(line["event"], line)
            self._lines.append(line)
            self.seen += 1

    def since(self, number: int) -> list[events.Event]:
        """The events from that number on, as far as they are remembered."""
        new = min(self.seen - number, len(self._lines))
        return [events.event(self._lines[i]) for i in range(len(self._lines) - new, len(self._lines))]

    @property
    def hello(self) -> events.Hello | None:
        """How the guard introduced itself."""
        return cast("events.Hello | None", self._event("hello"))

    @property
    def failed(self) -> events.Failed | None:
        """Why the command was not started."""
        return cast("events.Failed | None", self._event("failed"))

    @property
    def ended(self) -> bool:
        """The command has ended."""
        return "exited" in self._last

    def guard_lost(self, status: int | None, on_exit: str) -> bool:
        """The guard was killed before it had done what it was there for. `status`: its own; None: that is not known."""
        if self.failed or self.gave_up or (status is not None and status >= 0):
            return False
        return not self.ended or not (self.empty or on_exit == "leave")

    @property
    def gave_up(self) -> str:
        """Why the guard ended though something of the tree may be left; "" when it did not."""
        return "" if self.failed else self._error

    @property
    def held(self) -> bool:
        """Nothing is left, and the guard keeps how the command ended until it is dismissed."""
        waits = self.empty and self.ended and not self.closed
        return waits and self._last.get("hello", {}).get("on_owner_lost") == "hold"

    def _event(self, name: str) -> events.Event | None:
        line = self._last.get(name)
        return events.event(line) if line else None

    def _take(self, name: str, line: events.Line) -> None:  # noqa: C901 - a table: one case, one event
        match name:
            case "ok" | "error" | "status":
                if self._answered in self.ignored:
                    self.ignored.remove(self._answered)
                else:
                    self.answers[self._answered] = events.event(line)
                self._answered += 1
            case "hello":
                self.pid = self.pid or line["pid"]
                self.empty = self.empty or line["phase"] == "empty"
            case "started":
                self.pid = line["pid"]
                self._entry(line, "command")
            case "signalled":
                how = "stop" if line["scope"] == "stop" else "signal"
                self._entry(line, how).signals.append("SIG" + line["signal"])
            case "killed":
                self._entry(line, "kill").signals.append("SIGKILL")
                self.killed[line["pid"]] = line["time"]
            case "reaped":
                self._bury(line)
            case "stopping":
                self.why = self.why or line["why"]
            case "empty":
                self.empty = True
            case "message":
                self._hear(line)
            case "lost":
                self._lost += line["count"]

    def _hear(self, line: events.Line) -> None:
        if line["level"] == "error":
            self._error = line["text"]
            self.killed |= {int(pid): line["time"] for pid in re.findall(r"(\d+) \(", self._error)}

    def _entry(self, line: events.Line, how: str) -> Entry:
        pid, comm = line["pid"], line.get("comm", "")
        entry = self._alive.get(pid)
        if entry is None:
            entry = self._alive[pid] = Entry(pid, comm, how)
        entry.name = comm or entry.name
        return entry

    def _bury(self, line: events.Line) -> None:
        self.killed.pop(line["pid"], None)
        entry = self._alive.pop(line["pid"], None) or Entry(line["pid"], line["comm"], "adopted")
        entry.name = line["comm"] or entry.name
        entry.code = _code(line)
        entry.adopted = line["adopted"]
        self._buried.append(entry)

    @property
    def returncode(self) -> int | None:
        """The command's, as subprocess has it: -N for signal N; None while it runs."""
        line = self._last.get("exited")
        return _code(line) if line else None

    def receipt(self, contain: str) -> Receipt:
        """What is known by now."""
        entries = (*self._buried, *self._alive.values())
        return Receipt(
            tuple(entry.copy() for entry in entries),
            why=self.why,
            contain=contain,
            empty=self.empty or (self.rescued and contain != "subreaper"),
            guard_lost=self.rescued,
            lines_lost=self._lost,
        )


def _code(line: events.Line) -> int | None:
    """How it ended: the exit code, or -N for signal N."""
    name = line.get("signal")
    return line.get("code") if name is None else -number(name)


def number(name: str) -> int:
    """The number of a signal as the guard reads it: "TERM", "SIGTERM", "RTMIN+3", "RTMAX-1", "64"; 0: it is none."""
    word = name.upper().removeprefix("SIG")
    found = 0
    if re.fullmatch("[0-9]{1,9}", name):
        found = int(name)
    elif real := re.fullmatch(r"RT(?:MIN(\+[0-9]{1,9})?|MAX(-[0-9]{1,9})?)", word):
        found = (_RTMIN if word.startswith("RTMIN") else _RTMAX) + int(real[1] or real[2] or 0)
        found = found if found >= _RTMIN else 0
    elif f"SIG{word}" in signal.Signals.__members__:
        found = signal.Signals[f"SIG{word}"]
    return int(found) if found <= _RTMAX else 0


def name_of(sig: int | str) -> str:
    """A signal in the guard's words: 15, "15" and "SIGTERM" are TERM. Raises ValueError."""
    found = number(str(sig if isinstance(sig, str) else int(sig)))
    if not found:
        raise ValueError(f"{sig!r} is no signal: expected a name as in `kill -l`, or a number from 1 to {_RTMAX}")
    if found >= _RTMIN:
        return f"RTMIN+{found - _RTMIN}" if found > _RTMIN else "RTMIN"
    with contextlib.suppress(ValueError):
        return signal.Signals(found).name.removeprefix("SIG")
    return str(found)  # what the C library keeps for itself
