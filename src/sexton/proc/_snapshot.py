"""All processes at one moment, and what follows from their ids alone."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from sexton.errors import CannotLook
from sexton.proc import _parse, _read
from sexton.proc._model import Missing, Process

if TYPE_CHECKING:
    from collections.abc import Iterator

# More than 52 numbers of 20 digits and a name of 64 bytes.
_LINE = 2048
_TICKS = os.sysconf("SC_CLK_TCK")


class Snapshot:
    """The processes of one /proc, read once; what it remembers besides follows from them.

    `vanished` ended between the listing and the read; `unreadable` are there and may not be read; `hidepid`
    is the mount option that hides the processes of others ("" for none): what it hides is in no list.
    """

    __slots__ = ("_children", "_oldest", "hidepid", "processes", "root", "unreadable", "uptime", "vanished")

    def __init__(
        self,
        processes: dict[int, Process],
        *,
        root: str = _read.PROC,
        vanished: tuple[int, ...] = (),
        unreadable: tuple[int, ...] = (),
        hidepid: str = "",
        uptime: float = 0.0,
    ) -> None:
        self.processes = processes
        self.root = root
        self.vanished = vanished
        self.unreadable = unreadable
        self.hidepid = hidepid
        self.uptime = uptime
        self._children: dict[int, list[Process]] | None = None
        self._oldest: dict[int, Process] = {}

    def __iter__(self) -> Iterator[Process]:
        return iter(self.processes.values())

    def __len__(self) -> int:
        return len(self.processes)

    def __contains__(self, pid: object) -> bool:
        return pid in self.processes

    def _by_parent(self) -> dict[int, list[Process]]:
        if self._children is None:
            found: dict[int, list[Process]] = {}
            for process in self.processes.values():
                found.setdefault(process.ppid, []).append(process)
            self._children = found
        return self._children

    def children(self, pid: int) -> tuple[Process, ...]:
        """Its children, zombies too. Those of 0 are the processes whose parent is outside."""
        return tuple(self._by_parent().get(pid, ()))

    def oldest(self, pid: int) -> Process | None:
        """The child of it that was started first."""
        if pid not in self._oldest and (children := self.children(pid)):
            self._oldest[pid] = min(children, key=lambda child: (child.start, child.pid))
        return self._oldest.get(pid)

    def parent(self, process: Process) -> Process | None:
        """Its parent; None where that is outside of this /proc, or hidden."""
        return self.processes.get(process.ppid)

    def ancestors(self, pid: int) -> tuple[Process, ...]:
        """Its parent, the parent's parent, …"""
        found: list[Process] = []
        seen = {pid}
        process = self.processes.get(pid)
        while process is not None and process.ppid not in seen:  # pids may be reused while a snapshot is taken
            seen.add(process.ppid)
            process = self.processes.get(process.ppid)
            if process is not None:
                found.append(process)
        return tuple(found)

    def descendants(self, pid: int) -> tuple[Process, ...]:
        """Its children, their children, …, parents before their children."""
        found = list(self.children(pid))
        seen = {pid, *(process.pid for process in found)}
        for process in found:  # grows while it is walked
            for child in self.children(process.pid):
                if child.pid not in seen:
                    seen.add(child.pid)
                    found.append(child)
        return tuple(found)

    def zombies(self) -> tuple[Process, ...]:
        """The dead that nobody has reaped."""
        return tuple(process for process in self if process.state == "Z")

    def culprits(self) -> dict[int, tuple[Process, ...]]:
        """The pid of each process that has zombies → its zombies; 0 stands for a parent outside of this
        /proc.
        """
        found: dict[int, list[Process]] = {}
        for process in self.zombies():
            found.setdefault(process.ppid, []).append(process)
        return {pid: tuple(zombies) for pid, zombies in found.items()}

    def states(self) -> dict[str, int]:
        """How many processes are in each state, most first."""
        return dict(Counter(process.state for process in self).most_common())

    def age(self, process: Process) -> float:
        """Seconds since it was started."""
        return max(0.0, self.uptime - process.start / _TICKS)


