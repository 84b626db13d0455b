"""What /proc says of a process, and waiting for its death through a pidfd, child or not."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.support.lines import DEADLINE, DeadlineError

PROC = Path("/proc")


@dataclass(frozen=True)
class Stat:
    """Some fields of /proc/PID/stat (proc_pid_stat(5)); `start` is in clock ticks since boot."""

    pid: int
    comm: str
    state: str
    ppid: int
    pgrp: int
    session: int
    tty: int
    tpgid: int
    start: int


def stat(pid: int, proc: Path = PROC) -> Stat:
    """Read /proc/PID/stat; pid as seen from that /proc. Raises FileNotFoundError or ProcessLookupError."""
    text = (proc / str(pid) / "stat").read_text(errors="replace")
    comm_start, comm_end = text.index("(") + 1, text.rindex(")")
    fields = text[comm_end + 2 :].split()
    ppid, pgrp, session, tty, tpgid = (int(field) for field in fields[1:6])
    return Stat(pid, text[comm_start:comm_end], fields[0], ppid, pgrp, session, tty, tpgid, int(fields[19]))


def status(pid: int, proc: Path = PROC) -> dict[str, str]:
    """Read /proc/PID/status as a dict: {"SigIgn": "0000000000001000", ...}."""
    lines = (proc / str(pid) / "status").read_text(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def children(pid: int, proc: Path = PROC) -> list[int]:
    """The pids of every child of every thread of pid, zombies too; [] when pid is gone."""
    found: list[int] = []
    lists = list(proc.glob(f"{pid}/task/*/children"))
    if lists:
        return [int(child) for each in lists for child in each.read_text().split()]
    for entry in proc.glob("[0-9]*"):  # a kernel without CONFIG_PROC_CHILDREN
        try:
            if stat(int(entry.name), proc).ppid == pid:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    return found


def descriptors(pid: int, proc: Path = PROC) -> dict[int, str]:
    """The open descriptors of pid and what they lead to: {0: "/dev/null", ...}."""
    folder = proc / str(pid) / "fd"
    found: dict[int, str] = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(folder / name)
        except FileNotFoundError:
            continue  # the one that listed this very folder
    return found


class Handle:
    """A process held by a pidfd: signalled and awaited without a race, also when it is not our child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.pidfd_open(pid)

    def send(self, sig: int) -> None:
        """Send a signal. Raises ProcessLookupError when the process has been reaped."""
        signal.pidfd_send_signal(self.fd, sig)

    def alive(self) -> bool:
        """False once the process has ended, a zombie included."""
        return not self._ended(0)

    def wait_dead(self, deadline: float = DEADLINE) -> None:
        """Wait until the process has ended: it may still be a zombie."""
        if not self._ended(deadline):
            raise DeadlineError(f"process {self.pid} still alive after {deadline} s: {status(self.pid)['State']}")

    def _ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)

    def close(self) -> None:
        """Close the pidfd; more than once is allowed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def lives(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return stat(pid).state not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end: it may be a zombie then."""
    with contextlib.closing(Handle(pid)) as handle:
        handle.kill()
        handle.wait_dead()


def await_end(pid: int) -> None:
    """Until the process is dead, a zombie or gone."""
    with contextlib.suppress(ProcessLookupError), contextlib.closing(Handle(pid)) as handle:
        handle.wait_dead()
