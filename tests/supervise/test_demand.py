"""Started by the first connection, stopped after the last: with real sockets, and connections that come and go."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sexton import _linux
from sexton.supervise import demand
from sexton.supervise.config import App
from sexton.supervise.sockets import Sockets
from tests.supervise.servers import free_port
from tests.supervise.test_sockets import (
    SERVER,
    app,
    connected,
    folder,
    hear,
    hear_port,
    line,
    sockets,
    start,
)
from tests.support.lines import DEADLINE

__all__ = ["folder", "sockets"]

IDLE = 0.3  # seconds


@pytest.fixture(params=["tcp", "unix"])
def web(request: pytest.FixtureRequest, sockets: Sockets, folder: Path) -> Iterator[App]:
    """An app that listens."""
    made = app(http=f"127.0.0.1:{free_port()}") if request.param == "tcp" else app(http=f"unix:{folder}/web")
    sockets.open(made)
    yield made
    sockets.close(made)


def talk(web: App) -> str:
    address = web.listen["http"]
    if address.startswith("unix:"):
        return hear(socket.AF_UNIX, address.removeprefix("unix:"))
    return hear_port(int(address.rpartition(":")[2]))


def run(scene: Callable[[], object]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(DEADLINE):
            await scene()  # type: ignore[misc] # a coroutine function

    asyncio.run(limited())


def test_the_first_connection_starts_it_and_is_answered(sockets: Sockets, web: App) -> None:
    async def scene() -> None:
        wanted = asyncio.create_task(demand.until_wanted(sockets, web))
        client = asyncio.create_task(asyncio.to_thread(talk, web))
        await wanted
        with start(sockets, web) as tree:
            assert await client == f"http {tree.pid}\n"

    run(scene)


def test_it_is_idle_when_nobody_comes(sockets: Sockets, web: App) -> None:
    async def scene() -> None:
        began = time.monotonic()
        await demand.until_idle(sockets, web, lambda: {os.getpid()}, IDLE)
        assert time.monotonic() - began >= IDLE

    run(scene)


def test_a_connection_that_stays_keeps_it(sockets: Sockets, web: App) -> None:
    async def scene() -> None:
        with start(sockets, web, sys.executable, "-S", "-c", SERVER, "holds") as tree:
            line(tree)
            with connected(web.listen["http"]) as held:
                assert held.recv(100)
                idle = asyncio.create_task(demand.until_idle(sockets, web, lambda: {tree.pid}, IDLE / 10))
                looked = asyncio.create_task(demand.until_idle(sockets, web, set, IDLE))
                await looked  # who has no connection is idle; the other one has looked at least once
                assert not idle.done()
                assert tree.stdin
                tree.stdin.write(b"x")
                tree.stdin.flush()
                assert held.recv(100) == b""
            await idle

    run(scene)


def test_connections_that_come_and_go_keep_it(sockets: Sockets, web: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is open when it is looked."""
    intervals = 0
    listen = _linux.closed_connections

    def come_and_go(ports: list[int]) -> socket.socket:
        nonlocal intervals
        intervals += 1
        heard = listen(ports)
        if intervals <= 3:
            talk(web)
        return heard

    monkeypatch.setattr(_linux, "closed_connections", come_and_go)

    async def scene() -> None:
        with start(sockets, web) as tree:
            line(tree)
            # A connection's end is told by a work queue of the kernel, which may be busy.
            await demand.until_idle(sockets, web, lambda: {tree.pid}, 0.1 if "unix" in web.listen["http"] else 2)
            assert intervals == 4

    run(scene)


def test_without_the_kernels_help_it_is_only_looked_at(
    sockets: Sockets, web: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(ports: list[int]) -> socket.socket:
        raise OSError(93, f"Protocol not supported: {ports}")

    monkeypatch.setattr(_linux, "closed_connections", none)

    async def scene() -> None:
        with start(sockets, web, sys.executable, "-S", "-c", SERVER, "holds") as tree:
            line(tree)
            with connected(web.listen["http"]) as held:
                assert held.recv(100)
                idle = asyncio.create_task(demand.until_idle(sockets, web, lambda: {tree.pid}, IDLE / 10))
                await demand.until_idle(sockets, web, set, IDLE)
                assert not idle.done()
                tree.stop()
            await idle

    run(scene)


def test_an_idle_wait_that_is_given_up_leaves_nothing(sockets: Sockets, web: App) -> None:
    async def scene() -> None:
        before = set(os.listdir("/proc/self/fd"))
        idle = asyncio.create_task(demand.until_idle(sockets, web, set, DEADLINE))
        await asyncio.sleep(0)
        idle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await idle
        assert set(os.listdir("/proc/self/fd")) == before

    run(scene)


def test_only_the_ports_that_are_asked_for_are_heard_of() -> None:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [server.getsockname()[1] for server in servers]
    with _linux.closed_connections(ports[:2]) as heard:
        for server in reversed(servers):
            with socket.create_connection(server.getsockname()), pytest.raises(BlockingIOError):
                heard.recv(1 << 16)
            accepted, _ = server.accept()
            accepted.close()
            if server is servers[2]:
                with pytest.raises(BlockingIOError):
                    heard.recv(1 << 16)
                continue
            heard.setblocking(True)
            heard.settimeout(DEADLINE)
            heard.recv(1 << 16)
            heard.setblocking(False)
        for server in servers:
            server.close()
        with pytest.raises(BlockingIOError):  # who listened is no connection
            heard.recv(1 << 16)
