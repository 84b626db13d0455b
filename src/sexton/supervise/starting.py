"""What an instance is started with: its command, its environment, and what its guard is told."""

from __future__ import annotations

import hashlib
import os
import pwd
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sexton import aio
from sexton.spawn import DEVNULL
from sexton.supervise import limits, sockets
from sexton.supervise.variables import expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from sexton.spawn import Settings
    from sexton.supervise.config import App
    from sexton.supervise.instance import Instance

# What may change while an instance runs: it is looked at when it is needed.
NEUTRAL = ("instances", "restart", "on_fatal", "stop", "autostart", "idle")

# What somebody told us who supervises us, or passed sockets to us: it is not for the apps.
OURS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
)


@dataclass(slots=True)
class Plan:
    """`settings`: keywords of sexton.Tree. `listen`: where our successor finds the guard. `cell`: its cgroup."""

    command: tuple[str, ...]
    environment: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    listen: str | None = None
    cell: limits.Cell | None = None


def plan(instance: Instance) -> Plan:
    """What to start now. Raises UsageError where a ${...} means nothing any more."""
    app, house = instance.app, instance.house

    put = _putting(instance)
    plan = Plan(tuple(put(word) for word in app.command), _environment(instance, put))
    plan.settings = {
        "stdin": DEVNULL,
        "process_group": 0,  # Ctrl-C is for us: we stop them in their order
        "cwd": directory(instance),
        "env": plan.environment,
        "stop_signal": app.stop.signal,
        "grace": app.stop.grace,
        "rlimits": app.rlimits if house.files is None else {"nofile": house.files, **app.rlimits},
        "umask": -1 if app.umask is None else app.umask,
        "login": app.user,
    }
    if app.listen:
        passing = sockets.passing(house.sockets, app)
        # For the command alone: what is run beside it, a probe or a stop command, gets no sockets.
        plan.settings["env"] = plan.environment | passing.environment
        plan.settings |= {"preexec_fn": passing.preexec_fn, "pass_fds": passing.pass_fds}
    if cell := limits.make(f"{instance.name}@{instance.mark}", app.limits):
        plan.cell = limits.Cell(cell)
        plan.settings["preexec_fn"] = limits.entering(cell, plan.settings.get("preexec_fn"))
    orphans = app.orphans
    if orphans.policy in {"gentle", "expiration"}:
        plan.listen = str(house.run / f"{instance.name}.guard")
        plan.settings |= {"listen": plan.listen, "lease": orphans.lease, "on_owner_lost": "hold"}
    elif orphans.policy == "reincarnation":
        plan.settings["on_owner_lost"] = "keep"
    if orphans.maximum is not None:
        plan.settings["timeout"] = orphans.maximum
    return plan


def directory(instance: Instance) -> str | None:
    """Where the instance runs; None: where we do."""
    return None if instance.app.cwd is None else _putting(instance)(instance.app.cwd)


def refusal(instance: Instance, error: Exception) -> str:
    """Why it could not be started: by its key, where one is to blame."""
    app = instance.app
    if isinstance(error, OSError) and error.filename is not None and error.filename == directory(instance):
        why = (error.strerror or "?").lower()
        return f"apps.{app.name}.cwd: {error.filename}: {why}: expected a directory to run it in"
    return f"cannot start {app.command[0]}: {error}"


def given_up(instance: Instance, failures: int, since: float) -> str:
    """What is added to how it ended when it was restarted as often as it may be; `since`: the first failure."""
    app = instance.app
    if app.restart.policy == "never":
        return ""
    said = "; not restarted (restart.limit = 0)"
    if failures:
        times = f"{failures} restart{'' if failures == 1 else 's'}"
        said = f"; given up after {times} in {time.monotonic() - since:.1f} s (restart.limit)"
    return said + ("" if app.on_fatal == "exit" else f"; `sexton start {instance.name}` tries again")


def _putting(instance: Instance) -> Callable[[str], str]:
    """What puts the values of variables in."""

    def put(text: str) -> str:
        return expand(text, own=instance.ports, number=instance.number, port_of=instance.house.port_of)

    return put


def _environment(instance: Instance, put: Callable[[str], str]) -> dict[str, str]:
    app = instance.app
    found = {**os.environ, **{name: put(value) for name, value in app.env.items()}}
    found |= {"SEXTON_APP": app.name, "SEXTON_INSTANCE": str(instance.number)}
    ports = instance.ports
    found |= {f"PORT_{name.upper().replace('-', '_')}": str(port) for name, port in ports.items()}
    if ports and "PORT" not in app.env:
        found["PORT"] = str(next(iter(ports.values())))
    for name in OURS:
        found.pop(name, None)
    if instance.notify:
        found |= instance.notify.environment(app.live.watchdog if app.live else None)
    return found


async def run_beside(instance: Instance, command: tuple[str, ...], seconds: float) -> None:
    """Run a command as the instance's user, with its environment, for so long at most. Raises SextonError, OSError."""
    app = instance.app
    pid = instance.life.pid if instance.life else 0
    settings: Settings = {"grace": 0, "stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL, "cwd": instance.cwd}
    settings["env"] = {**(instance.environment or os.environ), "MAINPID": str(pid)}
    settings["login"] = app.user
    put = _putting(instance)
    await aio.run([put(word) for word in command], timeout=seconds, check=True, **settings)


def digest(app: App) -> str:
    """Of all that a running instance was started with: another digest wants another start."""
    fields = msgspec.to_builtins(app)
    for name in NEUTRAL:
        fields.pop(name, None)
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()[:16]


def uid(app: App) -> int | None:
    """Of the app's user; None: ours. An unknown name is the guard's to refuse."""
    name = (app.user or "").partition(":")[0]
    if not name:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def uses_notify(app: App) -> bool:
    """Its instances speak to us by sd_notify(3)."""
    return any(probe is not None and probe.notify for probe in (app.ready, app.live))


def write_down(instance: Instance, plan: Plan) -> None:
    """That it is being started, into the ledger."""
    app, house = instance.app, instance.house
    house.journal.append(
        "start",
        tree=instance.mark,
        instance=instance.name,
        app=app.name,
        epoch=house.epoch,
        command=plan.command,
        policy=app.orphans.policy,
        listen=plan.listen,
        ports=instance.ports,
        started=time.time(),
        restarts=instance.restarts,
        settings=digest(app),
        cgroup=None if plan.cell is None else str(plan.cell.path),
    )
