"""One file of one process: each function takes the pid and the /proc root and returns the value, or why there
is none.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

from sexton.proc import _parse
from sexton.proc._model import Brief, Membership, Missing, Mount, Process, Status, Syscall

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PROC = "/proc"
# Files of /proc have no size to ask for.
_CHUNK = 1 << 16


def read(path: str) -> bytes | Missing:
    """The bytes of a file of /proc or of a cgroup; here, and only here, errno becomes an answer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return why(error)
    try:
        # A short read is not the end: a file of many records stops wherever the next one does not fit into
        # its page.
        parts = []
        while data := os.read(fd, _CHUNK):
            parts.append(data)
        return b"".join(parts)
    except OSError as error:
        return why(error)
    finally:
        os.close(fd)


def why(error: OSError) -> Missing:
    """What an errno says of the process; raises what is about this process, as EMFILE."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Missing.DENIED
    if error.errno in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR):
        return Missing.GONE
    # EINVAL and ENODATA of a file that this process or kernel has no answer in, EISDIR, EIO, EMFILE …
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR):
        raise error
    return Missing.ABSENT


def _value(pid: int, name: str, root: str, parse: Callable[[bytes], T]) -> T | Missing:
    data = read(f"{root}/{pid}/{name}")
    if isinstance(data, Missing):
        # The process is there and the file is not: another kernel, or a zombie, which has no exe and no
        # ns/mnt.
        if data is Missing.GONE and os.path.isdir(f"{root}/{pid}"):
            return Missing.ABSENT
        return data
    try:
        return parse(data)
    except ValueError:
        # A process that ends between open and read gives an empty or a short file.
        return Missing.GONE if not data else Missing.ABSENT


def stat(pid: int, root: str = PROC) -> Process | Missing:
    """What a snapshot has of one process."""
    return _value(pid, "stat", root, _parse.stat)


def status(pid: int, root: str = PROC) -> Status | Missing:
    """Uids, signal masks, the pid in each namespace, the tracer and memory."""
    return _value(pid, "status", root, _parse.status)


def brief(pid: int, root: str = PROC) -> Brief | Missing:
    """The part of `status` that is asked of every process."""
    return _value(pid, "status", root, _parse.brief)


def ids(pid: int, root: str = PROC) -> tuple[int, int] | Missing:
    """(real uid, pid of the tracer or 0): the cheapest part of `status`."""
    value = brief(pid, root)
    return value if isinstance(value, Missing) else (value.uid, value.tracer)


def cmdline(pid: int, root: str = PROC) -> tuple[str, ...] | Missing:
    """The arguments; () of a zombie and of a kernel thread. Can hang when the process is in state D: read
    `wchan` first.
    """
    return _value(pid, "cmdline", root, _parse.strings)


def environ(pid: int, root: str = PROC) -> dict[str, str] | Missing:
    """The environment that the program was started with."""
    return _value(pid, "environ", root, _parse.environ)


def wchan(pid: int, root: str = PROC) -> str | Missing:
    """The kernel function that the process sleeps in; "" when it does not sleep, or none is told."""
    value = _value(pid, "wchan", root, _parse.text)
    return "" if value == "0" else value


def syscall(pid: int, tid: int | None = None, root: str = PROC) -> Syscall | Missing:
    """The system call that the process (or its thread `tid`) is in. Needs the right to trace."""
    return _value(pid, "syscall" if tid is None else f"task/{tid}/syscall", root, _parse.syscall)


def stack(pid: int, root: str = PROC) -> tuple[str, ...] | Missing:
    """The kernel's stack, innermost function first. Needs CAP_SYS_ADMIN in the first user namespace."""
    return _value(pid, "stack", root, lambda data: tuple(_parse.text(data).splitlines()))


def limits(pid: int, root: str = PROC) -> dict[str, tuple[int | None, int | None]] | Missing:
    """The resource limits as (soft, hard); None is unlimited."""
    return _value(pid, "limits", root, _parse.limits)


def cgroups(pid: int, root: str = PROC) -> tuple[Membership, ...] | Missing:
    """The cgroup in each hierarchy. On version 1 a zombie's are all `/`."""
    return _value(pid, "cgroup", root, _parse.cgroups)


def mounts(pid: int | str = "self", root: str = PROC) -> tuple[Mount, ...] | Missing:
    """The mounts that the process sees."""
    data = read(f"{root}/{pid}/mountinfo")
    return data if isinstance(data, Missing) else _parse.mounts(data)


def namespace(pid: int, kind: str = "pid", root: str = PROC) -> int | Missing:
    """The inode that names a namespace of the process; a zombie still has its `pid` namespace. Needs the
    right to trace it.
    """
    try:
        target = os.readlink(f"{root}/{pid}/ns/{kind}")
    except OSError as error:
        return why(error)
    digits = target.partition("[")[2].rstrip("]")
    return int(digits) if digits.isdecimal() else Missing.ABSENT


def fds(pid: int, root: str = PROC) -> dict[int, str] | Missing:
    """What each open file descriptor is: a path, `pipe:[123]`, `socket:[123]`. Needs the right to trace."""
    found: dict[int, str] = {}
    try:
        with os.scandir(f"{root}/{pid}/fd") as entries:
            for entry in entries:
                try:
                    found[int(entry.name)] = os.readlink(entry.path)
                except OSError:
                    continue  # closed since it was listed
    except OSError as error:
        return why(error)
    return found


def threads(pid: int, root: str = PROC) -> dict[int, Process] | Missing:
    """The `stat` of each thread by tid."""
    tids = _tids(pid, root)
    if isinstance(tids, Missing):
        return tids
    found: dict[int, Process] = {}
    for tid in tids:
        value = _value(pid, f"task/{tid}/stat", root, _parse.stat)
        if not isinstance(value, Missing):
            found[tid] = value
    return found


def children_pids(pid: int, root: str = PROC) -> tuple[int, ...] | Missing:
    """The children of every thread, zombies too, in one read a thread. Needs CONFIG_PROC_CHILDREN."""
    tids = _tids(pid, root)
    if isinstance(tids, Missing):
        return tids
    found: list[int] = []
    for tid in tids:
        value = _value(pid, f"task/{tid}/children", root, _parse.pid_list)
        if isinstance(value, Missing):
            if os.path.isdir(f"{root}/{pid}/task/{tid}"):
                return value
            continue  # that thread has ended
        found += value
    return tuple(found)


def _tids(pid: int, root: str) -> list[int] | Missing:
    try:
        return sorted(int(name) for name in os.listdir(f"{root}/{pid}/task") if name.isdecimal())
    except OSError as error:
        return why(error)
