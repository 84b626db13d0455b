"""The socket between an owner and a guard: what the guard says, and the orders that it is given."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from sexton import events
from sexton.errors import NotOwner, SextonError
from sexton.spawn import _ends
from sexton.spawn._record import Record
from sexton.spawn._start import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 1.0  # seconds without a word that is due; then it is looked at whether the guard is stopped (SIGSTOP)


class Channel(_ends.Forkable):
    """Usable from every thread, and from a signal handler above a frame that waits here."""

    args: Any
    guard: int

    def _open(self, end: socket.socket) -> None:
        self._not_ours = ""  # why, when it is not
        self._end = end
        self._record = Record()
        self._numbers = itertools.count()  # of the orders
        self._watchers = 0
        self._new_locks()
        self.mind_forks()

    def _new_locks(self) -> None:
        """Those that a signal handler may take above the frame that it interrupted: that must not be waited for."""
        self._lock = threading.RLock()
        self._turn = threading.Condition(self._lock)
        self._speaking = threading.RLock()
        self._reader = 0  # the thread that reads
        self._waiting: set[int] = set()  # the threads that read, or wait for who reads

    def forked(self) -> None:
        """We are a forked child: the guard is our parent's."""
        self._not_ours = "belongs to the process that forked this one"
        self._new_locks()

    def _check_owner(self) -> None:
        if self._not_ours:
            raise NotOwner(f"the tree of {self.args!r} (guard {self.guard}) {self._not_ours}")

    # --- what it says ---

    def _await(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Read what the guard says until done() or for so many seconds. Whether it is done.

        Of all threads that wait one reads, and tells the others; when it leaves, another takes its turn. A signal
        handler above a frame that waits here cannot: it is told what is known.
        """
        if self._interrupted:
            return done()
        me = threading.get_ident()
        try:  # a signal handler may raise anywhere
            self._waiting.add(me)
            return self._read_until(done, timeout)
        finally:
            self._waiting.discard(me)
            if self._reader == me:
                self._leave()

    def _await_guard(self, done: Callable[[], bool], seconds: float = 0.0) -> None:
        """What the guard does by itself, after so many seconds at most: if it does not, it may be stopped."""
        while not self._await(done, seconds + PATIENCE):
            self.wake_guard()

    @property
    def _interrupted(self) -> bool:
        """We are in a signal handler, above a frame of this thread that waits."""
        return threading.get_ident() in self._waiting

    def _read_until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                self._check_owner()
                if done():
                    return True
                left = None if until is None else until - time.monotonic()
                if self._record.closed or (left is not None and left <= 0 and timeout):
                    return False
                if self._reader:
                    if timeout == 0 or not self._turn.wait(left):
                        return done()
                    continue
                self._reader = threading.get_ident()
            data = self._receive(left, wait=timeout != 0)
            with self._lock:
                self._leave()
                if data is not None:
                    self._take(data)
                elif timeout == 0:
                    return done()

    def _leave(self) -> None:
        """Let another thread read."""
        with self._lock:
            self._reader = 0
            self._turn.notify_all()

    def _receive(self, seconds: float | None, *, wait: bool) -> bytes | None:
        """What the guard said; None when it said nothing for so long, b"" when it has gone."""
        if wait and seconds is not None:
            poll = select.poll()
            poll.register(self._end, select.POLLIN)
            if not poll.poll(milliseconds(seconds)):
                return None
        try:
            return self._end.recv(1 << 16, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _take(self, data: bytes) -> None:
        """Under the lock: another piece of what the guard said."""
        self._record.feed(data)

    @contextlib.contextmanager
    def watched(self) -> Iterator[int | None]:
        """The descriptor that is readable when listen() has something to do; None when the guard has gone."""
        with self._lock:
            closed = self._record.closed
            self._watchers += not closed
        try:
            yield None if closed else self._end.fileno()
        finally:
            with self._lock:
                self._watchers -= not closed
                if self._record.closed and not self._watchers:
                    _ends.close(self._end)

    def listen(self) -> None:
        """Take what the guard has said by now; waits for nothing."""
        self._await(lambda: self._record.closed, 0)

    @property
    def begun(self) -> bool:
        """The command runs, or ran, or never will, as far as we have listened."""
        return bool(self._record.pid or self._record.failed or self._record.closed)

    @property
    def over(self) -> bool:
        """The guard has gone, as far as we have listened."""
        return self._record.closed

    @property
    def held(self) -> bool:
        """Nothing of it is left, and its guard keeps how it ended until dismiss(), as far as we have listened."""
        return self._record.held

    @property
    def _gone(self) -> bool:
        return self._record.closed or self._record.held

    @property
    def ended(self) -> bool:
        """The command has ended, as far as we have listened."""
        return self._record.closed or self._record.ended

    @property
    def seen(self) -> int:
        """How many events there were, as far as we have listened."""
        return self._record.seen

    def since(self, number: int) -> list[events.Event]:
        """The events from that number on."""
        return self._record.since(number)

    # --- what it is told ---

    def wake_guard(self) -> None:
        """Let the guard go on if somebody has stopped it (SIGSTOP): it obeys nothing until then."""

    def _say(self, words: str) -> events.Event | None:
        """Send a command; its answer, or None when the guard had gone, or cannot be heard from a signal handler."""
        number = self.send_order(words, heard=not self._interrupted)
        if number is None or self._interrupted:
            return None
        self._await_guard(lambda: number in self._record.answers or self._record.closed)
        return self._record.answers.pop(number, None)

    def order_unheard(self, words: str) -> None:
        """Send a command; its answer is of no interest. Waits for nothing."""
        self.send_order(words, heard=False)

    def send_order(self, words: str, *, heard: bool = True) -> int | None:
        """Send a command; gives the number that its answer will have, None when the guard had gone."""
        self._check_owner()
        with self._speaking, contextlib.suppress(OSError):
            if not self._record.closed:
                number = next(self._numbers)
                if not heard:
                    self._record.ignored.add(number)
                self._end.sendall(words.encode() + b"\n")
                return number
        return None

    def _order(self, words: str) -> bool:
        """Send a command that is to be carried out; False when the tree had ended. Raises SextonError where refused."""
        answer = self._say(words)
        self.check_answer(words, answer)
        return isinstance(answer, events.Done)

    def check_answer(self, words: str, answer: events.Event | None) -> None:
        """Raises SextonError where the guard refused a command though there was something to do it to."""
        if isinstance(answer, events.Refused) and not self._record.ended:
            raise SextonError(f"the guard {self.guard} of {self.args!r} refused `{words}`: {answer.why}")
