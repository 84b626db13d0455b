"""How an instance is stopped: a command first, the signal, the grace, SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from sexton.spawn._start import seconds
from sexton.supervise import starting

if TYPE_CHECKING:
    from sexton.supervise.instance import Instance
    from sexton.supervise.life import Life

HURRY = 15.0  # seconds after SIGKILL was ordered until a guard that does not answer is ended too


async def stop(instance: Instance, life: Life) -> None:
    """Goes on until it is cancelled: when the guard has gone."""
    how = instance.app.stop
    until = asyncio.get_running_loop().time() + how.grace
    if how.command:
        with contextlib.suppress(Exception):  # whatever it is, the stop goes on
            await starting.run_beside(instance, how.command, how.grace)
    left = max(until - asyncio.get_running_loop().time(), 0)
    if how.scope == "tree" or left <= 0 or not life.pid:
        life.order(f"stop {seconds('grace', left)}")
    else:
        life.order(f"signal {how.signal} {how.scope}")
        await asyncio.sleep(left)
        life.order("stop 0")
    await asyncio.sleep(left + HURRY)
    life.order("kill")
    await asyncio.sleep(HURRY)
    with contextlib.suppress(OSError):  # it does not listen: it is stopped, or traced; its tree is ended without it
        os.kill(life.tree.guard, signal.SIGKILL)