def snapshot(root: str = _read.PROC) -> Snapshot:
    """Read every process under `root` once; raises CannotLook only where `root` is no /proc at all."""
    processes: dict[int, Process] = {}
    vanished: list[int] = []
    unreadable: list[int] = []
    parse = _parse.stat
    open_, read, close, flags = os.open, os.read, os.close, os.O_RDONLY | os.O_CLOEXEC
    try:
        directory = open_(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotLook(f"cannot read {root}: {error.strerror}; is /proc mounted there?") from None
    try:
        for name in os.listdir(directory):
            if not name.isdecimal():
                continue
            try:
                fd = open_(name + "/stat", flags, dir_fd=directory)
                try:
                    data = read(fd, _LINE)
                finally:
                    close(fd)
                process = parse(data)
                processes[process[0]] = process
            except OSError as error:
                why = _read.why(error)
                (unreadable if why is Missing.DENIED else vanished).append(int(name))
            except ValueError:
                (unreadable if data else vanished).append(int(name))
    finally:
        close(directory)
    uptime = read_uptime(root)
    if not processes and not unreadable and uptime is None:
        raise CannotLook(f"{root} holds no process; is /proc mounted there?")
    return Snapshot(
        processes,
        root=root,
        vanished=tuple(vanished),
        unreadable=tuple(unreadable),
        hidepid=hidepid(root),
        uptime=uptime or 0.0,
    )


def children(pid: int, root: str = _read.PROC) -> tuple[int, ...]:
    """The pids of its children, those of each thread, zombies too; () when it is gone.

    One small read a thread; all processes are looked at where the kernel has no CONFIG_PROC_CHILDREN.
    """
    found = _read.children_pids(pid, root)
    if found is Missing.ABSENT:
        return tuple(child.pid for child in snapshot(root).children(pid))
    return () if isinstance(found, Missing) else found


def read_uptime(root: str = _read.PROC) -> float | None:
    """Seconds since boot, on the clock that `start` counts in."""
    data = _read.read(f"{root}/uptime")
    if isinstance(data, Missing):
        return None
    try:
        uptime = float(data.split()[0])
    except (ValueError, IndexError):
        return None
    if root == _read.PROC:
        # In a time namespace /proc/uptime is shifted and so are the start times; both are on CLOCK_BOOTTIME.
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return uptime


def hidepid(root: str = _read.PROC) -> str:
    """How the mount hides the processes of other users: "" | noaccess | invisible | ptraceable. proc(5)."""
    mounts = _read.mounts("self", root)
    if isinstance(mounts, Missing):
        return ""
    words = {"1": "noaccess", "2": "invisible", "4": "ptraceable", "0": "", "off": ""}
    procs = [mount for mount in mounts if mount.kind == "proc"]
    for point in (root.rstrip("/"), _read.PROC):
        for mount in reversed(procs):  # the last one covers the ones before
            if mount.point == point:
                values = [option[8:] for option in mount.options if option.startswith("hidepid=")]
                return words.get(values[0], values[0]) if values else ""
    return ""


# Inits that start one program, which is therefore the oldest of their children, and one that starts none.
CHILDLESS_INITS = frozenset({"pause"})
ONE_CHILD_INITS = CHILDLESS_INITS | {
    "tini",
    "docker-init",
    "dumb-init",
    "catatonit",
    "podman-init",
    "sexton-init",
}


def adopted(process: Process, at: Snapshot) -> str:
    """Why we know that its parent did not fork it, or "".

    A session is inherited over fork and left only by setsid(2), which makes a session of the caller's own
    pid. So a process in a session that is neither its own nor its parent's was forked by somebody else, and
    given to its parent when that one ended. A process that made a session of its own gives no such sign;
    under an init that is known to start one program, what is not that program was adopted all the same.
    """
    parent = at.parent(process)
    if parent is None or process.kernel:
        return ""
    if parent.comm in ONE_CHILD_INITS and (parent.comm in CHILDLESS_INITS or at.oldest(parent.pid) is not process):
        return f"its parent {parent.name} is an init that starts one program at most, and this is not it"
    if process.sid in (process.pid, parent.sid, parent.pid):
        return ""
    leader = at.processes.get(process.sid)
    whose = f"led by {leader.name}" if leader else "its leader has ended"
    return f"its session {process.sid} ({whose}) is neither its own nor that of its parent {parent.name}"
