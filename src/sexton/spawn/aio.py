"""Trees and run() for asyncio and trio, through anyio: the same as in sexton, with await.

    async with await sexton.aio.Tree.start(["server"]) as tree:
        ...
    done = await sexton.aio.run(["make"], timeout=60, capture_output=True)

Cancelling the scope around it stops the tree: the stop signal, the grace, SIGKILL, until nothing is left.

A time limit for a method is the loop's: `with anyio.fail_after(5): await tree.wait()` raises TimeoutError, and the tree
goes on until its `async with` is left.

The loop waits for the guard to be executed, as asyncio waits for a command; not for the command behind it.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import anyio

from sexton.errors import ContainmentError, LeftoversError, UsageError
from sexton.events import Status
from sexton.spawn import _processes, _start
from sexton.spawn._channel import PATIENCE
from sexton.spawn._errors import CalledProcessError, CompletedProcess, TimeoutExpired
from sexton.spawn._exchange import CHUNK, decoded, encoded, rest_of
from sexton.spawn._record import name_of
from sexton.spawn._run import arranged, mind_output, wants_ladder
from sexton.spawn._tree import Tree as Blocking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from sexton import events
    from sexton.spawn._receipt import Receipt
    from sexton.spawn._tree import Scope

Found = TypeVar("Found")


class Tree:
    """A command, and whatever comes of it, until nothing of it is left. Made by `await Tree.start(...)`.

    The methods are those of sexton.Tree, without their `timeout`, and have to be awaited; `receipt`, `processes()`,
    `poll()`, `close()`, `pid`, `guard`, `contain` and `returncode` do not. One task at a time listens to the guard; any
    number may wait. What was started elsewhere is adopted by sexton.Tree alone.

    stdin, stdout, stderr   descriptors of our ends of the pipes, or None; see send() and receive()
    """

    def __init__(self, tree: Blocking) -> None:
        self._tree = tree
        self._listening: anyio.CancelScope | None = None  # of the task that does
        self._news = anyio.Event()
        self._given_up = False
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
        """Start a tree; keywords and errors as for sexton.Tree. Cancelled, it leaves nothing behind.

        Its streams are of bytes: `text`, `encoding`, `errors` and `universal_newlines` are for run().
        """
        for name in ("text", "encoding", "errors", "universal_newlines"):
            if settings.get(name):
                raise UsageError(f"{name}={settings[name]!r}: the streams of an aio.Tree are of bytes; decode them")
        return await _started(cls, args, settings)

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
        self._hearing(Blocking.listen)
        return self._tree.returncode

    def poll(self) -> int | None:
        """The command's returncode if nothing of the tree is left; None otherwise. Raises LeftoversError."""
        return self._hearing(Blocking.poll)

    @property
    def receipt(self) -> Receipt:
        """Which processes the guard had to do with, and how each ended, as far as it is known now."""
        return self._hearing(lambda tree: tree.receipt)

    def processes(self) -> tuple[_processes.Process, ...]:
        """Every living process of the tree, parents first."""
        return self._hearing(Blocking.processes)

    def _hearing(self, look: Callable[[Blocking], Found]) -> Found:
        """What the blocking half finds. It listens to the guard, and the task that waits for words may get none."""
        seen, over = self._tree.seen, self._tree.over
        found = look(self._tree)
        if self._listening and (self._tree.seen, self._tree.over) != (seen, over):
            self._listening.cancel()
        return found

    async def _until(self, done: Callable[[], bool], patience: float | None = None) -> None:
        """Listen to the guard, or let another task, until done() or the end of the guard.

        patience: seconds after which its word is due: somebody may have stopped it (SIGSTOP)
        """
        over = False
        while not over:
            with anyio.move_on_after(patience):
                await self._listen(done)
                over = True
            if not over:
                self._tree.wake_guard()

    async def _listen(self, done: Callable[[], bool]) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._given_up and not self._listening:
                self._tree.close()
            self._hearing(Blocking.listen)
            if self._tree.over or done():
                return
            if self._listening:
                await self._news.wait()
                continue
            try:
                with self._tree.watched() as guard, anyio.CancelScope() as self._listening:
                    if guard is not None:
                        await anyio.wait_readable(guard)
            finally:
                self._listening = None
                self._news.set()
                self._news = anyio.Event()

    async def wait(self) -> int:
        """Wait until nothing of the tree is left, and give the command's returncode. Raises LeftoversError."""
        await self.until_over()
        return self._tree.wait()

    async def until_over(self, patience: float | None = None) -> None:
        """Wait as wait() does, and say nothing of how it ended. `patience`: seconds after which the guard is due."""
        await self._until(lambda: self._tree.held, patience)

    async def wait_command(self) -> int:
        """Wait until the command has ended, whatever else of the tree goes on."""
        await self._until(lambda: self._tree.ended)
        return self._tree.wait_command()

    async def _say(self, words: str) -> events.Event | None:
        """Send a command to the guard, which answers at once; its answer, or None when it had gone."""
        record = self._tree._record  # noqa: SLF001 - its own blocking half
        number = self._tree.send_order(words)
        if number is None:
            await anyio.lowlevel.checkpoint()
            return None
        try:
            await anyio.lowlevel.checkpoint()  # the answer may be there at once, and others are to have their turn
            await self._until(lambda: number in record.answers, PATIENCE)
        finally:
            answer = record.answers.pop(number, None)
            if answer is None:
                record.ignored.add(number)
        return answer

    async def _order(self, words: str) -> None:
        """Send a command that is to be carried out. Raises SextonError where it is refused."""
        self._tree.check_answer(words, await self._say(words))

    async def send_signal(self, sig: int | str, scope: Scope = "child") -> None:
        """Send a signal to the command, its process group or the tree; nothing happens when it has ended.

        Raises ValueError, SextonError.
        """
        await self._order(f"signal {name_of(sig)} {scope}")

    async def terminate(self) -> None:
        """SIGTERM to the command, and to it alone: stop() is what ends the tree."""
        await self.send_signal("TERM")

    async def renew(self, seconds: float | None = None) -> None:
        """Let the lease end so many seconds from now; None: as long as at the start. Raises SextonError."""
        await self._order("renew" if seconds is None else f"renew {_start.seconds('seconds', seconds)}")

    async def status(self) -> Status | None:
        """What the guard says of itself; None when it has ended."""
        answer = await self._say("status")
        return answer if isinstance(answer, Status) else None

    async def ask_to_stop(self, grace: float | None = None) -> None:
        """What stop() does, without waiting for the end."""
        await self._order("stop" if grace is None else f"stop {_start.seconds('grace', grace)}")

    async def stop(self, grace: float | None = None) -> Receipt:
        """Stop the tree, until nothing is left; not to be cancelled. Raises LeftoversError."""
        with anyio.CancelScope(shield=True):
            await self.ask_to_stop(grace)
            await self._see_off(self._tree.grace if grace is None else grace)
        return self.receipt

    async def kill(self) -> Receipt:
        """SIGKILL to the whole tree, until nothing is left; not to be cancelled. Raises LeftoversError."""
        with anyio.CancelScope(shield=True):
            await self._order("kill")
            await self._see_off(0)
        return self.receipt

    async def _see_off(self, grace: float) -> None:
        await self.until_over(grace + PATIENCE)
        await self.wait()
        if self._tree.held:
            await self.dismiss()
            await self._until(lambda: False)

    async def dismiss(self) -> None:
        """Let go the guard of a tree with on_owner_lost="hold" of which nothing is left, when that is written down."""
        self._tree.order_unheard("kill")
        await anyio.lowlevel.checkpoint()

    def close(self) -> None:
        """Give the tree up: what on_owner_lost says happens to it, and nobody waits for that."""
        self._given_up = True
        if self._listening:
            self._listening.cancel()  # that task closes what it listens to
        else:
            self._tree.close()

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
        """Write to the command's stdin (PIPE). Raises BrokenPipeError, UsageError."""
        if self.stdin is None:
            why = "was closed" if self._tree.stdin else "is no pipe; start the tree with stdin=PIPE"
            raise UsageError(f"stdin of {self.args!r} {why}")
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

    async def receive(self, fd: int | None) -> bytes:
        """Some bytes of `stdout` or `stderr`; b"" at the end. Raises UsageError where that is None, no pipe."""
        if fd is None:
            none = " and ".join(name for name in ("stdout", "stderr") if getattr(self, name) is None)
            raise UsageError(f"no open pipe: {none} of {self.args!r}; start the tree with stdout=PIPE or stderr=PIPE")
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
        if self._given_up:
            return
        try:
            if not self._tree.over:
                await self.stop()
        finally:
            self._tree.__exit__(None, None, None)
            self.stdin = self.stdout = self.stderr = None  # closed: their numbers may be others' from now on

    def __repr__(self) -> str:
        return repr(self._tree)


