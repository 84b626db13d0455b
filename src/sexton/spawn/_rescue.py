"""When a guard was itself killed: whom it left behind is found by the mark in the environment, and ended.

A tree whose guard was killed with SIGKILL is not contained any more; but a PID namespace ends with its guard, and a
cgroup is still there to be ended. For the others what is left is the mark: every process that was executed with the
environment of the tree carries it. One that was given another environment (env -i) is not found so.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from sexton.spawn import _processes

EMPTY_LOOKS = 50  # so many in a row will do on a machine where somebody is always born
DYING = 10.0  # seconds that a killed process may take to die


def end(mark: str) -> list[_processes.Process]:
    """SIGKILL everybody with that mark ("SEXTON_TREE=..."), until nobody is left. Gives those who would not die."""
    until = time.monotonic() + DYING
    empty = 0
    while True:
        born = _born()
        left = [process for process in _processes.marked(mark) if process.pid != os.getpid()]
        if not left:
            # One that forks and ends all the time may be missed by a look, but not if nobody was born during it.
            empty += 1
            if born == _born() or empty >= EMPTY_LOOKS:
                return []
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


def end_cgroup(directory: str) -> None:
    """SIGKILL everybody in a cgroup, wait until they are dead, and take it away; what cannot be done is left undone.

    cgroup.kill reaches those too who have no mark, and whoever forks meanwhile. (cgroups, "Core Interface Files".)
    """
    with contextlib.suppress(OSError), open(f"{directory}/cgroup.events") as populated:
        with open(f"{directory}/cgroup.kill", "w") as kill:
            kill.write("1")
        until = time.monotonic() + DYING
        poll = select.poll()
        poll.register(populated, select.POLLPRI)
        while "populated 1" in populated.read() and poll.poll(max(until - time.monotonic(), 0) * 1000):
            populated.seek(0)
        for path, _, _ in os.walk(directory, topdown=False):
            os.rmdir(path)


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
