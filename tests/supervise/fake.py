"""A supervisor that runs nothing: for the control API and its client."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sexton.errors import SextonError, UsageError
from sexton.supervise import config, models
from sexton.supervise.api import Api
from sexton.supervise.happenings import Events
from tests.support.lines import DEADLINE

if TYPE_CHECKING:
    from sexton.supervise.supervisor import Supervisor

STARTED = 1_700_000_000.0


class FakeCapture:
    """Lines that a test wrote."""

    def __init__(self) -> None:
        self.lines: list[models.Line] = []
        self.lost: dict[str, int] = {}
        self.listeners: list[Callable[[models.Line], None]] = []

    def write(self, instance: str, text: str, at: float) -> None:
        line = models.Line(time=at, app=instance.partition(".")[0], instance=instance, stream="out", text=text)
        self.lines.append(line)
        for listener in list(self.listeners):
            listener(line)

    def tail(self, instances: Sequence[str], n: int) -> list[models.Line]:
        return [line for line in self.lines if line.instance in instances][-n:]

    def listen(self, callback: Callable[[models.Line], None], instance: str | None = None) -> Callable[[], None]:
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)


class FakeSupervisor:
    """Says what it was asked; its instances are what `states` says."""

    def __init__(self, states: dict[str, models.State]) -> None:
        self.states = states
        self.since = STARTED
        self.epoch = 3
        self.stopping = False
        self.broken = False
        self.events = Events()
        self.capture = FakeCapture()
        self.asked: list[tuple[Any, ...]] = []
        self.hold: asyncio.Event | None = None  # a command waits for it
        apps = {name.partition(".")[0] for name in states}
        self.config = config.Config(
            path="/x/sexton.toml", directory="/x", name="x", state="/x/state",
            apps={name: config.App(name=name, command=("true",)) for name in sorted(apps)},
        )  # fmt: skip

    def find(self, targets: Sequence[str]) -> list[models.Instance]:
        found = []
        for target in targets:
            names = [name for name in self.states if target in {"all", name, name.partition(".")[0]}]
            if not names:
                raise UsageError(f"{target!r}: expected an app")
            found += [self._instance(name) for name in names]
        return found

    def _instance(self, name: str) -> models.Instance:
        app, _, number = name.partition(".")
        return models.Instance(
            name=name, app=app, number=int(number), state=self.states[name], since=STARTED, pid=os.getpid(),
            guard=os.getpid(), ports={"http": 40000}, last_exit=models.Exit(time=STARTED, signal="KILL"),
        )  # fmt: skip

    def status(self) -> models.Status:
        return models.Status(
            name="x", version="0", pid=os.getpid(), epoch=3, since=STARTED, config="/x/sexton.toml",
            apps=tuple(
                models.App(name=app.name, command=app.command, instances=tuple(self.find([app.name])))
                for app in self.config.apps.values()
            ),
        )  # fmt: skip

    def ports(self) -> dict[str, dict[str, int]]:
        return {name: {"http": 40000} for name in self.states}

    def pids(self, instance: str) -> set[int]:
        return {os.getpid()}

    async def _do(self, *asked: Any) -> models.Done:
        found = self.find(asked[1])
        self.asked.append(asked)
        if self.hold:
            await self.hold.wait()
        return models.Done(instances=tuple(one.name for one in found), message="done")

    async def start(self, targets: Sequence[str]) -> models.Done:
        return await self._do("start", targets)

    async def stop(self, targets: Sequence[str]) -> models.Done:
        return await self._do("stop", targets)

    async def restart(self, targets: Sequence[str]) -> models.Done:
        return await self._do("restart", targets)

    async def signal(self, targets: Sequence[str], signal: str, scope: str) -> models.Done:
        return await self._do("signal", targets, signal, scope)

    async def scale(self, app: str, instances: int) -> models.Done:
        return await self._do("scale", [app], instances)

    async def reload(self, follow: Callable[[config.Api | None], Awaitable[bool]]) -> models.Changes:
        if self.stopping:
            raise SextonError("it is stopping")
        if self.broken:
            raise ZeroDivisionError("a mistake of ours")
        settings = ("api",) if await follow(self.config.api) else ()
        return models.Changes(added=("new",), settings=settings)

    def down(self, *, leave: bool = False, code: int = 0) -> None:
        self.asked.append(("down", leave))
        self.stopping = True


class Serving:
    """An API that is served in a thread of its own; `do` runs something there."""

    def __init__(self, fake: FakeSupervisor, path: Path) -> None:
        self.fake = fake
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.api: Api | None = None

    def do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        async def run() -> Any:
            return call(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE)

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def until(self, condition: Callable[[], bool]) -> None:
        async def look() -> None:
            end = time.monotonic() + DEADLINE
            while not condition():
                assert time.monotonic() < end
                await asyncio.sleep(0.001)

        self.wait(look())


@contextmanager
def serving(
    path: Path, states: dict[str, models.State] | None = None, tcp: config.Api | None = None
) -> Generator[Serving]:
    """A fake supervisor behind the real API, on a real socket."""
    given: dict[str, models.State] = {"web.0": "ready", "web.1": "backoff", "db.0": "ready"}
    served = Serving(FakeSupervisor(given if states is None else states), path)
    thread = threading.Thread(target=served.loop.run_forever)
    thread.start()
    try:
        api = served.do(Api, cast("Supervisor", served.fake))
        served.api = api
        served.wait(api.listen(path, tcp))
        yield served
        served.wait(api.close())
    finally:
        served.loop.call_soon_threadsafe(served.loop.stop)
        thread.join(DEADLINE)
        served.loop.close()
