"""One life of an instance's command: the guarded tree, what its guard says, how it ended."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from sexton import events
from sexton.errors import SextonError
from sexton.supervise import models, survivors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from sexton.spawn import Process, Tree


class Life:
    """From the start, or the adoption, of a tree until its guard has gone, and with it the tree.

    started   is called when the command runs
    written   is called with how it ended when that is known, and before the guard forgets the exit status
    over      is called when the guard has gone; who survived SIGKILL is in `left` then
    """

    def __init__(
        self,
        tree: Tree,
        loop: asyncio.AbstractEventLoop,
        *,
        started: Callable[[], None],
        written: Callable[[models.Exit], None],
        over: Callable[[], None],
    ) -> None:
        self.tree = tree
        self.exit: models.Exit | None = None
        self.failed = ""  # why the command was not started
        self.asked_at: float | None = None  # monotonic, when it was asked to end
        self._loop = loop
        self._started, self._written, self._over = started, written, over
        self._seen = 0
        self._exited: events.Exited | None = None
        self._why = ""
        self._left = 0
        self._killed = 0
        self._killed_at: float | None = None
        self._forgotten = False
        self._watched = contextlib.ExitStack()
        self._descriptor = self._watched.enter_context(tree.watched())
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._listen)
        loop.call_soon(self._listen)  # what it has said already

    @property
    def pid(self) -> int:
        """The command's; 0 before it runs and after it ended."""
        return 0 if self._exited or self.exit else self.tree.pid

    @property
    def guard(self) -> int:
        """The guard's pid; 0 when it has gone."""
        return 0 if self.tree.over else self.tree.guard

    @property
    def left(self) -> tuple[Process, ...]:
        """Who is alive though the guard has gone."""
        return self.tree.processes() if self.tree.over else ()

    @property
    def patience(self) -> float:
        """Seconds that those have yet to die of SIGKILL until it is said that they do not."""
        killed_at = self._loop.time() if self._killed_at is None else self._killed_at
        return max(killed_at + survivors.PATIENCE - self._loop.time(), 0)

    def order(self, words: str) -> None:
        """Send the guard a command; its answer is not waited for."""
        self.tree.order_unheard(words)

    def ask(self) -> None:
        """It is being asked to end from now on."""
        if self.asked_at is None:
            self.asked_at = self._loop.time()

    def leave(self) -> None:
        """Give it up: its guard does what it was told to do without an owner."""
        self._forget()
        self.tree.close()

    def processes(self) -> set[int]:
        """Every living process of the tree. To look at them takes in what the guard has said: that is acted on soon."""
        found = {process.pid for process in self.tree.processes()}
        if self.tree.over or self.tree.seen != self._seen:
            self._loop.call_soon(self._listen)
        return found

    def _forget(self) -> None:
        self._forgotten = True
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None
        self._watched.close()

    def _listen(self) -> None:
        if self._forgotten:
            return
        try:
            self.tree.listen()
        except SextonError as error:
            self.failed = str(error)
        new = self.tree.since(self._seen)
        self._seen = self.tree.seen
        for event in new:
            self._take(event)
        if self.tree.over:
            self._forget()
        if self.tree.held or (self.tree.over and (self._exited or not self.left)):
            self.end()
        if self.tree.over:
            self._over()

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._started()
            case events.Failed():
                self.failed = event.text
            case events.Exited():
                self._exited = event
            case events.Stopping():
                self._why, self._left = event.why, max(event.left, 0)
            case events.Killed():
                self._killed += 1
                self._killed_at = self._killed_at or self._loop.time()

    def end(self) -> None:
        """Nothing is left, or how the command ended is known. When it is written down, the guard may forget it."""
        if self.exit is not None:
            return
        self.exit = self._how()
        self._written(self.exit)
        self.tree.dismiss()

    def _how(self) -> models.Exit:
        seconds = 0.0 if self.asked_at is None else self._loop.time() - self.asked_at
        code, signal, why = None, None, self._why
        if self._exited:
            code, signal = self._exited.code, self._exited.signal
        elif not self.failed:
            signal, why = "KILL", "the guard was killed"
        return models.Exit(
            time=time.time(), code=code, signal=signal, why=why, left=self._left, killed=self._killed, seconds=seconds
        )


def said(how: models.Exit | None) -> str:
    """How a command ended, in words."""
    if how is None:
        return "its guard was lost"
    if how.signal:
        return f"ended by SIG{how.signal}" + (f" ({how.why})" if how.why else "")
    return f"ended with exit code {how.code}"


def joined(*texts: str) -> str:
    """What there is to say, as one message."""
    return "; ".join(filter(None, texts))
