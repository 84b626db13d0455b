"""The tracer: stops one thread of the culprit for some ten microseconds, and has it call wait4.

Invariant: whichever step is the last, because sexton is killed there, the thread runs on with its own registers. Up to
`set the registers` nothing of it has changed but dead memory below its stack pointer; from there on it is on the
detour of `inject_frame`, which ends in its own registers whether anybody watches or not. So after that one change it
is let go, and walks by itself.

The exception is a system call with a time limit (nanosleep, poll, a timed futex): after the detour it would end with
EINTR, as after any signal handler. There the tracer goes along, and gives the registers back in a way that the kernel
carries the rest of the time over; so only a tracer that dies on that walk makes it end early. On aarch64 such a call is
left first, since the kernel keeps to itself that it is one. It goes along, too, where no event will tell of the reaping
(before Linux 6.9).

A stop is looked at with WNOWAIT, so that a signal which was about to be delivered still is. Never single-steps: a step
that outlives its tracer is a fatal SIGTRAP. Sources: ptrace(2), kernel/ptrace.c.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from sexton import _linux
from sexton.doctor.inject_frame import Gadgets, Machine, Plan, Thread, Unsupported
from sexton.doctor.inject_seccomp import allows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ALL_SIGNALS = (1 << 64) - 1
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENOENT = 2


class Stop(NamedTuple):
    """Why a thread stopped: "event" (our interrupt), "group" (job control), "signal", "syscall", "gone"."""

    kind: str
    signum: int = 0


class Failed(Exception):
    """The thread was let go without a wait4; the message says why."""


class Way(NamedTuple):
    """The detour that a thread was sent on, and the signal mask that it has at the end of it."""

    plan: Plan
    mask: int


class Tracer:
    """One thread of a culprit, for one wait4. `memory` is its /proc/PID/mem, opened before; times in seconds.

    `way` is the one it was sent on last, where it may still be, and afterwards the one it is sent on now.

    `step` is called with the name of each step before it is done: there for the test that dies in every one
    of them.
    """

    def __init__(
        self,
        tid: int,
        memory: int,
        gadgets: Gadgets,
        *,
        machine: Machine,
        is_stack: Callable[[int], bool],
        walk: bool = False,
        deadline: float = 1.0,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tid = tid
        self.memory = memory
        self.gadgets = gadgets
        self.machine = machine
        self.is_stack = is_stack
        self.walk = walk
        self.way: Way | None = None
        self.step = step
        self.deadline = time.monotonic() + deadline
        self.stopped_for = 0.0

    def reap(self, pid: int, seccomp: bool) -> int | None:
        """Have it call wait4 for `pid`, as its own PID namespace counts: the pid, 0 for "not yet", or -errno.

        None: it is on its way, and the end of the zombie tells that it was there. Raises `Failed`, after which the
        thread is as it was. `OSError` where it is gone or may not be traced.
        """
        self.step("seize")
        _linux.ptrace_seize(self.tid, _linux.PTRACE_O_TRACESYSGOOD)
        self.step("interrupt")
        _linux.ptrace_interrupt(self.tid)
        self._until_interrupted()
        begin = time.monotonic()
        try:
            return self._detour(pid, seccomp)
        finally:
            self.stopped_for = time.monotonic() - begin

    def _until_interrupted(self) -> None:
        while True:
            self.step("wait for the stop")
            stop = self._wait()
            if stop.kind == "event":
                return
            if stop.kind == "gone":
                raise Failed("it ended")
            if stop.kind == "group":
                self._detach()
                raise Failed("it is stopped by job control; SIGCONT it first")
            # A signal was on its way before our interrupt: it gets it, and stops for us after that.
            self.step("deliver a signal")
            _linux.ptrace_resume(_linux.PTRACE_CONT, self.tid, stop.signum)

    def _detour(self, pid: int, seccomp: bool) -> int | None:
        try:
            self.way = self._prepare(pid, seccomp)
        except (Unsupported, OSError) as why:
            self._detach()
            raise Failed(str(why)) from why
        plan, mask = self.way
        self.step("set the registers")
        _linux.ptrace_set_registers(self.tid, _linux.NT_PRSTATUS, plan.detour)
        # No signal handler on the detour, since it could jump out of it; the frame brings the mask back as
        # well.
        self.step("block the signals")
        _linux.ptrace_set_signal_mask(self.tid, _ALL_SIGNALS)
        if not (self.walk or plan.timed):
            self._detach()
            return None
        result, signum = self._through_the_call()
        self.step("give the mask back")
        _linux.ptrace_set_signal_mask(self.tid, mask)
        if plan.lost:
            _linux.ptrace_set_registers(self.tid, *plan.lost)
        self.step("give the registers back")
        _linux.ptrace_set_registers(self.tid, _linux.NT_PRSTATUS, plan.own)
        self._detach(signum)
        if result is None:
            raise Failed("it was stopped on the way")
        return result

    def _prepare(self, pid: int, seccomp: bool) -> Way:
        registers = _linux.ptrace_get_registers(self.tid, _linux.NT_PRSTATUS)
        # It has not come back from the last time, and stands behind its call: the frame is there, so once more. A
        # second frame below the first would do as well, but not a hundred of them.
        if self.way and (again := self.machine.again(registers, self.way.plan, pid)):
            plan = self.way.plan
            if os.pread(self.memory, len(plan.frame), plan.address) == plan.frame:
                return self.way._replace(plan=again)
        self._check_stack(registers)
        if seccomp:
            self._ask_seccomp()
        counter = self.machine.counter(registers)
        vector = _linux.ptrace_get_registers(self.tid, self.machine.vector_set)
        mask = _linux.ptrace_get_signal_mask(self.tid)
        thread = Thread(registers, vector, mask, self._rseq_abort(counter), dict(self._more()))
        plan = self.machine.plan(thread, pid, self.gadgets)
        if self.machine.sleeps(registers, os.pread(self.memory, 4, counter)):
            thread = thread._replace(registers=self._leave_sleep(), timed=True)
            plan = self.machine.plan(thread, pid, self.gadgets)
        self.step("write the frame")
        self._write(plan)
        return Way(plan, mask)

    def _leave_sleep(self) -> bytes:
        """Let it enter its call, and leave without having slept; the registers that lead into the rest of it."""
        own = b""
        for way in ("enter its call", "leave its call"):
            self.step(way)
            _linux.ptrace_resume(_linux.PTRACE_SYSCALL, self.tid)
            stop = self._wait()
            if stop.kind == "gone":
                raise Failed("it ended")
            if stop.kind != "syscall":
                self._detach(stop.signum if stop.kind == "signal" else 0)
                raise Failed("it was stopped on the way")
            if not own:
                registers = _linux.ptrace_get_registers(self.tid, _linux.NT_PRSTATUS)
                own, ended, number, none = self.machine.skip(registers)
                self.step("leave its call out")
                _linux.ptrace_set_registers(self.tid, _linux.NT_PRSTATUS, ended)
                _linux.ptrace_set_registers(self.tid, number, none)
        return own

    def _more(self) -> Iterator[tuple[int, bytes]]:
        for number in self.machine.more_sets:
            with contextlib.suppress(OSError):  # this processor or kernel has none
                yield number, _linux.ptrace_get_registers(self.tid, number)

    def _check_stack(self, registers: bytes) -> None:
        if not self.is_stack(self.machine.stack_pointer(registers)):
            raise Unsupported("its stack has no room that is known to be free")

    def _write(self, plan: Plan) -> None:
        if os.pwrite(self.memory, plan.frame, plan.address) != len(plan.frame):
            raise Unsupported("its stack cannot be written to")

    def _through_the_call(self) -> tuple[int | None, int]:
        """Into the system call and out of it; None, and the signal, where something else stopped the thread.

        That is SIGSTOP, which cannot be blocked, or a seccomp filter's SIGSYS, which is our doing and not
        delivered.
        """
        for way in ("enter wait4", "leave wait4"):
            self.step(way)
            _linux.ptrace_resume(_linux.PTRACE_SYSCALL, self.tid)
            self.step(f"wait to {way}")
            stop = self._wait()
            if stop.kind == "gone":
                raise Failed("it ended")
            if stop.kind != "syscall":
                return None, stop.signum if stop.kind == "signal" and stop.signum != signal.SIGSYS else 0
        return self.machine.result(_linux.ptrace_get_registers(self.tid, _linux.NT_PRSTATUS)), 0

    def _detach(self, signum: int = 0) -> None:
        self.step("detach")
        with contextlib.suppress(ProcessLookupError):  # SIGKILL ends a stopped thread too
            _linux.ptrace_resume(_linux.PTRACE_DETACH, self.tid, signum)

    def _wait(self) -> Stop:
        options = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _linux.WALL
        while True:
            try:
                found = os.waitid(os.P_PID, self.tid, options)
            except ChildProcessError:
                return Stop("gone")
            if found is None:
                left = self.deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("it did not stop in time: it sleeps uninterruptibly, or finds no processor")
                # SIGCHLD is blocked, by `inject`, so one that came since waitid is pending and ends this at
                # once.
                signal.sigtimedwait([signal.SIGCHLD], left)
                continue
            if found.si_code != os.CLD_TRAPPED:
                return Stop("gone")
            event, signum = found.si_status >> 8, found.si_status & 0xFF
            if event == _linux.PTRACE_EVENT_STOP:
                return Stop("event" if signum == signal.SIGTRAP else "group", signum)
            return Stop("syscall") if signum == _SYSCALL_STOP else Stop("signal", signum)

    def _rseq_abort(self, counter: int) -> int | None:
        """Where to resume a thread inside a restartable sequence, which the detour breaks as a signal would.

        `struct rseq` and `struct rseq_cs`, linux/rseq.h.
        """
        area = _linux.ptrace_get_rseq(self.tid)
        if not area:
            return None
        (descriptor,) = struct.unpack("<Q", os.pread(self.memory, 8, area + 8))
        if not descriptor:
            return None
        start, length, abort = struct.unpack("<8xQQQ", os.pread(self.memory, 32, descriptor))
        return int(abort) if 0 <= counter - start < length else None

    def _ask_seccomp(self) -> None:
        """Ask its own filters whether the two system calls of the detour would pass; unreadable is no."""
        for index in range(1 << 10):
            try:
                program = _linux.ptrace_get_seccomp_filter(self.tid, index)
            except OSError as error:
                if error.errno == _ENOENT:
                    return
                raise Unsupported("its seccomp filter cannot be read (that takes CAP_SYS_ADMIN)") from error
            for number in (self.machine.wait4, self.machine.rt_sigreturn):
                if not allows(program, number, self.machine.audit):
                    raise Unsupported(f"its seccomp filter does not allow system call {number}")
