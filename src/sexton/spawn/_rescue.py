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

from sexton.spawn import _processes

CGROUP = "sexton-"
EMPTY_LOOKS = 50  # so many in a row will do on a machine where somebody is always born
DYING = 10.0  # seconds that a killed process may take to die


def end(mark: str) -> list[_processes.Process]:
    """SIGKILL everybody with that mark ("SEXTON_TREE=..."), until nobody is left. Gives those who would not die.

    And everybody in the cgroups of that tree: those too who have no mark, and whoever forks meanwhile.
    """
    stuck = [process for directory in cgroups(mark) for process in _end_cgroup(directory)]
    until = time.monotonic() + DYING
    empty = 0
    while True:
        born = _born()
        found, unclear = _processes.search(mark)
        left = [process for process in found if process.pid != os.getpid()]
        if not left:
            # One that forks and ends all the time may be missed by a look, but not if nobody was born during it.
            empty += 1
            if (born == _born() and not unclear) or empty >= EMPTY_LOOKS:
                return stuck
            continue
        empty = 0
        held = [fd for process in left if (fd := _hold(process, mark)) is not None]
        try:
            for fd in held:
                _kill(fd)
            gone = all(_ends(fd, until - time.monotonic()) for fd in held)
        finally:
            for fd in held:
                os.close(fd)
        if not gone or (not held and time.monotonic() > until):
            return [process for process in left if _processes.carries(process.pid, mark)]


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


def _end_cgroup(directory: str) -> list[_processes.Process]:
    """SIGKILL everybody in a cgroup, wait until they are dead, and take it away if a guard made it.

    Gives those who would not die.
    See the kernel's Documentation/admin-guide/cgroup-v2.rst, "Core Interface Files".
    """
    with contextlib.suppress(OSError), open(f"{directory}/cgroup.events") as populated:
        with open(f"{directory}/cgroup.kill", "w") as kill:
            kill.write("1")
        until = time.monotonic() + DYING
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


def _hold(process: _processes.Process, mark: str) -> int | None:
    """A pidfd of it, checked after it was opened: the number may have been reused before."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if _processes.carries(process.pid, mark):
        return fd
    os.close(fd)
    return None


def _kill(fd: int) -> None:
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _ends(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))
