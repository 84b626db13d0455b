"""Has a culprit reap its zombies by calling wait4 itself, through ptrace, and without stopping it for long.

The work is done by a process of its own, since the kernel lets go of a tracee only when it stands still or
when its tracer ends: so a culprit that does not stop in time is let go by that process's end, and sexton
goes on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple

from sexton import _linux, proc
from sexton.doctor.inject_code import Mapping, find_gadgets, is_stack, parse_maps
from sexton.doctor.inject_frame import Machine, Unsupported, machine
from sexton.doctor.inject_trace import Failed, Tracer, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sexton.doctor.inject_frame import Gadgets

_CAP_SYS_PTRACE = 19
_SECCOMP_STRICT = 1
_STOPPABLE = frozenset("SRID")  # D ends within the deadline, or the tracer does
_TELLS_OF_REAPING = (6, 9)  # the Linux from which on a pidfd says POLLHUP when its process is reaped
_WALK = 2.0  # seconds for a culprit to come to its wait4, however busy the machine is
_TRIES = 8  # threads of one culprit, before it is given up for this zombie


class Outcome(NamedTuple):
    """What became of one zombie; `stopped_for` is how long the culprit's thread stood still, in seconds."""

    pid: int
    result: Literal["reaped", "left", "refused"]
    why: str = ""
    stopped_for: float = 0.0


def obstacle(culprit: proc.Process) -> str:
    """Why ptrace would be refused, as far as that can be seen without trying; "" for no reason seen."""
    status = proc.status(culprit.pid)
    if isinstance(status, proc.Missing):
        return f"{culprit.name} {'is gone' if status is proc.Missing.GONE else 'cannot be looked at'}"
    if not _sees_itself():
        return "/proc shows another PID namespace than the one sexton is in"
    if status.tracer:
        return f"{culprit.name} is traced by {_name(status.tracer)}; end that tracer first"
    found = proc.threads(culprit.pid)
    states = set() if isinstance(found, proc.Missing) else {thread.state for thread in found.values()}
    if not states & _STOPPABLE:
        return f"{culprit.name} is {'stopped: SIGCONT it first' if 'T' in states else 'not running'}"
    if status.seccomp == _SECCOMP_STRICT:
        return f"{culprit.name} is under strict seccomp, which would kill it for a wait4"
    if culprit.kernel:
        return f"{culprit.name} is a thread of the kernel"
    features = proc.read(f"/proc/{culprit.pid}/status")
    if isinstance(features, bytes) and b"shstk" in features:
        return f"{culprit.name} has a shadow stack, which would take the way back for an attack"
    return ""


def _sees_itself() -> bool:
    """Whether /proc counts as sexton does; ptrace and pidfds would meet other processes if not."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def inject(
    culprit: proc.Process,
    zombies: Sequence[proc.Process],
    step: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Have the culprit reap those children, one short stop for each; the answers in the order of the zombies.

    Which of them may be taken from it is not asked here (`cure_evidence`). `step` as in `Tracer`.
    """
    why = obstacle(culprit)
    if why:
        return [Outcome(zombie.pid, "refused", why) for zombie in zombies]
    reading, writing = os.pipe()
    helper = os.fork()
    if helper == 0:
        code = 1
        try:
            os.close(reading)
            _work(culprit, zombies, writing, step)
            code = 0
        except BaseException:  # noqa: BLE001 - it ends here, and says why
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)  # whatever it was: nothing of the caller may run here
    os.close(writing)
    with open(reading, encoding="utf-8") as answers:
        found = {one.pid: one for one in (Outcome(*json.loads(line)) for line in answers)}
    code = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"done too early (exit {code})"
    lost = f"the tracer was {how}; the culprit runs on by itself"
    return [found.get(zombie.pid, Outcome(zombie.pid, "refused", lost)) for zombie in zombies]


