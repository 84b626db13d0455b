"""Apps that are started by their first connection, and stopped when nobody has been connected for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from sexton import _linux

if TYPE_CHECKING:
    from collections.abc import Callable

    from sexton.supervise.config import App
    from sexton.supervise.sockets import Sockets


async def until_wanted(sockets: Sockets, app: App) -> None:
    """Until a connection waits on one of the app's sockets; it is left there for the app. Raises SextonError."""
    await sockets.wait_connection(app)


async def until_idle(sockets: Sockets, app: App, pids: Callable[[], set[int]], seconds: float) -> None:
    """Until an instance (`pids` gives its processes) has had no connection for so many seconds, or a tenth more.

    It is looked at when the time is over. Connections that came and went before that are heard of: the kernel tells
    when one of TCP ends (sock_diag), and writes down when a unix socket was last connected to (the time of access of
    its file). Where it does not, since it has no inet_diag or the file system is mounted with noatime, they are missed.
    """
    while True:
        paths = [name for name in sockets.names(app) if isinstance(name, str)]
        for path in paths:
            _forget_access(path)
        if await _ended([name for name in sockets.names(app) if isinstance(name, int)], seconds):
            # Not woken by each of many: the next one is heard of a little later.
            await asyncio.sleep(seconds / 10)
        elif not sockets.busy(pids(), app) and not any(map(_was_accessed, paths)):
            return


async def _ended(ports: list[int], seconds: float) -> bool:
    """Whether a connection to one of them ended within that time; as soon as one did."""
    loop = asyncio.get_running_loop()
    try:
        heard = _linux.closed_connections(ports)
    except OSError:
        await asyncio.sleep(seconds)
        return False
    ended = asyncio.Event()
    loop.add_reader(heard.fileno(), ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(heard.fileno())
        heard.close()
    return True


def _forget_access(path: str) -> None:
    with contextlib.suppress(OSError):  # it is removed, or another's now
        os.utime(path, ns=(0, os.stat(path).st_mtime_ns))


def _was_accessed(path: str) -> bool:
    try:
        return os.stat(path).st_atime_ns != 0
    except OSError:
        return False
