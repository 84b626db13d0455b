"""The process of `sexton up`: one supervisor and its control API, from the lock of the state directory to the end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.errors import Occupied, SextonError
from sexton.supervise.where import LOCK, SOCKET, make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sexton.supervise.api import Api
    from sexton.supervise.config import Config
    from sexton.supervise.supervisor import Supervisor


@contextlib.contextmanager
def lock(state: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the state directory: there is one supervisor of it at a time. The kernel lets it go when we die.

    shared: only see to it that there is none; others may do so too.

    Raises Occupied, and SextonError where the directory cannot be written.
    """
    make(state)
    fd = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "another one"
            remedy = "`sexton reload` applies the file, `sexton down` ends it"
            raise Occupied(f"a supervisor runs already: process {holder} holds {state}; {remedy}") from None
        if not shared:
            _sign(fd)
        yield
    finally:
        os.close(fd)


def _sign(fd: int) -> None:
    """Say who holds it. In the room that is there: on a full disk what was given back may be gone."""
    name = f"{os.getpid()}\n".encode()
    try:
        os.pwrite(fd, name, 0)
        os.ftruncate(fd, len(name))
    except OSError:
        os.ftruncate(fd, 0)


async def run(
    config: Config,
    load: Callable[[], Config],
    *,
    watch: Callable[[Supervisor], None],
    up: Callable[[Supervisor], None],
    hung_up: Callable[[], bool] = lambda: False,
) -> int:
    """Look after what `config` names until it is over; the exit code.

    load     gives the configuration anew, for a reload
    watch    is called once with the supervisor, before anything is started
    up       is called once, when all that is started by itself is up or has failed
    hung_up  says of a SIGHUP that it means the end of the terminal, and so down, not a reload

    SIGTERM and SIGINT end it, a second SIGINT leaves no more time, SIGHUP reloads. Raises SextonError and OSError.
    """
    state = Path(config.state)
    with lock(state):
        from sexton.supervise.api import Api
        from sexton.supervise.supervisor import Supervisor

        supervisor = Supervisor(config, load)
        api = Api(supervisor)
        await api.listen(state / SOCKET, config.api)
        try:
            watch(supervisor)
            with _signals(supervisor, api, hung_up):
                await _begin(supervisor)
                if not supervisor.stopping:
                    up(supervisor)
                return await supervisor.wait()
        finally:
            await api.close()


async def _begin(supervisor: Supervisor) -> None:
    """Until all is up, or until the end if that comes first. What cannot begin is ended, as far as it came."""
    begin = asyncio.ensure_future(supervisor.begin())
    over = asyncio.ensure_future(supervisor.wait())
    try:
        await asyncio.wait({begin, over}, return_when=asyncio.FIRST_COMPLETED)
        if begin.done():
            begin.result()
    except BaseException:
        if not supervisor.stopping:
            supervisor.down()
        await supervisor.wait()
        raise
    finally:
        for task in (begin, over):
            task.cancel()
        await asyncio.gather(begin, over, return_exceptions=True)


@contextlib.contextmanager
def _signals(supervisor: Supervisor, api: Api, hung_up: Callable[[], bool]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            await api.reload()
        except SextonError as error:
            supervisor.events.tell("reload", message=f"nothing was changed: {error}")

    def hangup() -> None:
        if hung_up():
            terminate()
            return
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    def terminate() -> None:
        if not supervisor.stopping:
            supervisor.down()

    handlers = {signal.SIGTERM: terminate, signal.SIGINT: supervisor.down, signal.SIGHUP: hangup}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        # To the very end: a signal that comes late does not cut it off.
        for number in handlers:
            loop.add_signal_handler(number, lambda: None)
