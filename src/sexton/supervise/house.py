"""The house of all instances: their order, from the first start until nothing is left, and what they share."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.errors import LeftoversError, UsageError
from sexton.spawn._record import number
from sexton.supervise import listener, models, succession
from sexton.supervise.config import Log
from sexton.supervise.happenings import Events
from sexton.supervise.instance import ALIVE, SETTLED, Instance
from sexton.supervise.journal import Journal
from sexton.supervise.logs import Capture
from sexton.supervise.ports import Ports, write_ports_file
from sexton.supervise.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sexton.supervise.config import App, Condition, Config
    from sexton.supervise.states import State

RISING: frozenset[State] = frozenset({"starting", "restarting", "failing", "ending"})
DESCRIPTORS = 11  # of ours for one instance: its guard, its output, sockets, a probe, its limits
SPARE = 100


class House:
    """The instances of the apps that `config` names, and their journal, ports, sockets, logs and events."""

    def __init__(self, config: Config) -> None:
        self.sockets = Sockets()
        self.config = config
        self.since = time.time()
        self.stopping = False
        self.events = Events()
        self.directory = Path(config.state)
        self.run = self.directory / "run"
        for directory in (self.directory, self.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = Journal(self.directory / "ledger")
        self.older = list(self.journal.open.values())
        self.epoch = self.journal.announce()
        self.capture = Capture(self.directory, asyncio.get_running_loop())
        self.capture.complain = self._output_lost
        self.reserved = Ports()
        self.mind_fixed_ports()
        self.instances: dict[str, Instance] = {}
        self.files: tuple[int, int] | None = None  # the limit of open files for instances, where ours is another
        self._changed = asyncio.Event()
        self._looking = False
        self._finished = asyncio.Event()
        self._code = 0
        self._ending: asyncio.Task[None] | None = None
        self._forgetting: asyncio.Task[None] | None = None
        for app in config.order():
            for index in range(app.instances):
                self.add(app, index)

    def add(self, app: App, number: int) -> Instance:
        """An instance of an app, which is not started yet."""
        instance = self.instances.setdefault(f"{app.name}.{number}", Instance(self, app, number))
        self._make_room()
        return instance

    def _make_room(self) -> None:
        """Let us have as many descriptors as so many instances take; they have the limit that we were started with."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self.files is None and soft != hard and len(self.instances) * DESCRIPTORS + SPARE > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self.files = (soft, hard)

    # --- beginning and ending ---

    async def begin(self) -> None:
        """Adopt or end what an earlier supervisor left, and start what is to be started.

        Returns when every instance is ready, has failed, or waits for what will not come by itself.
        """
        outdated, unwanted = succession.settle(self)
        for app in self.config.order():
            self._open_sockets(app)
        for instance in outdated:
            instance.happen("restart", "its configuration has changed")
        removal = asyncio.get_running_loop().create_task(self.remove(unwanted))
        for instance in list(self.instances.values()):
            if (instance.state == "stopped" or instance.survivors) and instance.app.autostart:
                instance.happen("start")
        await self.until(lambda: not self.getting_up(self.instances.values()))
        try:
            await removal
        except LeftoversError:
            self.forget_later()
        for name in self.capture.left() - self.instances.keys():
            try:
                self.capture.resume(name, Log())  # its last words are kept, and the FIFOs are not
                self.capture.close(name)
            except OSError as error:
                self._output_lost(name, f"what it wrote last is not read: {error}")

    async def remove(self, gone: list[Instance]) -> None:
        """Stop these, and forget them when nothing of them is left. Raises LeftoversError where it stays so: what is
        settled is forgotten even then.
        """
        while not all(one.rests for one in self._unwanted(gone)):
            await self._change()
        for one in gone:
            if one.state in SETTLED:
                one.close()
                self.instances.pop(one.name, None)
        if said := stuck(gone):
            raise LeftoversError(said)

    def _unwanted(self, gone: list[Instance]) -> list[Instance]:
        for one in gone:
            if one.state not in SETTLED:  # again and again: somebody may start it meanwhile
                one.happen("stop", "nobody asks for it any more")
        return gone

    def forget_later(self) -> None:
        """Forget those that nobody asks for when what is left of them ends."""
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = asyncio.get_running_loop().create_task(self._forget())

    async def _forget(self) -> None:
        while gone := [one for one in self.instances.values() if is_too_many(one, self.config.apps)]:
            try:
                await self.remove(gone)
            except LeftoversError:
                await self._change()

    def _open_sockets(self, app: App) -> None:
        pids = [pid for one in self.of(app.name) if one.state in ALIVE for pid in one.pids()]
        for problem in self.sockets.adopt(app, pids):
            self.events.tell("sockets", app=app.name, message=problem)

    def getting_up(self, instances: Iterable[Instance]) -> bool:
        """Some are on their way up, or wait for one that is."""
        if any(map(_rises, instances)):
            return True
        waiting = any(one.state == "waiting" for one in instances)
        return self._looking or (waiting and any(map(_rises, self.instances.values())))

    async def wait(self) -> int:
        """Until all is over; the exit code."""
        await self._finished.wait()
        return self._code

    def down(self, *, leave: bool = False, code: int = 0) -> None:
        """Begin to end: stop everything, those first that others do not need; a second call leaves them no more time.

        leave: end this supervisor alone; the instances go on for their lease, and the next supervisor adopts them.
        """
        if self._finished.is_set():
            return
        if self.stopping:
            self._hurry()
            return
        self.stopping = True
        self._code = code
        self.events.tell("stopping", message="the instances are left" if leave else "")
        self._ending = asyncio.get_running_loop().create_task(self._leave() if leave else self._stop_all())

    async def _leave(self) -> None:
        for instance in self.instances.values():
            instance.leave()
        self._finish()

    async def _stop_all(self) -> None:
        everybody = list(self.instances.values())
        timer = asyncio.get_running_loop().call_later(self.config.stop_timeout, self._hurry)
        while left := [one for one in everybody if not one.rests]:
            for one in left:
                if all(other.rests for other in left if one.app.name in self.needs(other.app)):
                    one.happen("stop")
            if not all(one.rests for one in left):
                await self._change()
        timer.cancel()
        if stuck(everybody):  # it is in the ledger, for who comes next
            self._code = self._code or 1
        for one in everybody:
            one.close()
        for app in self.config.apps.values():
            self.sockets.close(app)
        self._finish()

    def needs(self, app: App) -> set[str]:
        """The apps that it comes after, and those that they come after."""
        found = set(app.after)
        for name in app.after:
            found |= self.needs(self.config.apps[name]) if name in self.config.apps else set()
        return found

    def _hurry(self) -> None:
        for one in self.instances.values():
            if one.state not in SETTLED:
                one.happen("stop")
                one.hurry()

    def _finish(self) -> None:
        if self._forgetting:
            self._forgetting.cancel()
        self.capture.leave()
        self.reserved.close()
        self.sockets.forget()
        self.journal.close()
        self.events.tell("stopped")
        self._finished.set()

    # --- what instances tell ---

    def changed(self, instance: Instance, was: models.State) -> None:
        """An instance is in another state."""
        if was != instance.shown:
            self.events.tell(
                "state",
                app=instance.app.name,
                instance=instance.name,
                state=instance.shown,
                was=was,
                message=instance.why,
            )
        self._changed.set()
        self._changed = asyncio.Event()
        self.look_at_waiting()
        if instance.state == "completed" and all(one.state == "completed" for one in self.instances.values()):
            self.down()

    def tell_exit(self, instance: Instance, how: models.Exit) -> None:
        """The command of an instance ended, and nothing of its tree is left."""
        self.events.tell("exit", app=instance.app.name, instance=instance.name, exit=how)

    def _output_lost(self, instance: str, message: str) -> None:
        self.events.tell("lost", app=instance.rpartition(".")[0], instance=instance, message=message)

    def failed(self, instance: Instance) -> None:
        """An instance ended by itself and will be started again: the strategy says who else is."""
        if self.config.strategy == "one_for_one":
            return
        others = list(self.instances.values())
        if self.config.strategy == "rest_for_one":
            order = [app.name for app in self.config.order()]
            later = set(order[order.index(instance.app.name) + 1 :]) if instance.app.name in order else set()
            others = [one for one in others if one.app.name in later]
        for one in reversed(others):
            if one is not instance and one.state in {"starting", "ready"}:
                one.happen("restart", f"{instance.name} ended ({self.config.strategy})")

    def fatal(self, instance: Instance) -> None:
        """An instance is not started again."""
        how = instance.last_exit
        match instance.app.on_fatal:
            case "exit":
                code = 1
                if how and how.code:
                    code = how.code
                elif how and how.signal:
                    code = 128 + number(how.signal)
                if not self.stopping:  # a second call would leave the others no time
                    self.down(code=code)
            case "stop":
                for one in reversed(self.instances.values()):
                    if one is not instance:
                        one.happen("stop", f"{instance.name} is fatal")

    def fault(self, instance: Instance, error: BaseException) -> None:
        """Something of ours went wrong: it is said, and the instance counts as unwell."""
        self.events.tell(
            "fault", app=instance.app.name, instance=instance.name, message=f"{type(error).__name__}: {error}"
        )
        instance.happen("unwell", f"{type(error).__name__}: {error}")

    def look_at_waiting(self) -> None:
        """Start those whose dependencies are there, when this turn of the loop is over."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        for one in list(self.instances.values()):
            if one.state == "waiting" and not self.stopping:
                missing = [name for name, condition in one.app.after.items() if not self._is_there(name, condition)]
                one.message = f"waits for {', '.join(missing)}" if missing else ""
                if not missing:
                    one.happen("park" if one.app.on_demand else "free")
        self._changed.set()
        self._changed = asyncio.Event()

    def _is_there(self, name: str, condition: Condition) -> bool:
        states = {one.state for one in self.of(name)}
        match condition:
            case "started":
                running = all(one.state != "starting" or (one.life and one.life.pid) for one in self.of(name))
                return running and states <= {"starting", "ready", "idle", "completed"}
            case "ready":
                return states <= {"ready", "idle", "completed"}
            case "completed":
                return states <= {"completed"}

    async def _change(self) -> None:
        await self._changed.wait()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until changes have made it true."""
        while not done():
            await self._change()

    # --- what instances ask for ---

    def port_of(self, app: str, name: str | None) -> int:
        """The port of an app's first instance: its first one, or that of that name. Raises UsageError."""
        spec = self.config.apps.get(app)
        names = list(spec.ports) if spec else []
        chosen = name or (names[0] if names else "")
        if spec is None or chosen not in spec.ports:
            raise UsageError(f"${{app.{app}.port}}: there is no such app with such a port")
        return self.reserved.take(f"{app}.0", chosen, spec.ports[chosen])

    def ports_changed(self) -> None:
        """Write SEXTON_PORTS_FILE, if it is asked for."""
        if path := os.environ.get("SEXTON_PORTS_FILE"):
            try:
                write_ports_file(Path(path), self.ports())
            except OSError as error:
                self.events.tell("fault", message=f"SEXTON_PORTS_FILE: {error}")

    def ports_without_us(self, instance: Instance) -> list[tuple[str, str]]:
        """The names of its auto ports that it does not listen on, and who does: "other" or "nobody"."""
        pids, ports = instance.pids(), instance.ports
        auto = [name for name, wanted in instance.app.ports.items() if wanted == "auto" and name in ports]
        found = [(name, listener.who_listens(ports[name], pids)) for name in auto]
        # One that cannot be seen may be its own: a program with more rights than we have.
        return [(name, one.whose) for name, one in found if one.whose == "nobody" or (one.whose == "other" and one.pid)]

    def mind_fixed_ports(self) -> None:
        """No instance gets a port of itself that the configuration gives to another by its number."""
        wanted = [wanted for app in self.config.apps.values() for wanted in app.ports.values()]
        self.reserved.avoid(port for port in wanted if port != "auto")

    def of(self, app: str) -> list[Instance]:
        """The instances of an app."""
        return [one for one in self.instances.values() if one.app.name == app]

    def pids(self, instance: str) -> set[int]:
        """The living processes of an instance."""
        return self.instances[instance].pids()

    def ports(self) -> dict[str, dict[str, int]]:
        """The ports of each instance that has some, by name."""
        return {name: ports for name in self.instances if (ports := self.reserved.of(name))}


def is_too_many(one: Instance, apps: dict[str, App]) -> bool:
    """Nobody asks for it, where there are to be these apps."""
    return one.app.name not in apps or one.number >= apps[one.app.name].instances


def stuck(instances: Iterable[Instance]) -> str:
    """Those of them of which something survives SIGKILL, and who that is; "": there is none."""
    return "\n".join(f"{one.name} is stuck: {one.why}" for one in instances if one.shown == "stuck")


def _rises(one: Instance) -> bool:
    return one.state in RISING and not one.rests
