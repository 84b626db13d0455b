"""What the control API says, as structs: the server writes them, the client reads them."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal[
    "stopped",  # not asked for, or asked to stop
    "waiting",  # for the apps that it comes after
    "idle",  # on demand: its sockets listen, the first connection starts it
    "starting",  # it runs, and is not ready yet
    "ready",
    "stopping",
    "stuck",  # something of it is alive even after SIGKILL: nothing is started beside that, until it ends
    "backoff",  # it ended, and is started again in a moment
    "completed",  # it ended with 0, and is not to be started again
    "fatal",  # it ended too often, or cannot be started
]


class Exit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a command ended: its `code`, or the `signal`; `why` it was stopped, if it was; what was left and killed."""

    time: float
    code: int | None = None
    signal: str | None = None
    why: str = ""
    left: int = 0
    killed: int = 0
    seconds: float = 0.0  # that the stop took


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. pid 0: nothing runs. `since`: unix seconds when it came into its state."""

    name: str  # "web.0"
    app: str
    number: int
    state: State
    since: float
    pid: int = 0
    guard: int = 0
    restarts: int = 0
    adopted: bool = False
    ports: dict[str, int] = {}
    last_exit: Exit | None = None
    message: str = ""  # why it is in that state, for people; the app's own STATUS= as well
    retry_at: float | None = None


class App(msgspec.Struct, frozen=True, kw_only=True):
    """One app and its instances; `listen`: the addresses of its sockets."""

    name: str
    command: tuple[str, ...]
    instances: tuple[Instance, ...]
    listen: dict[str, str] = {}
    unavailable: tuple[str, ...] = ()  # what was asked for and cannot be had here, e.g. "limits.memory: no cgroup v2"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole supervisor."""

    name: str
    version: str
    pid: int
    epoch: int
    since: float
    config: str
    apps: tuple[App, ...]
    stopping: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened. `number` counts up from 1 within an epoch.

    kind: "state" (state, was, message), "exit" (exit), "reload", "limit", "lost" (message) ...
    """

    number: int
    time: float
    kind: str
    app: str = ""
    instance: str = ""
    state: State | None = None
    was: State | None = None
    exit: Exit | None = None
    message: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line that an instance wrote; `text` without its end."""

    time: float
    app: str
    instance: str
    stream: Literal["out", "err"]
    text: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a command: which instances it was about, and what it did."""

    instances: tuple[str, ...] = ()
    message: str = ""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did, by app; `settings`: what is of no app, and holds from now on."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer that is no success: what happened, and what to do."""

    error: str
