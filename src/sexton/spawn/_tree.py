"""Tree: a command and every descendant of it, contained by a guard of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import warnings
from typing import IO, TYPE_CHECKING, Any, Literal, Self, Unpack, cast

from sexton import events
from sexton.errors import ContainmentError, GuardError, LeftoversError, SextonError
from sexton.spawn import _ends, _processes, _rescue, _start
from sexton.spawn._channel import Channel
from sexton.spawn._errors import TimeoutExpired
from sexton.spawn._record import name_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from types import TracebackType

    from sexton.spawn._receipt import Receipt

Scope = Literal["child", "group", "tree"]


GREETING = 5.0  # seconds that a guard may take to greet a new owner


class Tree(Channel):
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
        args = _start.settled(args)
        options, popen = _start.split(settings)
        for contain in (rungs := options.rungs()):
            self._begin(args, options, _start.start(args, options, contain, popen, mark=mark))
            try:
                self._await_start()
            except ContainmentError:
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
        args = _start.settled(args)
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
        self._program = started.program
        self.contain = started.contain
        self.mark = started.mark
        self._options = options
        popen = started.popen
        self._popen: subprocess.Popen[Any] | None = popen
        self.guard = started.guard
        self.stdin: IO[Any] | None = popen.stdin if popen else None
        self.stdout: IO[Any] | None = popen.stdout if popen else None
        self.stderr: IO[Any] | None = popen.stderr if popen else None
        self._unreachable: list[_processes.Process] = []
        self._open(started.end)

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
            self._await_guard(lambda: self.begun)
        except BaseException:  # an interrupt, in the midst of a start
            self.close()
            raise
        self.check_start()

    def check_start(self) -> None:
        """Raise what kept the command from running; only once the guard has said it or has gone."""
        record = self._record
        if record.pid and not record.failed:
            return
        self._await_guard(lambda: record.closed)
        status = self._popen.returncode if self._popen else 0
        if status < 0 and not record.failed:
            return  # the guard was killed: whether the command ran is not known, and what there was of it is ended
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()
        raise _start.failure(self.args, self._program, self.contain, record, status)

    def _take(self, data: bytes) -> None:
        super()._take(data)
        if self._record.empty and self._options.listen is None:
            self._record.closed = True  # that was its last word: a second waking to see it hang up would be in vain
        if self._record.closed:
            lost = self._record.guard_lost(self._bury_guard(), self._options.on_exit)
            if lost or self._record.gave_up:
                killed = _rescue.known(self._record.killed) if self.contain != "pidns" else ()
                self._unreachable = _rescue.end(_processes.mark_of(self.mark), self._patience if lost else 0, killed)
                self._record.rescued = lost and not self._unreachable
            if not self._watchers:
                _ends.close(self._end)

    @property
    def ending(self) -> bool:
        """The command has ended, and the guard stops or leaves what is left by itself."""
        return self._record.closed or (self._record.ended and self._options.on_exit != "wait")

    def _bury_guard(self) -> int | None:
        """It was about to end when it said so. How it ended, -N for signal N; None: that is not known."""
        if self._popen is None:
            return None
        try:
            while os.waitid(os.P_PID, self.guard, os.WEXITED | os.WSTOPPED | os.WNOWAIT).si_code == os.CLD_STOPPED:  # type: ignore[union-attr]
                self._popen.send_signal(signal.SIGCONT)
        except ChildProcessError:  # where SIGCHLD is ignored the kernel has buried it
            self._popen.wait()
            return None
        return self._popen.wait()

    def wake_guard(self) -> None:
        """Let the guard go on if somebody has stopped it (SIGSTOP): it obeys nothing until then."""
        if self._popen and not self._record.closed and (found := _processes.look(self.guard)) and found.state == "T":
            self._popen.send_signal(signal.SIGCONT)

    # --- what one can ask ---

    @property
    def pid(self) -> int:
        """The command's pid, as its guard sees it."""
        return self._record.pid

    @property
    def grace(self) -> float:
        """Seconds that it has between the stop signal and SIGKILL, if stop() says nothing else."""
        return self._options.grace

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
            if timeout is None:
                raise SextonError(
                    f"a signal handler waits for the tree of {self.args!r} above a frame that does: ask_to_stop() in it"
                )
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
        if said := self._record.gave_up:
            raise LeftoversError(f"not all of {self.args!r} could be ended; its guard {self.guard} said: {said}")
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
        return self._see_off(self.grace if grace is None else grace)

    def ask_to_stop(self, grace: float | None = None) -> None:
        """What stop() does, without waiting for the end."""
        self._order("stop" if grace is None else f"stop {_start.seconds('grace', grace)}")

    def kill(self) -> Receipt:
        """SIGKILL to the whole tree, until nothing is left. Raises LeftoversError."""
        self._order("kill")
        return self._see_off(0)

    def _see_off(self, grace: float) -> Receipt:
        """Wait for the end, of the guard too: whoever asked for it knows of it now."""
        if self._interrupted:
            self._until_hung_up()
            return self.receipt
        self._await_guard(lambda: self._gone, grace)
        self.wait()
        if self._record.held:
            self.dismiss()
            self._await_guard(lambda: self._record.closed)
        return self.receipt

    def _until_hung_up(self) -> None:
        """Until the guard has gone; in a signal handler above a frame that reads, and that will read what it said."""
        with contextlib.suppress(ValueError):  # it was closed: the guard had gone
            poll = select.poll()
            poll.register(self._end, select.POLLRDHUP)
            poll.poll()

    def renew(self, seconds: float | None = None) -> None:
        """Let the lease end so many seconds from now; None: as long as at the start. Raises SextonError."""
        self._order("renew" if seconds is None else f"renew {_start.seconds('seconds', seconds)}")

    def dismiss(self) -> None:
        """Let go the guard of a tree with on_owner_lost="hold" of which nothing is left, when that is written down.

        An owner that dies before has a successor who hears how it ended. Waits for nothing. What lives after all is
        killed.
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
        super().forked()
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
