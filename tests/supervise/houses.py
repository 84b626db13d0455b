"""A supervisor in this process, for tests: built from structs, ended with the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from sexton.supervise import models
from sexton.supervise.config import App, Config, Restart, Stop
from sexton.supervise.supervisor import Supervisor
from tests.support.lines import DEADLINE

SOON = Restart(backoff=0.01, factor=1, jitter=0)


def app(name: str, script: str, **settings: Any) -> App:
    """An app that is a shell script; its stops are quick."""
    return App(name=name, command=("sh", "-c", script), **{"restart": SOON, "stop": Stop(grace=5), **settings})


def config(state: Path, *apps: App, **settings: Any) -> Config:
    return Config(
        path=str(state / "sexton.toml"),
        directory=str(state),
        name="test",
        state=str(state),
        apps={app.name: app for app in apps},
        **settings,
    )


@contextlib.asynccontextmanager
async def house(state: Path, *apps: App, begin: bool = True, **settings: Any) -> AsyncIterator[Supervisor]:
    """A supervisor that has begun; taken down at the end."""
    first = config(state, *apps, **settings)
    supervisor = Supervisor(first, lambda: first)
    try:
        if begin:
            await supervisor.begin()
        yield supervisor
    finally:
        supervisor.down()
        await supervisor.wait()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(DEADLINE):
            await scenario

    asyncio.run(within())


async def event(supervisor: Supervisor, fits: Callable[[models.Event], bool]) -> models.Event:
    """The first event that fits, from the beginning; waits for it."""
    async for each in supervisor.events.follow(0):
        if fits(each):
            return each
    raise AssertionError


async def until_line(supervisor: Supervisor, instance: str, text: str) -> None:
    """Wait until an instance has written this line."""
    queue: asyncio.Queue[models.Line] = asyncio.Queue()
    end = supervisor.capture.listen(queue.put_nowait, instance)
    found = {line.text for line in supervisor.capture.tail([instance], 1000)}
    while text not in found:
        found.add((await queue.get()).text)
    end()


async def until_state(supervisor: Supervisor, name: str, *states: str) -> models.Instance:
    """Wait until an instance is in one of these states."""
    await supervisor.until(lambda: supervisor.instances[name].model().state in states)
    return supervisor.instances[name].model()


def states(supervisor: Supervisor) -> dict[str, str]:
    return {name: one.model().state for name, one in supervisor.instances.items()}


def changes(supervisor: Supervisor) -> list[tuple[str, str | None]]:
    """(instance, state) of every change so far."""
    return [(each.instance, each.state) for each in supervisor.events.since(0) if each.kind == "state"]
