"""What sexton knows of processes: tuples without behaviour beyond naming themselves."""

from __future__ import annotations

import enum
from typing import NamedTuple

# The bits of `Process.flags` that sexton reads (include/linux/sched.h).
PF_EXITING = 0x4
PF_FORKNOEXEC = 0x40
PF_KTHREAD = 0x200000


class Missing(enum.Enum):
    """Why there is no value: processes come and go and hide, so this is an answer and not an error."""

    GONE = "gone"
    DENIED = "denied"
    ABSENT = "absent"


class Process(NamedTuple):
    """One process or thread as its `stat` file has it; pids as the PID namespace of the /proc mount sees
    them.

    `start` is in clock ticks since boot, and (pid, start) names a process for good. `rss` is in bytes. In
    `comm`, bytes that are no UTF-8 are surrogates: `os.fsencode` gives them back, `printable` shows them.
    proc_pid_stat(5).
    """

    pid: int
    ppid: int
    pgid: int
    sid: int
    state: str
    comm: str
    threads: int
    start: int
    flags: int
    exit_signal: int
    rss: int

    @property
    def zombie(self) -> bool:
        """Dead and not reaped."""
        return self.state == "Z"

    @property
    def kernel(self) -> bool:
        """A thread of the kernel."""
        return bool(self.flags & PF_KTHREAD)

    @property
    def name(self) -> str:
        """For a person: `nginx[12]`."""
        return f"{printable(self.comm)}[{self.pid}]"


class Status(NamedTuple):
    """What `status` adds; masks are sets of signals for `has`; memory in bytes. proc_pid_status(5).

    `ns_pids` has the pid in each PID namespace from the /proc mount's down to the process's own; it is (pid,)
    where the kernel does not tell.
    """

    pid: int
    tgid: int
    ppid: int
    tracer: int
    uid: int
    euid: int
    gid: int
    egid: int
    ns_pids: tuple[int, ...]
    ns_pgids: tuple[int, ...]
    ns_sids: tuple[int, ...]
    pending: int
    shared_pending: int
    blocked: int
    ignored: int
    caught: int
    cap_effective: int
    no_new_privs: bool
    seccomp: int
    threads: int
    rss: int
    swap: int

    @property
    def init(self) -> bool:
        """It is PID 1 of its own PID namespace."""
        return self.ns_pids[-1] == 1


class Brief(NamedTuple):
    """The part of `status` that is asked of every process; `ns_pid` is the pid in its own PID namespace."""

    uid: int
    tracer: int
    ns_pid: int
    ignored: int
    caught: int


class Syscall(NamedTuple):
    """The system call a thread sleeps in; `number` is -1 outside of one, -2 where the thread is running."""

    number: int
    args: tuple[int, ...]
    sp: int
    pc: int


class Membership(NamedTuple):
    """One line of a `cgroup` file; version 2 is hierarchy 0 without controllers. cgroups(7)."""

    hierarchy: int
    controllers: tuple[str, ...]
    path: str


class Container(NamedTuple):
    """The container that a cgroup path names; `engine` is "" where the path does not tell, `pod` is ""
    outside Kubernetes.
    """

    id: str
    engine: str
    pod: str

    @property
    def short(self) -> str:
        """The id as the engines print it."""
        return self.id[:12]


class Mount(NamedTuple):
    """One line of a `mountinfo` file. proc_pid_mountinfo(5)."""

    root: str
    point: str
    kind: str
    source: str
    options: tuple[str, ...]


def has(mask: int, signum: int) -> bool:
    """Whether the signal is in the mask."""
    return bool(mask >> (signum - 1) & 1)


def printable(text: str) -> str:
    r"""The text with what a terminal must not see (control characters, bytes that are no UTF-8) as `\xNN`."""
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a surrogate that stands for one undecodable byte
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
