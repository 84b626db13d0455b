"""What sexton.toml may say: one struct for each table of it. Seconds and bytes everywhere; None: not asked for.

`load.py` makes them from a file; they are values: two that are equal mean the same.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Condition = Literal["started", "ready", "completed"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of them all: strict, and not to be changed."""


class Probe(Table, frozen=True):
    """How an instance is asked whether it is well: exactly one of http, tcp, exec, log, notify.

    http      a URL; 2xx and 3xx are good. ${port} and ${port.NAME} are the instance's own
    tcp       HOST:PORT or a port; good when it accepts
    exec      a command, in a contained tree of its own; good when it exits with 0
    log       a regular expression; good when a line of the output matches (ready only)
    notify    READY=1, and with `watchdog` WATCHDOG=1 in time, by the protocol of sd_notify(3)
    interval  between the end of one probe and the next (live); the longest pause between two tries (ready)
    timeout   that one probe may take
    deadline  that getting ready may take, from the start; then the instance has failed (ready only)
    failures  so many in a row, and the instance is unwell (live only)
    delay     before the first probe (live only)
    watchdog  seconds between two WATCHDOG=1 (live with notify only)
    """

    http: str | None = None
    tcp: str | int | None = None
    exec: tuple[str, ...] | None = None
    log: str | None = None
    notify: bool = False
    interval: float = 10.0
    timeout: float = 5.0
    deadline: float = 60.0
    failures: int = 3
    delay: float = 0.0
    watchdog: float | None = None


class Restart(Table, frozen=True):
    """When an instance is started again after its command ended, and how soon.

    backoff is the first pause, each further one is `factor` times longer, `maximum` at most, plus or minus `jitter`
    (a share of it). After `stable` seconds of life the count begins anew. `limit` restarts without such a life make the
    instance fatal; None: never.
    """

    policy: Literal["always", "on-failure", "never"] = "on-failure"
    backoff: float = 1.0
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.1
    stable: float = 10.0
    limit: int | None = 10


class Stop(Table, frozen=True):
    """How an instance is stopped: a command first if there is one (within the grace), the signal, the grace, SIGKILL.

    scope "group" tells the command and its process group first, and what is left of the tree when the command has
    ended; "tree" tells everybody at once; "child" the command alone.
    """

    signal: str = "TERM"
    grace: float = 10.0
    scope: Literal["child", "group", "tree"] = "group"
    command: tuple[str, ...] | None = None


class Orphans(Table, frozen=True):
    """What becomes of an instance whose supervisor died (see sexton.Owner).

    gentle         it goes on for `lease`; the next supervisor adopts it
    expiration     as gentle, and lives `maximum` seconds at most in any case
    termination    its guard stops it at once
    reincarnation  it goes on until the next supervisor comes, who ends it
    """

    policy: Literal["gentle", "expiration", "termination", "reincarnation"] = "gentle"
    lease: float = 60.0
    maximum: float | None = None


class Limits(Table, frozen=True):
    """Of the whole tree of an instance, through a cgroup of its own: bytes of memory, number of processes."""

    memory: int | None = None
    processes: int | None = None


class Log(Table, frozen=True):
    """Where the output goes: a file for each instance in `directory`, rotated by size; `keep` older ones are kept."""

    format: Literal["text", "json"] = "text"
    directory: str | None = None
    max_size: int = 10_000_000
    keep: int = 5


class App(Table, frozen=True):
    """One app. `command` is what is executed, and has no shell unless it names one (shell = true in the file)."""

    name: str
    command: tuple[str, ...]
    cwd: str | None = None
    env: dict[str, str] = {}
    user: str | None = None
    umask: int | None = None
    rlimits: dict[str, int] = {}
    instances: int = 1
    ports: dict[str, int | Literal["auto"]] = {}
    listen: dict[str, str] = {}
    after: dict[str, Condition] = {}
    ready: Probe | None = None
    live: Probe | None = None
    restart: Restart = Restart()
    on_fatal: Literal["nothing", "stop", "exit"] = "nothing"
    stop: Stop = Stop()
    orphans: Orphans = Orphans()
    limits: Limits = Limits()
    log: Log = Log()
    on_demand: bool = False
    idle: float | None = None
    autostart: bool = True


class Api(Table, frozen=True):
    """TCP for the control API, beside its socket: HOST:PORT, and the file that holds the token."""

    listen: str
    token_file: str


class Config(Table, frozen=True):
    """The whole file. `directory` is where it lies: relative paths in it begin there."""

    path: str
    directory: str
    name: str
    state: str
    apps: dict[str, App]
    strategy: Strategy = "one_for_one"
    stop_timeout: float = 60.0
    api: Api | None = None

    def order(self) -> list[App]:
        """The apps, each after those that it waits for; otherwise as in the file."""
        done: dict[str, App] = {}
        for app in self.apps.values():
            way = [app]
            while way:
                first = next((name for name in way[-1].after if name not in done), None)
                if first is None:
                    done.setdefault(way[-1].name, way.pop())
                else:
                    way.append(self.apps[first])
        return list(done.values())