Made = TypeVar("Made", bound=Tree)


async def _started(kind: type[Made], args: _start.Command, settings: _start.Settings | _start.TreeSettings) -> Made:
    """A tree whose command runs, in the first containment of the ladder that can be had."""
    rungs = _start.split(settings)[0].rungs()
    for contain in rungs:
        tree = kind(Blocking.unawaited(args, settings, contain, late=False))
        try:
            await tree.wait_start()
        except ContainmentError:
            if contain == rungs[-1]:
                raise
        else:
            break
    return tree


class _Exchange:
    """As spawn._exchange.Exchange: feeds and gathers until the tree is over, and not for longer."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.found: dict[int, list[bytes]] = {fd: [] for fd in (tree.stdout, tree.stderr) if fd is not None}
        self.open = set(self.found)

    async def until_over(self, feed: bytes, patience: float | None = None) -> None:
        if not self.found and self.tree.stdin is None:
            await self.tree.until_over(patience)
            return
        async with anyio.create_task_group() as group:
            for fd in self.found:
                group.start_soon(self._gather, fd)
            if self.tree.stdin is not None:
                group.start_soon(self._feed, feed)
            await self.tree.until_over(patience)
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
            self.found[fd].append(rest_of(fd))

    def pipes(self) -> dict[str, int]:
        names = {"stdout": self.tree.stdout, "stderr": self.tree.stderr}
        return {name: fd for name, fd in names.items() if fd is not None and fd in self.open}

    def bytes(self) -> tuple[bytes | None, bytes | None]:
        out, err = (None if fd is None else b"".join(self.found[fd]) for fd in (self.tree.stdout, self.tree.stderr))
        return out, err


async def run(
    args: _start.Command,
    *more: Any,
    input: Any = None,  # noqa: A002 - subprocess' name of it
    capture_output: bool = False,
    timeout: float | None = None,  # noqa: ASYNC109 - subprocess' parameter, and the tree must be stopped, not left
    check: bool = False,
    **settings: Unpack[_start.Settings],
) -> CompletedProcess:
    """sexton.run(), awaited: the same parameters, results and exceptions. Cancelled, it stops the tree first."""
    settings, _ = arranged(more, settings, input, capture_output=capture_output)
    if wants_ladder(settings):
        started = await _started(Tree, args, settings)
    else:
        started = Tree(Blocking.unawaited(args, settings, late=True))
    async with started as tree:
        inner = tree._tree  # noqa: SLF001 - its own blocking half
        exchange = _Exchange(tree)
        feed = bytes(encoded(input, inner.stdin))
        expired: TimeoutExpired | None = None
        with anyio.move_on_after(timeout) as scope:
            await exchange.until_over(feed)
        if scope.cancelled_caught and timeout is not None:
            expired = await _expired(tree, exchange, timeout)
        inner.check_start()
        try:
            code = await tree.wait()
        except LeftoversError as error:
            raise error from expired
        if expired:
            raise expired
        out, err = exchange.bytes()
        text = decoded(out, inner.stdout), decoded(err, inner.stderr)
    if check and code:
        raise CalledProcessError(code, tree.args, *text, receipt=tree.receipt)
    return CompletedProcess(tree.args, code, *text, receipt=tree.receipt)


async def _expired(tree: Tree, exchange: _Exchange, timeout: float) -> TimeoutExpired | None:  # noqa: ASYNC109 - the one that is over
    """End the tree whose time is over, and say who held the pipes then; None if its command had ended."""
    inner = tree._tree  # noqa: SLF001 - its own blocking half
    holders: tuple[_processes.Holder, ...] = ()
    with contextlib.suppress(OSError):  # without /proc nobody can be named
        inner.wake_guard()
        holders = _processes.holders(exchange.pipes(), [process.pid for process in tree.processes()])
    ended = inner.ending
    with anyio.CancelScope(shield=True):
        await tree.ask_to_stop()
        await exchange.until_over(b"", inner.grace + PATIENCE)  # last words may be more than a pipe holds
    if ended:
        return None
    return TimeoutExpired(tree.args, timeout, *exchange.bytes(), holders=holders, receipt=tree.receipt)


async def check_call(
    args: _start.Command,
    *more: Any,
    timeout: float | None = None,  # noqa: ASYNC109 - as run()
    **settings: Unpack[_start.Settings],
) -> int:
    """Run a command, and raise CalledProcessError if its exit code is not 0; gives 0. Parameters as for run()."""
    return (await run(args, *more, timeout=timeout, check=True, **settings)).returncode


async def check_output(
    args: _start.Command,
    *more: Any,
    timeout: float | None = None,  # noqa: ASYNC109 - as run()
    **settings: Any,
) -> Any:
    """Run a command and give its stdout; raise CalledProcessError if its exit code is not 0.

    Parameters as for run().
    """
    mind_output(settings)
    return (await run(args, *more, stdout=PIPE, timeout=timeout, check=True, **settings)).stdout