def _work(culprit: proc.Process, zombies: Sequence[proc.Process], answers: int, step: Callable[[str], None]) -> None:
    """In the process of its own: every zombie in turn, an answer a line."""
    _linux.set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    gc.disable()  # no pause while the culprit stands still
    # The stop is as long as this process has to wait for a processor, and it needs one for microseconds only.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    site: Site | None = None
    for zombie in zombies:
        try:
            if site is None:
                site = Site(culprit, step)
            outcome = site.reap(zombie)
        except Unsupported as error:
            outcome = Outcome(zombie.pid, "refused", f"{culprit.name}: {error}")
        except TimeoutError as error:
            _say(answers, Outcome(zombie.pid, "refused", f"{culprit.name}: {error}"))
            return  # its end is what lets go of the culprit
        except OSError as error:
            outcome = Outcome(zombie.pid, "refused", _explain(culprit, error))
        _say(answers, outcome)


def _say(answers: int, outcome: Outcome) -> None:
    os.write(answers, (json.dumps(outcome) + "\n").encode())


class Site:
    """A culprit that was looked over: its memory, the code to borrow, the thread that is to wait."""

    def __init__(self, culprit: proc.Process, step: Callable[[str], None] = lambda _: None) -> None:
        self.culprit = culprit
        self.step = step
        self.machine: Machine = machine()
        self.memory = os.open(f"/proc/{culprit.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        now = proc.stat(culprit.pid)
        if isinstance(now, proc.Missing) or now.start != culprit.start:
            raise ProcessLookupError(3, "it is gone", culprit.name)
        status = proc.status(culprit.pid)
        if isinstance(status, proc.Missing):
            raise ProcessLookupError(3, "it is gone", culprit.name)
        self.level = len(status.ns_pids) - 1
        self.seccomp = status.seccomp != 0
        self.maps: list[Mapping] = []
        self._look()
        self.gadgets: Gadgets = find_gadgets(self.maps, self._read, self.machine)
        self.thread = 0
        self.way: Way | None = None
        self.walk = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < _TELLS_OF_REAPING

    def _look(self) -> None:
        with open(f"/proc/{self.culprit.pid}/maps", "rb") as file:
            self.maps = parse_maps(file.read())

    def _read(self, size: int, address: int) -> bytes:
        try:
            return os.pread(self.memory, size, address)
        except OSError:
            return b""  # a mapping of a device, or one that has gone

    def _is_stack(self, pointer: int) -> bool:
        return is_stack(self.maps, pointer, self.machine.room)

    def threads(self) -> list[int]:
        """The threads that could be asked, first the ones where nobody would notice.

        Best is one asleep in a system call that a stop does not disturb, and not the first thread, which
        has the program's work to do. Then one that runs, then any other sleeper.
        """
        ranked = []
        every = proc.threads(self.culprit.pid)
        for tid, thread in () if isinstance(every, proc.Missing) else every.items():
            if thread.state not in _STOPPABLE:
                continue
            call = proc.syscall(self.culprit.pid, tid)
            asleep = isinstance(call, proc.Syscall) and call.number >= 0
            if asleep and isinstance(call, proc.Syscall) and not self._is_stack(call.sp):
                continue
            calm = isinstance(call, proc.Syscall) and call.number in self.machine.calm
            rank = 3 if thread.state == "D" else 0 if calm else 2 if asleep else 1
            ranked.append((rank, tid == self.culprit.pid, tid))
        return [tid for _, _, tid in sorted(ranked)]

    def reap(self, zombie: proc.Process) -> Outcome:
        """One zombie. Raises `OSError` from ptrace, `TimeoutError` for a thread that does not stop."""
        held = _hold(zombie)
        if held is None:
            return Outcome(zombie.pid, "reaped", "it had gone before sexton came")
        try:
            return self._reap(zombie, held)
        finally:
            os.close(held)

    def _reap(self, zombie: proc.Process, held: int) -> Outcome:
        status = proc.status(zombie.pid)
        now = proc.stat(zombie.pid)
        if isinstance(status, proc.Missing) or isinstance(now, proc.Missing):
            return Outcome(zombie.pid, "reaped", "it had gone before sexton came")
        if not now.zombie or now.ppid != self.culprit.pid or len(status.ns_pids) <= self.level:
            return Outcome(zombie.pid, "refused", f"{now.name} is no zombie of {self.culprit.name}")
        if now.threads > 1:
            return Outcome(zombie.pid, "left", "no wait can have it: its first thread ended, and others of it live")
        if status.tracer:
            return Outcome(zombie.pid, "left", f"no wait can have it: {_name(status.tracer)} traces it")
        pid = status.ns_pids[self.level]
        if self.thread:
            outcome, _ = self._try(self.thread, pid, zombie, held)
            if outcome:
                return outcome
            self.thread = 0  # the thread that did it until now has gone, or moved
            self._look()
        why = "none of its threads can be stopped now"
        for tid in self.threads()[:_TRIES]:
            outcome, why = self._try(tid, pid, zombie, held)
            if outcome:
                return outcome
        return Outcome(zombie.pid, "refused", f"{self.culprit.name}: {why}")

    def _try(self, tid: int, pid: int, zombie: proc.Process, held: int) -> tuple[Outcome | None, str]:
        tracer = Tracer(
            tid,
            self.memory,
            self.gadgets,
            machine=self.machine,
            is_stack=self._is_stack,
            walk=self.walk,
            step=self.step,
        )
        tracer.way = self.way if tid == self.thread else None
        try:
            result = tracer.reap(pid, self.seccomp)
        except (Failed, ProcessLookupError) as error:
            return None, str(error)
        self.thread, self.way = tid, tracer.way
        if result is None and not _reaped(held):
            return Outcome(zombie.pid, "left", f"wait4 did not take it within {_WALK:g} s", tracer.stopped_for), ""
        if result in {pid, None}:
            return Outcome(zombie.pid, "reaped", "", tracer.stopped_for), ""
        return Outcome(zombie.pid, "left", f"wait4 gave {result}", tracer.stopped_for), ""


def _hold(zombie: proc.Process) -> int | None:
    """A pidfd on that very process; None where it has gone."""
    try:
        held = os.pidfd_open(zombie.pid)
    except ProcessLookupError:
        return None
    now = proc.stat(zombie.pid)
    if isinstance(now, proc.Missing) or now.start != zombie.start:
        os.close(held)
        return None
    return held


def _reaped(held: int) -> bool:
    """Whether the zombie's end comes: POLLHUP, of which there is no need to ask."""
    waiting = select.poll()
    waiting.register(held, 0)
    return bool(waiting.poll(_WALK * 1000))


def _explain(culprit: proc.Process, error: OSError) -> str:
    """A refusal of ptrace in words: who refuses, and what would help."""
    if isinstance(error, ProcessLookupError):
        return f"{culprit.name} is gone"
    status = proc.status(culprit.pid)
    own = proc.status(os.getpid())
    if isinstance(status, proc.Status) and status.tracer:
        return f"{culprit.name} is traced by {_name(status.tracer)}; end that tracer first"
    if isinstance(own, proc.Status) and not own.cap_effective >> _CAP_SYS_PTRACE & 1:
        scope = proc.read("/proc/sys/kernel/yama/ptrace_scope")
        if isinstance(scope, bytes) and scope.strip() != b"0":
            return f"{culprit.name}: Yama (ptrace_scope {scope.decode().strip()}) wants CAP_SYS_PTRACE for this"
        return f"{culprit.name}: this takes CAP_SYS_PTRACE (root, or a container with --cap-add SYS_PTRACE)"
    if isinstance(own, proc.Status) and own.seccomp:
        return f"{culprit.name}: sexton's own seccomp filter forbids ptrace; run it on the host"
    return f"{culprit.name}: the kernel refuses ptrace: {error.strerror}"


def _name(pid: int) -> str:
    found = proc.stat(pid)
    return found.name if isinstance(found, proc.Process) else f"[{pid}]"
