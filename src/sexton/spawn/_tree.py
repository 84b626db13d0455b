"""Tree: a command and every descendant of it, contained by a guard of its own."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
import warnings
from typing import IO, TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from sexton import events
from sexton.errors import GuardError, LeftoversError, NotOwner, SextonError
from sexton.spawn import _ends, _processes, _rescue, _start
from sexton.spawn._errors import TimeoutExpired
from sexton.spawn._record import Record, name_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from sexton.spawn._receipt import Receipt

Scope = Literal["child", "group", "tree"]


GREETING = 5.0  # seconds that a guard may take to greet a new owner


class Tree(_ends.Forkable):
    """A command, and whatever comes of it, until nothing of it is left.

        with sexton.Tree(["npm", "run", "start"], env={"PORT": "0"}, grace=5) as tree:
            tree.processes()
        print(tree.receipt)

    A guard (sexton-init) starts the command and is the parent of all that loses its own: a daemon that made a session
    of its own is still of the tree. The tree ends when it is stopped, when the `with` is left, when its command ends
    (see on_exit) and when its owner dies, by SIGKILL too (see on_owner_lost).

    The keywords are those of subprocess.Popen and, for the guard, those of Options. The command has a process group of
    its own, and SEXTON_TREE in its environment. preexec_fn runs in the guard, before the guard.

    Usable from any thread, and makes none. A forked child of the owner is not the owner: there every method raises
    NotOwner, and its end stops nothing.

    Raises OSError as subprocess does where the command cannot be executed; ContainmentError, GuardError,
    BinaryNotFound, UsageError.

    args                    as given
    stdin, stdout, stderr   our ends of the pipes, as subprocess has them, or None
    pid                     the command's, as its guard sees it
    guard                   the guard's pid
    contain                 what holds the tree: "subreaper", "pidns" or "cgroup"
    """

    _patience = _rescue.DYING

    def __init__(
        self, args: _start.Command, *, mark: str | None = None, **settings: Unpack[_start.TreeSettings]
    ) -> None:
        options, popen = _start.split(settings)
        for contain in (rungs := options.rungs()):
            self._begin(args, options, _start.start(args, options, contain, popen, mark=mark))
            try:
                self._await_start()
            except _start.CannotContain:
                if contain == rungs[-1]:
                    raise
            else:
                break

    @classmethod
    def unawaited(
        cls,
        args: _start.Command,
        settings: _start.Settings | _start.TreeSettings,
        contain: _start.Contain | None = None,
        *,
        mark: str | None = None,
        late: bool = False,
    ) -> Self:
        """A tree whose start is not waited for, in that containment alone; check_start() is to be called in the end.

        late: it is of no interest what the guard has to say before the end.
        """
        options, popen = _start.split(settings)
        tree = cls.__new__(cls)
        started = _start.start(args, options, contain or options.contain, popen, mark=mark, late=late)
        Tree._begin(tree, args, options, started)
        return tree

    @classmethod
    def adopt(cls, path: str, mark: str, args: _start.Command) -> Self:
        """The tree whose guard listens at `path`, and that has no owner now; `mark` and `args` as it was started with.

        Raises OSError where nobody listens, GuardError where the guard will not have us.
        """
        end = _ends.connect(path)
        pid = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        tree = cls.__new__(cls)
        Tree._begin(tree, args, _start.Options(listen=path), _start.Started(None, pid, end, mark, "subreaper"))
        Tree._await_hello(tree)
        return tree

    def _begin(self, args: _start.Command, options: _start.Options, started: _start.Started) -> None:
        self.args = args
        self.contain = started.contain
        self.mark = started.mark
        self._options = options
        popen = started.popen
        self._popen: subprocess.Popen[Any] | None = popen
        self.guard = started.guard
        self.stdin: IO[Any] | None = popen.stdin if popen else None
        self.stdout: IO[Any] | None = popen.stdout if popen else None
        self.stderr: IO[Any] | None = popen.stderr if popen else None
        self._end = started.end
        self._record = Record()
        self._turn = threading.Condition(threading.Lock())
        self._speaking = threading.Lock()
        self._reading = False
        self._asked = 0
        self._watchers = 0
        self._not_ours = ""  # why, when it is not
        self._unreachable: list[_processes.Process] = []
        self.mind_forks()

    # --- the guard's words ---

    def _await_hello(self) -> None:
        """With how the command ended, which comes next where nothing of the tree is left."""
        record = self._record
        if not self._await(
            lambda: bool(record.closed or (record.hello and (record.ended or not record.empty))), GREETING
        ):
            self.close()
            raise GuardError(f"the guard {self.guard} did not answer within {GREETING:g} s: it may be stopped")
        if record.hello is None:
            raise GuardError(f"the guard {self.guard} refused: it has an owner already, or is another user's")
        self.contain = cast(_start.Contain, record.hello.contain)
        if record.empty and not record.held:
            self.dismiss()

    def _await_start(self) -> None:
        """Until the command runs. Raises what kept it from that; nothing is left of it then."""
        try:
            self._await(lambda: self.begun, None)
        except BaseException:  # an interrupt, in the midst of a start
            self.close()
            raise
        self.check_start()

    def check_start(self) -> None:
        """Raise what kept the command from running; only once the guard has said it or has gone."""
        record = self._record
        if record.pid and not record.failed:
            return
        self._await(lambda: record.closed, None)
        status = self._popen.returncode if self._popen else 0
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()
        raise _start.failure(self.args, self.contain, record, status)

    def _await(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Read what the guard says until done() or for so many seconds. Whether it is done.

        Of all threads that wait one reads, and tells the others; when it leaves, another takes its turn.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            while True:
                self._check_owner()
                if done():
                    return True
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0 and timeout:
                    return False
                if self._record.closed:
                    return done()
                if self._reading:
                    if timeout == 0 or not self._turn.wait(left):
                        return done()
                    continue
                self._reading = True
                self._turn.release()
                try:
                    data = self._receive(left, wait=timeout != 0)
                finally:
                    self._turn.acquire()
                    self._reading = False
                    self._turn.notify_all()
                if data is not None:
                    self._take(data)
                elif timeout == 0:
                    return done()

    def _receive(self, seconds: float | None, *, wait: bool) -> bytes | None:
        """What the guard said; None when it said nothing for so long, b"" when it has gone."""
        if wait and seconds is not None:
            poll = select.poll()
            poll.register(self._end, select.POLLIN)
            if not poll.poll(_start.milliseconds(seconds)):
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
        if self._record.empty and self._options.listen is None:
            self._record.closed = True  # that was its last word: a second waking to see it hang up would be in vain
        if self._record.closed:
            self._bury_guard()
            if self._record.guard_lost(self._options.on_exit):
                killed = _rescue.known(self._record.killed) if self.contain != "pidns" else ()
                self._unreachable = _rescue.end(_processes.mark_of(self.mark), self._patience, killed)
                self._record.rescued = not self._unreachable
            if not self._watchers:
                _ends.close(self._end)

    @contextlib.contextmanager
    def watched(self) -> Iterator[int | None]:
        """The descriptor that is readable when listen() has something to do; None when the guard has gone."""
        with self._turn:
            closed = self._record.closed
            self._watchers += not closed
        try:
            yield None if closed else self._end.fileno()
        finally:
            with self._turn:
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

    @property
    def ending(self) -> bool:
        """The command has ended, and the guard stops or leaves what is left by itself."""
        return self._record.closed or (self._record.ended and self._options.on_exit != "wait")

    def _bury_guard(self) -> None:
        if self._popen:
            self._popen.wait()  # it was about to end when it said so

    def _say(self, words: str) -> events.Event | None:
        """Send a command; its answer, or None when the guard had gone."""
        self._check_owner()
        with self._speaking:
            if self._record.closed:
                return None
            number = self._asked
            try:
                self._end.sendall(words.encode() + b"\n")
            except OSError:
                return None
            self._asked += 1
        self._await(lambda: number in self._record.answers or self._record.closed, None)
        return self._record.answers.pop(number, None)

    def order_unheard(self, words: str) -> None:
        """Send a command; its answer is of no interest. Waits for nothing."""
        self._check_owner()
        with self._speaking, contextlib.suppress(OSError):
            if not self._record.closed:
                self._end.sendall(words.encode() + b"\n")
                self._record.ignored.add(self._asked)
                self._asked += 1

    def _order(self, words: str) -> bool:
        """Send a command that is to be carried out; False when the tree had ended. Raises SextonError where refused."""
        answer = self._say(words)
        if isinstance(answer, events.Refused) and not self._record.ended:
            raise SextonError(f"the guard {self.guard} of {self.args!r} refused `{words}`: {answer.why}")
        return isinstance(answer, events.Done)

    def _check_owner(self) -> None:
        if self._not_ours:
            raise NotOwner(f"the tree of {self.args!r} (guard {self.guard}) {self._not_ours}")

    # --- what one can ask ---

    @property
    def pid(self) -> int:
        """The command's pid, as its guard sees it."""
        return self._record.pid

    @property
    def returncode(self) -> int | None:
        """How the command ended, -N for signal N; None: not yet, or nobody has asked (see poll)."""
        if self._record.returncode is None and self._record.rescued:
            return -9  # with its guard, by the same hand or by ours
        return self._record.returncode

    def poll(self) -> int | None:
        """The command's returncode if nothing of the tree is left; None otherwise. Does not wait."""
        self._await(lambda: self._record.closed, 0)
        return self._ended() if self._gone else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until nothing of the tree is left, and give the command's returncode.

        Raises TimeoutExpired after `timeout` seconds (the tree goes on), LeftoversError.
        """
        if not self._record.closed and not self._await(lambda: self._gone, timeout):
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout)
        self._check_owner()
        return self._ended()

    def wait_command(self, timeout: float | None = None) -> int:
        """Wait until the command has ended, whatever else of the tree goes on. Raises TimeoutExpired."""
        if not self._await(lambda: self._record.ended or self._record.closed, timeout):
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout)
        code = self.returncode
        return self._ended() if code is None else code

    def _ended(self) -> int:
        if self._unreachable:
            said = _rescue.told(self._unreachable)
            raise LeftoversError(f"of {self.args!r} there is still alive after SIGKILL: {said}")
        code = self.returncode
        return -9 if code is None else code

    def send_signal(self, sig: int | str, scope: Scope = "child") -> None:
        """Send a signal to the command, to its process group, or to every process of the tree.

        Nothing happens when the command has ended, as with subprocess. Raises ValueError, SextonError.
        """
        self._order(f"signal {name_of(sig)} {scope}")

    def terminate(self) -> None:
        """SIGTERM to the command, and to it alone: stop() is what ends the tree."""
        self.send_signal("TERM")

    def stop(self, grace: float | None = None) -> Receipt:
        """Stop the tree: the stop signal, so many seconds of grace, SIGKILL, until nothing is left.

        None: the grace that the tree was started with. Raises LeftoversError.
        """
        self.ask_to_stop(grace)
        return self._see_off()

    def ask_to_stop(self, grace: float | None = None) -> None:
        """What stop() does, without waiting for the end."""
        self._order("stop" if grace is None else f"stop {_start.seconds('grace', grace)}")

    def kill(self) -> Receipt:
        """SIGKILL to the whole tree, until nothing is left. Raises LeftoversError."""
        self._order("kill")
        return self._see_off()

    def _see_off(self) -> Receipt:
        """Wait for the end, of the guard too: whoever asked for it knows of it now."""
        self.wait()
        if self._record.held:
            self.dismiss()
            self._await(lambda: self._record.closed, None)
        return self.receipt

    def renew(self, seconds: float | None = None) -> None:
        """Let the lease end so many seconds from now; None: as long as at the start. Raises SextonError."""
        self._order("renew" if seconds is None else f"renew {_start.seconds('seconds', seconds)}")

    def dismiss(self) -> None:
        """Let go the guard of a tree with on_owner_lost="hold" of which nothing is left, when that is written down.

        An owner that dies before has a successor who hears how it ended. Waits for nothing.
        """
        self.order_unheard("kill")

    def status(self) -> events.Status | None:
        """What the guard says of itself; None when it has ended."""
        answer = self._say("status")
        return answer if isinstance(answer, events.Status) else None

    def processes(self) -> tuple[_processes.Process, ...]:
        """Every living process of the tree, parents first; pids as this process sees them."""
        self.listen()
        if self._record.closed:
            return tuple(self._unreachable)
        found = [process for process in _processes.descendants(self.guard) if process.state != "Z"]
        if self.contain == "pidns":
            found = found[1:]  # the guard has a half inside, the namespace's PID 1
        return tuple(_processes.with_cmdline(process) for process in found)

    @property
    def receipt(self) -> Receipt:
        """Which processes the guard had to do with, and how each ended, as far as it is known now."""
        if not self._not_ours and not self._record.closed:
            self.listen()
        return self._record.receipt(self.contain)

    def events(self, timeout: float | None = None) -> Iterator[events.Event]:
        """What the guard reports, from the start, as it comes; ends with the tree.

        Raises TimeoutExpired when nothing comes for `timeout` seconds.
        """
        number = 0
        while True:
            more = self._await(lambda at=number: self._record.seen > at or self._gone, timeout)  # type: ignore[misc]
            if not more and timeout is not None:
                raise TimeoutExpired(self.args, timeout)
            new = self._record.since(number)
            number = self._record.seen
            if not new and self._gone:
                return
            yield from new

    # --- its end ---

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._not_ours:
            return
        try:
            for pipe in (self.stdin, self.stdout, self.stderr):
                if pipe:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        finally:
            if not self._record.closed:
                self.stop()

    def close(self) -> None:
        """Give the tree up: what on_owner_lost says happens to it, and nobody waits for that."""
        if not self._not_ours and not self._record.closed:
            self._not_ours = "was given up by close()"
            if self._popen:
                _start.give_up(self._popen)
            _ends.close(self._end)

    def forked(self) -> None:
        """We are a forked child: the tree is our parent's."""
        self._not_ours = "belongs to the process that forked this one"
        self._turn = threading.Condition(threading.Lock())
        if self._popen and self._popen.returncode is None:
            self._popen.returncode = 0  # no child of ours: nothing to wait for, nothing to warn of

    def __del__(self) -> None:
        record = getattr(self, "_record", None)
        if record is None or record.closed or self._not_ours:
            return
        said = f"the tree of {self.args!r} (guard {self.guard}) is still running"
        warnings.warn(said, ResourceWarning, stacklevel=2, source=self)
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._record.closed else "running"
        return f"<{type(self).__name__} {self.args!r} guard={self.guard} pid={self._record.pid} {state}>"
