"""When a guard was itself killed: whom it left behind is found by the tree's mark, and ended.

A tree whose guard was killed with SIGKILL is not contained any more; but a PID namespace ends with its guard, and a
cgroup is still there to be ended: the mark is in its name. For the others what is left is the mark in the environment:
every process that was executed with that of the tree carries it. One that was given another (env -i) is not found so.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from sexton.spawn import _processes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CGROUP = "sexton-"
NAMED = 5  # of those who would not die
EMPTY_LOOKS = 50  # so many in a row will do on a machine where somebody is always born
DYING = 10.0  # seconds that a killed process may take to die


def end(mark: str, patience: float = DYING, killed: Sequence[_processes.Process] = ()) -> list[_processes.Process]:
    """SIGKILL everybody with that mark ("SEXTON_TREE=..."), until nobody is left, or they have had so many seconds to
    die. Gives those who have not.

    And everybody in the cgroups of that tree: those too who have no mark, and whoever forks meanwhile.

    killed: who was killed before; their end is waited for as well. Who dies slowly may have lost its mark by then.
    """
    until = time.monotonic() + patience
    killed = [*killed, *(each for directory in cgroups(mark) for each in _end_cgroup(directory, until))]
    empty = 0
    while True:
        born = _born()
        carriers, unclear = _processes.search(mark)
        marked = [process for process in carriers if process.pid != os.getpid()]
        known = {process.pid for process in marked}
        left = [*marked, *(found for each in killed if each.pid not in known and (found := _there(each)))]
        if not left:
            # One that forks and ends all the time may be missed by a look, but not if nobody was born during it.
            empty += 1
            if (born == _born() and not unclear) or empty >= EMPTY_LOOKS:
                return []
            continue
        empty = 0
        held = {fd: process for process in left if (fd := hold(process)) is not None}
        try:
            for fd, process in held.items():
                if process in marked:
                    _kill(fd)
            gone = all(_ends(fd, until - time.monotonic()) for fd in held)
        finally:
            for fd in held:
                os.close(fd)
        if not gone or (not held and time.monotonic() > until):
            return [found for process in left if (found := _there(process))]


def told(left: Sequence[_processes.Process]) -> str:
    """Those who would not die, for a person: 4711 (cat) in state D (request_wait_answer)."""
    names = ", ".join(map(_told, left[:NAMED]))
    return names + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")


def _told(process: _processes.Process) -> str:
    from sexton import proc

    threads = proc.threads(process.pid)
    alive = {} if isinstance(threads, proc.Missing) else {tid: each for tid, each in threads.items() if not each.zombie}
    stuck = min(alive, key=lambda tid: (alive[tid].state != "D", tid), default=0)
    if not stuck:
        return f"{process.pid} ({process.name})"
    where = proc.wchan(stuck)  # and not its command line: who reads that may get stuck as well
    place = f" ({where})" if where and not isinstance(where, proc.Missing) else ""
    return f"{process.pid} ({process.name}) in state {alive[stuck].state}{place}"


def cgroups(mark: str) -> list[str]:
    """The directories of the cgroups that are named after the tree with that mark, but not our own.

    "sexton-PID@MARK" was made by its guard (--contain cgroup); what is no PID, by who started the guard in it.
    """
    from sexton import proc

    name, _, tree = mark.partition("=")
    mounts = proc.mounts()
    if name != _processes.MARK or isinstance(mounts, proc.Missing):
        return []
    return [
        path
        for mount in mounts
        if mount.kind == "cgroup2"
        for path, _, _ in os.walk(mount.point)
        if _is_of(os.path.basename(path), tree) and os.getpid() not in members(path)
    ]


def _is_of(cgroup: str, tree: str) -> bool:
    head, _, mark = cgroup.partition("@")
    return head.startswith(CGROUP) and mark == tree


def members(directory: str) -> set[int]:
    """Who is in a cgroup, or in one below it."""
    found: set[int] = set()
    for path, _, _ in os.walk(directory):
        with contextlib.suppress(OSError), open(f"{path}/cgroup.procs") as file:
            found |= {int(line) for line in file}
    return found


def _end_cgroup(directory: str, until: float) -> list[_processes.Process]:
    """SIGKILL everybody in a cgroup, wait until they are dead, and take it away if a guard made it.

    until: in monotonic seconds. Gives those who have not died by then.
    See the kernel's Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files".
    """
    with contextlib.suppress(OSError), open(f"{directory}/cgroup.events") as populated:
        with open(f"{directory}/cgroup.kill", "w") as kill:
            kill.write("1")
        poll = select.poll()
        poll.register(populated, select.POLLPRI)
        while "populated 1" in populated.read() and poll.poll(max(until - time.monotonic(), 0) * 1000):
            populated.seek(0)
    if os.path.basename(directory).partition("@")[0].removeprefix(CGROUP).isdecimal():
        for path, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
    return [process for pid in members(directory) if (process := _processes.look(pid))]


def _born() -> int:
    """How many processes the machine has ever made."""
    with open("/proc/stat", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"processes "))


def _there(process: _processes.Process) -> _processes.Process | None:
    """The process as it is now; None when it has ended, be it buried or not."""
    from sexton import proc

    found = proc.stat(process.pid)
    if isinstance(found, proc.Missing) or found.start != process.start or (found.zombie and found.threads <= 1):
        return None
    return _processes.look(process.pid)


def hold(process: _processes.Process) -> int | None:
    """A pidfd of it, checked after it was opened: the number may have been reused before. None when it has ended."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if _there(process):
        return fd
    os.close(fd)
    return None


def known(killed: Mapping[int, float]) -> list[_processes.Process]:
    """Those with these numbers who lived when they were killed, at these times, and live still."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = os.sysconf("SC_CLK_TCK")
    found = [(process, at) for pid, at in killed.items() if (process := _processes.look(pid))]
    return [process for process, at in found if boot + process.start / ticks <= at and _there(process)]


def _kill(fd: int) -> None:
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _ends(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))
