"""Trees and run() for asyncio and trio, through anyio: the same as in sexton, with await.

    async with await sexton.aio.Tree.start(["server"]) as tree:
        ...
    done = await sexton.aio.run(["make"], timeout=60, capture_output=True)

Cancelling the scope around it stops the tree: the stop signal, the grace, SIGKILL, until nothing is left.

The loop waits for the guard to be executed, as asyncio waits for a command; not for the command behind it.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from subprocess import PIPE
from typing import IO, TYPE_CHECKING, Any, Self, Unpack

import anyio

from sexton.spawn import _processes, _start
from sexton.spawn._errors import CalledProcessError, CompletedProcess, TimeoutExpired
from sexton.spawn._exchange import CHUNK, decoded, encoded
from sexton.spawn._record import name_of
from sexton.spawn._tree import Tree as Blocking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from sexton import events
    from sexton.spawn._receipt import Receipt
    from sexton.spawn._tree import Scope


class Tree:
    """A command, and whatever comes of it, until nothing of it is left. Made by `await Tree.start(...)`.

    The methods are those of sexton.Tree, and have to be awaited; `receipt`, `processes()`, `pid`, `guard`, `contain`
    and `returncode` do not. One task at a time listens to the guard; any number may wait.

    stdin, stdout, stderr   descriptors of our ends of the pipes, or None; see send() and receive()
    """

    def __init__(self, tree: Blocking) -> None:
        self._tree = tree
        self._listening = False
        self._news = anyio.Event()
        self.args = tree.args
        self.guard = tree.guard
        self.contain = tree.contain
        self.stdin, self.stdout, self.stderr = (
            stream.fileno() if stream else None for stream in (tree.stdin, tree.stdout, tree.stderr)
        )
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.set_blocking(fd, False)

    @classmethod
    async def start(cls, args: _start.Command, **settings: Unpack[_start.TreeSettings]) -> Self:
        """Start a tree; keywords and errors as for sexton.Tree. Cancelled, it leaves nothing behind."""
        rungs = _start.split(settings)[0].rungs()
        for contain in rungs:
            tree = cls(Blocking.unawaited(args, settings, contain, late=False))
            try:
                await tree.wait_start()
            except _start.CannotContain:
                if contain == rungs[-1]:
                    raise
            else:
                break
        return tree

    async def wait_start(self) -> None:
        """Wait until the command runs, as start() has done. Raises what kept it from that."""
        try:
            await self._until(lambda: self._tree.begun)
            if not self._tree.pid:
                await self._until(lambda: False)
        except BaseException:
            await self.kill()
            raise
        self._tree.check_start()

    @property
    def pid(self) -> int:
        """The command's pid, as its guard sees it."""
        return self._tree.pid

    @property
    def returncode(self) -> int | None:
        """How the command ended, -N for signal N; None while it runs."""
        self._tree.listen()
        return self._tree.returncode

    @property
    def receipt(self) -> Receipt:
        """Which processes the guard had to do with, and how each ended, as far as it is known now."""
        return self._tree.receipt

    def processes(self) -> tuple[_processes.Process, ...]:
        """Every living process of the tree, parents first."""
        return self._tree.processes()

    async def _until(self, done: Callable[[], bool]) -> None:
        """Listen to the guard, or let another task, until done() or the end of the guard."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        while True:
            self._tree.listen()
            if self._tree.over or done():
                return
            if self._listening:
                await self._news.wait()
                continue
            self._listening = True
            try:
                with self._tree.watched() as guard:
                    if guard is not None:
                        await anyio.wait_readable(guard)
            finally:
                self._listening = False
                self._tree.listen()
                self._news.set()
                self._news = anyio.Event()

    async def wait(self) -> int:
        """Wait until nothing of the tree is left, and give the command's returncode. Raises LeftoversError."""
        await self._until(lambda: self._tree.held)
        return self._tree.wait()

    async def wait_command(self) -> int:
        """Wait until the command has ended, whatever else of the tree goes on."""
        await self._until(lambda: self._tree.ended)
        return self._tree.wait_command()

    async def _order(self, words: str) -> None:
        """Send a command to the guard, which answers at once; the answer is heard later, and raises nothing."""
        self._tree.order_unheard(words)
        await anyio.lowlevel.checkpoint()

    async def send_signal(self, sig: int | str, scope: Scope = "child") -> None:
        """Send a signal to the command, its process group or the tree; nothing happens when it has ended."""
        await self._order(f"signal {name_of(sig)} {scope}")

    async def renew(self, seconds: float | None = None) -> None:
        """Let the lease end so many seconds from now; None: as long as at the start."""
        await self._order("renew" if seconds is None else f"renew {_start.seconds('seconds', seconds)}")

    async def stop(self, grace: float | None = None) -> Receipt:
        """Stop the tree, until nothing is left; not to be cancelled. Raises LeftoversError."""
        words = "stop" if grace is None else f"stop {_start.seconds('grace', grace)}"
        with anyio.CancelScope(shield=True):
            await self._order(words)
            await self._see_off()
        return self.receipt

    async def kill(self) -> Receipt:
        """SIGKILL to the whole tree, until nothing is left."""
        with anyio.CancelScope(shield=True):
            await self._order("kill")
            await self._see_off()
        return self.receipt

    async def _see_off(self) -> None:
        await self.wait()
        if self._tree.held:
            await self.dismiss()
            await self._until(lambda: False)

    async def dismiss(self) -> None:
        """Let go the guard of a tree with on_owner_lost="hold" of which nothing is left, when that is written down."""
        await self._order("kill")

    async def events(self) -> AsyncIterator[events.Event]:
        """What the guard reports, from the start, as it comes; ends with the tree."""
        number = 0
        while True:
            await self._until(partial(self._heard, number))
            new, number = self._tree.since(number), self._tree.seen
            if not new:
                return
            for event in new:
                yield event

    def _heard(self, number: int) -> bool:
        return self._tree.seen > number or self._tree.held

    async def send(self, data: bytes) -> None:
        """Write to the command's stdin (PIPE). Raises BrokenPipeError."""
        assert self.stdin is not None, "stdin is no pipe"
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.stdin, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self.stdin)

    async def close_stdin(self) -> None:
        """Close it, so that the command reads the end of its input."""
        if self._tree.stdin:
            self.stdin = None
            self._tree.stdin.close()
        await anyio.lowlevel.checkpoint()

    async def receive(self, fd: int) -> bytes:
        """Some bytes of `stdout` or `stderr`; b"" at the end."""
        while True:
            try:
                return os.read(fd, CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(fd)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._tree.over:
                await self.stop()
        finally:
            self._tree.__exit__(None, None, None)


class _Exchange:
    """As spawn._exchange.Exchange: feeds and gathers until the tree is over, and not for longer."""

    def __init__(self, tree: Tree, streams: dict[int, IO[Any]]) -> None:
        self.tree = tree
        self.streams = streams
        self.found: dict[int, list[bytes]] = {fd: [] for fd in streams}
        self.open = set(streams)

    async def until_over(self, feed: bytes) -> None:
        if not self.streams and self.tree.stdin is None:
            await self.tree.wait()
            return
        async with anyio.create_task_group() as group:
            for fd in self.streams:
                group.start_soon(self._gather, fd)
            if self.tree.stdin is not None:
                group.start_soon(self._feed, feed)
            await self.tree.wait()
            group.cancel_scope.cancel()  # who holds a pipe now is a stranger
        self._drain()

    async def _gather(self, fd: int) -> None:
        while data := await self.tree.receive(fd):
            self.found[fd].append(data)
        self.open.discard(fd)

    async def _feed(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            await self.tree.send(data)
        await self.tree.close_stdin()

    def _drain(self) -> None:
        for fd in self.open:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(fd, CHUNK):
                    self.found[fd].append(data)

    def bytes(self, fd: int | None) -> bytes | None:
        return None if fd is None else b"".join(self.found[fd])


async def run(
    args: _start.Command,
    *,
    input: Any = None,  # noqa: A002 - subprocess' name of it
    capture_output: bool = False,
    timeout: float | None = None,  # noqa: ASYNC109 - subprocess' parameter, and the tree must be stopped, not left
    check: bool = False,
    **settings: Unpack[_start.Settings],
) -> CompletedProcess:
    """sexton.run(), awaited: the same parameters, results and exceptions. Cancelled, it stops the tree first."""
    if input is not None:
        settings["stdin"] = PIPE
    if capture_output:
        settings["stdout"] = settings["stderr"] = PIPE
    if settings.get("require") not in {None, settings.get("contain", "subreaper")}:
        started = await Tree.start(args, **settings)
    else:
        started = Tree(Blocking.unawaited(args, settings, late=True))
    async with started as tree:
        inner = tree._tree  # noqa: SLF001 - its own blocking half
        pipes = {
            fd: stream for fd, stream in ((tree.stdout, inner.stdout), (tree.stderr, inner.stderr)) if fd and stream
        }
        out, err = tree.stdout, tree.stderr
        exchange = _Exchange(tree, pipes)
        feed = bytes(encoded(input, inner.stdin))
        expired: TimeoutExpired | None = None
        with anyio.move_on_after(timeout) as scope:
            await exchange.until_over(feed)
        if scope.cancelled_caught and timeout is not None:
            names = {fd: name for fd, name in ((out, "stdout"), (err, "stderr")) if fd in exchange.open}
            members = [process.pid for process in tree.processes()]
            holders = _processes.holders({name: fd for fd, name in names.items() if fd}, members)
            ended = inner.ending
            await _stop_and_read(tree, exchange)
            if not ended:
                said = exchange.bytes(out), exchange.bytes(err)
                expired = TimeoutExpired(args, timeout, *said, holders=holders, receipt=tree.receipt)
        if expired:
            raise expired
        inner.check_start()
        code = await tree.wait()
        text = decoded(exchange.bytes(out), inner.stdout), decoded(exchange.bytes(err), inner.stderr)
    if check and code:
        raise CalledProcessError(code, args, *text, receipt=tree.receipt)
    return CompletedProcess(args, code, *text, receipt=tree.receipt)


async def _stop_and_read(tree: Tree, exchange: _Exchange) -> None:
    """A tree that is stopped may have last words, more than a pipe holds."""
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            group.start_soon(exchange.until_over, b"")
            await tree.stop()
