"""What is known of a tree, from what its guard said: bytes in, state out, no input or output of its own.

Both the blocking Tree and the asynchronous one feed it.
"""

from __future__ import annotations

import signal
from collections import deque

from sexton import events
from sexton.spawn._receipt import Entry, Receipt

KEEP = 10_000
"""So many events and buried processes are remembered: a tree may live for years."""


class Record:
    """The state of one tree."""

    def __init__(self) -> None:
        self.hello: events.Hello | None = None
        self.pid = 0  # of the command, as the guard sees it
        self.failed: events.Failed | None = None
        self.exited: events.Exited | None = None
        self.empty = False
        self.closed = False  # the guard hung up
        self.rescued = False  # the guard was lost; whom it left behind was ended by us
        self.why = ""
        self.events: deque[events.Event] = deque(maxlen=KEEP)
        self.seen = 0  # events so far, those that were forgotten too
        self.answers: dict[int, events.Event] = {}  # by the number of the command that each answers
        self.ignored: set[int] = set()  # the commands whose answers nobody waits for
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
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            event = events.parse(line)
            self._take(event)
            self.events.append(event)
            self.seen += 1

    def since(self, number: int) -> list[events.Event]:
        """The events from that number on, as far as they are remembered."""
        new = min(self.seen - number, len(self.events))
        return [self.events[i] for i in range(len(self.events) - new, len(self.events))]

    def _take(self, event: events.Event) -> None:  # noqa: C901, PLR0912 - a table: one case, one event, one line
        match event:
            case events.Done() | events.Refused() | events.Status():
                if self._answered in self.ignored:
                    self.ignored.remove(self._answered)
                else:
                    self.answers[self._answered] = event
                self._answered += 1
            case events.Hello():
                self.hello = event
                self.pid = self.pid or event.pid
            case events.Started():
                self.pid = event.pid
                self._entry(event.pid, event.comm).how = "command"
            case events.Failed():
                self.failed = event
            case events.Signalled(scope="stop"):
                self._entry(event.pid, event.comm, "stop").signals.append("SIG" + event.signal)
            case events.Signalled():
                self._entry(event.pid, event.comm, "signal").signals.append("SIG" + event.signal)
            case events.Killed():
                self._entry(event.pid, event.comm, "kill").signals.append("SIGKILL")
            case events.Reaped():
                self._bury(event)
            case events.Stopping():
                self.why = self.why or event.why
            case events.Exited():
                self.exited = event
            case events.Empty():
                self.empty = True
            case events.Lost():
                self._lost += event.count

    def _entry(self, pid: int, comm: str, how: str = "stop") -> Entry:
        entry = self._alive.get(pid)
        if entry is None:
            entry = self._alive[pid] = Entry(pid, comm, how)
        entry.name = comm or entry.name
        return entry

    def _bury(self, event: events.Reaped) -> None:
        entry = self._alive.pop(event.pid, None) or Entry(event.pid, event.comm, "adopted")
        entry.name = event.comm or entry.name
        entry.code = event.code if event.code is not None else -number(event.signal or "0")
        entry.adopted = event.adopted
        self._buried.append(entry)

    @property
    def returncode(self) -> int | None:
        """The command's, as subprocess has it: -N for signal N; None while it runs."""
        if self.exited is None:
            return None
        if self.exited.signal is not None:
            return -number(self.exited.signal)
        return self.exited.code

    def receipt(self, contain: str) -> Receipt:
        """What is known by now."""
        entries = (*self._buried, *self._alive.values())
        return Receipt(
            tuple(entry.copy() for entry in entries),
            why=self.why,
            contain=contain,
            empty=self.empty or self.rescued,
            guard_lost=self.rescued,
            lines_lost=self._lost,
        )


def number(name: str) -> int:
    """The number of a signal, from a guard's name of it: "TERM", "RTMIN+3", "64"."""
    if name.isdecimal():
        return int(name)
    base, _, more = name.partition("+")
    return int(getattr(signal, f"SIG{base}", 0)) + int(more or 0)


def name_of(sig: int | str) -> str:
    """A signal as the guard reads it: 15, "TERM" and "SIGTERM" are the same. Raises ValueError."""
    if isinstance(sig, str):
        if not number(sig.removeprefix("SIG")):
            raise ValueError(f"{sig!r} is no signal: expected a name as in `kill -l`, or a number")
        return sig
    if not 0 < int(sig) < signal.NSIG:
        raise ValueError(f"{sig!r} is no signal: expected 1 to {signal.NSIG - 1}")
    return str(int(sig))
