"""Reads what a rule may ask of one process, and remembers what it was refused."""

from __future__ import annotations

import os
import platform
import select
from typing import TYPE_CHECKING, TypeVar

from sexton import proc
from sexton.doctor.evidence import Facts, Wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")

# The numbers of wait4(2), waitid(2) and rt_sigtimedwait(2).
_CALLS = {"x86_64": (61, 247, 128), "aarch64": (260, 95, 137)}.get(platform.machine(), (None, None, None))
_P_ALL, _P_PID, _P_PGID = os.P_ALL, os.P_PID, os.P_PGID
_MOST_THREADS = 256

INITS = frozenset(
    proc.ONE_CHILD_INITS | {"systemd", "init", "s6-svscan", "runit", "runsvdir", "supervise", "openrc-init"}
)
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "busybox"})
_RUNTIMES = {"node": "node", "npm": "node", "yarn": "node", "pnpm": "node", "java": "java", "conmon": "shim"}
_HINTS = ("SHLVL", "_", "npm_lifecycle_event", "KUBERNETES_SERVICE_HOST", "container")


class Looker:
    """Reads of one snapshot's processes; what it may not see adds up in `blind`."""

    def __init__(
        self,
        at: proc.Snapshot,
        containers: Mapping[int, proc.Container],
        groups: Mapping[int, tuple[proc.Membership, ...]],
        mounts: Sequence[proc.Mount],
    ) -> None:
        self.at = at
        self.containers = containers
        self.groups = groups
        self.mounts = mounts
        self._denied: dict[int, list[str]] = {}
        self._reading = 0
        self._freezers: dict[tuple[proc.Membership, ...], str] = {}

    def facts(self, pid: int) -> Facts:
        """Everything of one process."""
        process = self.at.processes[pid]
        self._reading = pid
        root = self.at.root
        status = self._got(proc.status(pid, root), None, "")
        # Reading the arguments or the environment of a process in D can wait for what it waits for.
        safe = process.state != "D" and not process.zombie
        exe = self._exe(pid) if safe else ""
        fds = self._got(proc.fds(pid, root), {}, "open files") if safe else {}
        environ = self._got(proc.environ(pid, root), {}, "environment") if safe else {}
        return Facts(
            process=process,
            status=status,
            namespace=self._got(proc.namespace(pid, "pid", root), 0, "PID namespace"),
            container=self.containers.get(pid),
            wchan=self._got(proc.wchan(pid, root), "", ""),
            stack=self._got(proc.stack(pid, root), (), "") if process.state == "D" else (),
            frozen=self._frozen(pid),
            runtime=runtime(process.comm, exe, self._head(pid) if safe else b""),
            environ={name: environ[name] for name in _HINTS if name in environ},
            args=self._got(proc.cmdline(pid, root), (), "") if safe else (),
            sigwait=status is not None and status.init and self._sigwait(pid),
            waits=self._waits(pid) if process.threads > 1 or self.at.children(pid) else (),
            pipes=frozenset(target for target in fds.values() if target.startswith(("pipe:", "socket:"))),
            stdio=tuple(fds.get(fd, "") for fd in range(3)) if fds else (),
            severed=next((fd for fd in (1, 2) if self._severed(pid, fd, fds.get(fd, ""))), -1),
        )

    def levels(self, scope: frozenset[int]) -> tuple[proc.Level, ...]:
        """pids.max of every cgroup that a process of the scope is in, and of their ancestors."""
        groups = {self.groups[pid] for pid in scope if pid in self.groups}
        return proc.of_chains([proc.directories(lines, self.mounts, "pids") for lines in groups])

    def blind(self) -> list[str]:
        """One sentence for the processes of which the same was refused."""
        groups: dict[str, list[int]] = {}
        for pid, refused in self._denied.items():
            groups.setdefault(" and ".join(dict.fromkeys(refused)), []).append(pid)
        return [
            f"The {what} of {self._names(pids)} may not be read: that needs CAP_SYS_PTRACE, or to be of the same user."
            for what, pids in groups.items()
        ]

    def _names(self, pids: Sequence[int]) -> str:
        names = ", ".join(self.at.processes[pid].name for pid in pids[:3])
        return names if len(pids) <= 3 else f"{names} and {len(pids) - 3} more"

    def _got(self, value: T | proc.Missing, empty: T, what: str) -> T:
        if isinstance(value, proc.Missing):
            if value is proc.Missing.DENIED and what:
                self._denied.setdefault(self._reading, []).append(what)
            return empty
        return value

    def _severed(self, pid: int, fd: int, target: str) -> bool:
        """Whether an output goes to a terminal that was hung up, or to a pipe that nobody has open for reading."""
        if target.startswith("/dev/pts/"):
            return target.endswith(" (deleted)")
        if not target.startswith("pipe:"):
            return False
        try:
            # Another writer for a moment, which writes nothing: a reader would get nothing from it but that moment.
            end = os.open(f"{self.at.root}/{pid}/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            poll = select.poll()
            poll.register(end, 0)
            return any(said & select.POLLERR for _, said in poll.poll(0))
        finally:
            os.close(end)

    def _exe(self, pid: int) -> str:
        try:
            return os.path.basename(os.readlink(f"{self.at.root}/{pid}/exe").removesuffix(" (deleted)"))
        except OSError:
            return ""

    def _head(self, pid: int) -> bytes:
        """The start of the program's file: Go's linker puts its mark behind the first page."""
        try:
            with open(f"{self.at.root}/{pid}/exe", "rb", buffering=0) as program:
                return program.read(4096 + 128)
        except OSError:
            return b""

    def _frozen(self, pid: int) -> str:
        """The innermost cgroup directory that freezes it: version 1's freezer.state, version 2's cgroup.freeze."""
        lines = self.groups.get(pid, ())
        if lines not in self._freezers:
            self._freezers[lines] = self._freezer(lines)
        return self._freezers[lines]

    def _freezer(self, lines: tuple[proc.Membership, ...]) -> str:
        for controller, name, frozen in (("freezer", "freezer.state", b"FROZEN"), ("", "cgroup.freeze", b"1")):
            for directory in proc.directories(lines, self.mounts, controller, probe=name):
                data = proc.read(f"{directory}/{name}")
                if not isinstance(data, proc.Missing) and data.strip() == frozen:
                    return directory
        return ""

    def _sigwait(self, pid: int) -> bool:
        """Whether it sleeps in sigwait, sigwaitinfo or sigtimedwait, which take signals without a handler."""
        call = self._got(proc.syscall(pid, None, self.at.root), None, "system calls")
        return call is not None and call.number == _CALLS[2]

    def _waits(self, pid: int) -> tuple[Wait, ...]:
        """Its threads that sleep in wait4 or waitid, and for whom."""
        threads = proc.threads(pid, self.at.root)
        found = []
        for tid in () if isinstance(threads, proc.Missing) else tuple(threads)[:_MOST_THREADS]:
            call = proc.syscall(pid, tid, self.at.root)
            if isinstance(call, proc.Missing):
                self._got(call, None, "system calls")
                if call is proc.Missing.DENIED:
                    break
            elif wait := wait_of(tid, call):
                found.append(wait)
        return tuple(found)


def wait_of(tid: int, call: proc.Syscall) -> Wait | None:
    """What the thread waits for if the call is a wait; None if it is another."""
    if not call.args:
        return None
    first = call.args[0] & 0xFFFFFFFF
    first = first - (1 << 32) if first >> 31 else first
    if call.number == _CALLS[0]:
        return Wait(tid, first <= 0, max(first, 0))
    if call.number == _CALLS[1]:
        return Wait(tid, first in {_P_ALL, _P_PGID}, call.args[1] if first == _P_PID else 0)
    return None


def runtime(comm: str, exe: str = "", head: bytes = b"") -> str:
    """What kind of program it is, by its name, its file's name and the mark of Go's linker."""
    # busybox is what it is called as.
    for name in (comm, exe if exe != "busybox" else ""):
        if name.startswith("containerd-shim"):
            return "shim"
        if name in INITS:
            return "init"
        if name in _SHELLS:
            return "shell"
        if name in _RUNTIMES:
            return _RUNTIMES[name]
        if name.startswith("python"):
            return "python"
        if name.startswith(("npm ", "node ")):
            return "node"
    return "go" if b"Go build ID:" in head else ""
