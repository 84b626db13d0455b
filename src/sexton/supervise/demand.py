"""Apps that are started by their first connection, and stopped when nobody has been connected for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sexton.supervise.config import App
    from sexton.supervise.sockets import Sockets


async def until_wanted(sockets: Sockets, app: App) -> None:
    """Until a connection waits on one of the app's sockets; it is left there for the app. Raises SextonError."""
    await sockets.wait_connection(app)


async def until_idle(sockets: Sockets, app: App, pids: Callable[[], set[int]], seconds: float) -> None:
    """Until an instance (`pids` gives its processes) has had no connection for so many seconds.

    It is looked at once in that time.
    """
    while True:
        await asyncio.sleep(seconds)
        if not sockets.busy(pids(), app):
            return
