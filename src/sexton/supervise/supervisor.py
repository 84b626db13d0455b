"""The supervisor: what people ask of the house of all instances."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from sexton import __version__
from sexton.errors import LeftoversError, SextonError, UsageError
from sexton.spawn._record import name_of
from sexton.supervise import limits, models, starting
from sexton.supervise.house import House, is_too_many, stuck
from sexton.supervise.instance import SETTLED, Instance
from sexton.supervise.targets import unknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from sexton.supervise.config import Api, App, Config


class Supervisor(House):
    """Looks after what `config` names.

    load   gives the configuration as the file says it now, for reload()

    Used within one asyncio loop: begin(), then wait(). One supervisor at a time for a state directory: the caller holds
    its lock. Raises OSError where the state directory cannot be written.
    """

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        super().__init__(config)
        self._load = load

    def status(self) -> models.Status:
        """Everything."""
        return models.Status(
            name=self.config.name,
            version=__version__,
            pid=os.getpid(),
            epoch=self.epoch,
            since=self.since,
            config=self.config.path,
            stopping=self.stopping,
            apps=tuple(
                models.App(
                    name=app.name,
                    command=app.command,
                    instances=tuple(one.model() for one in self.of(app.name)),
                    listen=app.listen,
                    unavailable=limits.unavailable(app.limits),
                )
                for app in self.config.apps.values()
            ),
        )

    def find(self, targets: Sequence[str]) -> list[Instance]:
        """The instances that are meant: "web", "web.1", "all". Raises UsageError."""
        found: dict[str, Instance] = {}
        for target in targets:
            if target == "all":
                found |= self.instances
            elif target in self.config.apps:
                found |= {one.name: one for one in self.of(target)}
            elif target in self.instances:
                found[target] = self.instances[target]
            else:
                raise unknown(target, self.config.apps, self.instances)
        return list(found.values())

    async def start(self, targets: Sequence[str]) -> models.Done:
        """Start them, and before them the apps they wait for; returns when they are ready or have failed."""
        self._check_running()
        chosen = self.find(targets)
        needed = {name for one in chosen for name in self.needs(one.app)}
        for one in self.instances.values():
            if one in chosen or (one.app.name in needed and one.state == "stopped"):
                one.happen("start")
        await self.until(lambda: not self.getting_up(chosen))
        return _done(chosen)

    async def stop(self, targets: Sequence[str]) -> models.Done:
        """Stop them; returns when nothing of them is left. Raises LeftoversError where something survives SIGKILL."""
        chosen = self.find(targets)
        for one in reversed(chosen):
            one.happen("stop")
        await self.until(lambda: all(one.rests for one in chosen))
        if said := stuck(chosen):
            raise LeftoversError(said)
        return _done(chosen)

    async def restart(self, targets: Sequence[str]) -> models.Done:
        """Restart them, of each app one after the other: each is ready before the next one is stopped.

        Raises SextonError when one does not come up again; those after it are left as they are.
        """
        self._check_running()
        chosen = self.find(targets)
        for one in chosen:
            await self._renew(one)
        return _done(chosen)

    async def _renew(self, one: Instance) -> None:
        one.happen("restart")
        await self.until(lambda: not self.getting_up([one]))
        if one.shown in {"backoff", "fatal", "stuck"}:
            raise SextonError(f"{one.name} did not come up again: {one.why}; the instances after it are as they were")

    async def signal(self, targets: Sequence[str], signal: str, scope: str = "group") -> models.Done:
        """Send a signal to the command, its group or its tree. Raises UsageError."""
        try:
            name = name_of(signal)
        except ValueError as error:
            raise UsageError(f"signal: {error}") from None
        if scope not in {"child", "group", "tree"}:
            raise UsageError(f"scope: {scope!r}: expected child, group or tree")
        chosen = [one for one in self.find(targets) if one.life]
        for one in chosen:
            if one.life:
                one.life.order(f"signal {name} {scope}")
        said = "\n".join(f"{one.name}: SIG{name} was sent to its {scope}" for one in chosen)
        return models.Done(instances=tuple(one.name for one in chosen), message=said or "nothing of it runs")

    async def scale(self, app: str, instances: int) -> models.Done:
        """Let an app have so many instances; returns when the new ones are up and nothing is left of the others."""
        self._check_running()
        spec = self.config.apps.get(app)
        if spec is None:
            raise unknown(app, self.config.apps)
        if not 0 <= instances <= 10_000:
            raise UsageError(f"instances: {instances}: expected 0 to 10000")
        if instances > 1 and any(wanted != "auto" for wanted in spec.ports.values()):
            raise UsageError(f'{app} has a fixed port, which only one instance can have; make it "auto", or use listen')
        await self._apply({**self.config.apps, app: msgspec.structs.replace(spec, instances=instances)})
        return _done(self.of(app))

    async def reload(self, follow: Callable[[Api | None], Awaitable[bool]] | None = None) -> models.Changes:
        """Read the file again and apply the difference, and only that. Raises UsageError; nothing is changed then.

        follow: lets the control API listen as it says now, whether it changed or not; says whether that is another way
        """
        self._check_running()
        try:
            config = self._load()
        except UsageError as error:
            raise UsageError(f"{error}\nnothing was changed") from None
        if (config.state, config.name) != (self.config.state, self.config.name):
            raise UsageError(f"{config.path}: name and state cannot be changed while it runs; use down, then up")
        settings = [key for key in ("strategy", "stop_timeout") if getattr(config, key) != getattr(self.config, key)]
        if follow and await follow(config.api):
            settings.append("api")
        old = self.config.apps
        changes = models.Changes(
            added=tuple(name for name in config.apps if name not in old),
            removed=tuple(name for name in old if name not in config.apps),
            changed=tuple(n for n, app in config.apps.items() if n in old and _differs(app, old[n])),
            scaled=tuple(n for n, app in config.apps.items() if n in old and app.instances != old[n].instances),
            settings=tuple(settings),
            unchanged=tuple(n for n, app in config.apps.items() if n in old and app == old[n]),
        )
        apps = config.apps
        self.config = msgspec.structs.replace(config, apps=old)
        await self._apply(apps)
        said = [f"{what} {', '.join(names)}" for what, names in msgspec.structs.asdict(changes).items() if names]
        self.events.tell("reload", message="; ".join(said))
        return changes

    async def _apply(self, apps: dict[str, App]) -> None:
        """Let there be these apps: what is too many is stopped, what is other is restarted, what is new is started.

        Raises LeftoversError, in the end, where something of what is too many survives SIGKILL.
        """
        old, left = self.config.apps, None
        try:
            await self.remove([one for one in self.instances.values() if is_too_many(one, apps)])
        except LeftoversError as error:
            left = error
        for name, app in old.items():
            if name not in apps:
                self.sockets.close(app)
        self.config = msgspec.structs.replace(self.config, apps=apps)
        self.mind_fixed_ports()
        for app in self.config.order():
            await self._follow(old.get(app.name), app)
        self.ports_changed()
        if left:
            self.forget_later()
            raise left

    async def _follow(self, old: App | None, app: App) -> None:
        """Make the instances of an app what it says now; `old`: what it said before."""
        if app.listen or (old and old.listen):  # not only where it differs: the last reload may have failed here
            self.sockets.open(app)
        present = self.of(app.name)
        for one in present:
            differs, one.app = _differs(app, one.app), app
            if differs and not one.rests:
                await self._renew(one)
            elif app.autostart and one.number < app.instances and (old is None or one.number >= old.instances):
                one.happen("start")  # it was asked to go, and has not gone yet
        new = [self.add(app, n) for n in range(app.instances) if f"{app.name}.{n}" not in self.instances]
        if app.autostart and (not present or any(one.state not in SETTLED for one in present)):
            for one in new:
                one.happen("start")
            await self.until(lambda: not self.getting_up(new))

    def _check_running(self) -> None:
        if self.stopping:
            raise SextonError("the supervisor is stopping: nothing is started any more")


def _differs(new: App, old: App) -> bool:
    return starting.digest(new) != starting.digest(old)


def _done(instances: Iterable[Instance]) -> models.Done:
    said = [f"{one.name} is {one.shown}" + (f": {one.why}" if one.why else "") for one in instances]
    return models.Done(instances=tuple(one.name for one in instances), message="\n".join(said))
