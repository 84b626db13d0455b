"""What a guard reports, as frozen dataclasses: one class for each event line of sexton-init.

`read` gives what lines say, `event` the object of one. `time` is in unix seconds; pids are as the guard
sees them (with contain="pidns", those of the namespace); a signal is its name without SIG ("TERM"). The lines are
described in sexton-init(1), EVENTS.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all of them have. `name` is the first word of the line."""

    name: ClassVar[str] = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Event):
    """The first line of a connection: the guard, its command, its phase, and how it holds its tree.

    pid     0: not started yet, or ended
    cgroup  "" where there is none of its own
    """

    name: ClassVar[str] = "hello"
    version: str = ""
    guard: int = 0
    pid: int = 0
    phase: str = ""
    contain: str = "subreaper"
    cgroup: str = ""
    on_owner_lost: str = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Hello):
    """The answer to `status`: also how many of the tree live, and whole seconds left of the lease (None: no lease)."""

    name: ClassVar[str] = "status"
    left: int = 0
    lease: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The command runs."""

    name: ClassVar[str] = "started"
    pid: int
    comm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """The command was not started: `errno` and `text` say why; `step` is what failed:
    "options", "contain", "setup" or "exec".
    """

    name: ClassVar[str] = "failed"
    errno: int = 0
    text: str = ""
    step: str = "exec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled(Event):
    """A signal was sent; scope "child", "group", "tree", or "stop" for each process that a stop asked to end."""

    name: ClassVar[str] = "signalled"
    signal: str
    pid: int
    scope: str = ""
    comm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped(Event):
    """The guard buried a process: its exit `code`, or the `signal` that ended it; `adopted`: it was an orphan."""

    name: ClassVar[str] = "reaped"
    pid: int
    comm: str = ""
    code: int | None = None
    signal: str | None = None
    adopted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping(Event):
    """The tree is being stopped; why: exit, timeout, signal, owner, stop, kill, lease, stop-timeout, grace."""

    name: ClassVar[str] = "stopping"
    why: str = ""
    left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Event):
    """A process was sent SIGKILL."""

    name: ClassVar[str] = "killed"
    pid: int
    comm: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the command used: seconds of processor time, bytes of memory at most."""

    utime: float = 0.0
    stime: float = 0.0
    maxrss: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(Event):
    """The command ended."""

    name: ClassVar[str] = "exited"
    pid: int = 0
    code: int | None = None
    signal: str | None = None
    rusage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty(Event):
    """Nothing of the tree is left: verified by the guard."""

    name: ClassVar[str] = "empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Event):
    """So many lines were not sent, since nobody read."""

    name: ClassVar[str] = "lost"
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Event):
    """A message for people: level error, warning, info or debug."""

    name: ClassVar[str] = "message"
    level: str = "info"
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """A command from the owner was carried out."""

    name: ClassVar[str] = "ok"
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """A command from the owner changed nothing, and why."""

    name: ClassVar[str] = "error"
    command: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Event):
    """An event that this version does not know: its line."""

    line: str = ""


_CLASSES: dict[str, tuple[type[Event], frozenset[str]]] = {
    cls.name: (cls, frozenset(field.name for field in fields(cls)))
    for cls in (
        *(Hello, Status, Started, Failed, Signalled, Reaped, Stopping, Killed),
        *(Exited, Empty, Lost, Message, Done, Refused),
    )
}


Line = dict[str, Any]
"""An event as it was sent; "event" is its name."""


def read(lines: list[bytes]) -> list[Line]:
    """What the lines say. One that is no event has "" for its name, and itself as "line"."""
    try:
        found = json.loads(f"[{b','.join(lines).decode()}]")  # at once: each call costs more than its line
    except ValueError:
        found = []
    if len(found) == len(lines) and all(map(_is_event, found)):
        return cast("list[Line]", found)
    return [_read_one(line) for line in lines]


def _is_event(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("event"), str)


def _read_one(line: bytes) -> Line:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if _is_event(found):
            return cast("Line", found)
    return {"event": "", "line": line.decode(errors="replace")}


def event(line: Line) -> Event:
    """A line as an object. One that is no event, or an unknown one, is an Other: a newer guard may say more."""
    try:
        cls, known = _CLASSES[line["event"]]
        values = {key: value for key, value in line.items() if key in known}
        if "rusage" in values:
            values["rusage"] = Usage(**values["rusage"])
        return cls(**values)
    except (TypeError, KeyError):
        return Other(line=line.get("line") or json.dumps(line))
