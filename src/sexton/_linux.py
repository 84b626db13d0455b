"""The only ctypes: prctl, ptrace, namespaces, mounts, tee; and the proc connector, which is a socket.

Every function raises `OSError` with the errno that the kernel gave, and none that changes anything does more
than one system call, so that a caller can say what state it is in between any two of them. pids are those of
the caller's PID namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.pivot_root.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_libc.tee.restype = ctypes.c_ssize_t


def _checked(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


# --- prctl(2) ---

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def set_pdeathsig(signum: int) -> None:
    """Ask for a signal when the parent thread ends; not inherited by children. PR_SET_PDEATHSIG(2const)."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def set_child_subreaper(on: bool = True) -> None:
    """Adopt the orphans among the descendants, or stop doing so. PR_SET_CHILD_SUBREAPER(2const)."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


# --- namespaces and mounts ---

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2


def unshare(flags: int) -> None:
    """Leave the namespaces of those kinds (CLONE_*) for new ones; a PID namespace begins with the next child.

    Source: unshare(2).
    """
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a file system of that kind, or change what is mounted, as the flags (MS_*) say."""
    arguments = (os.fsencode(text) for text in (source, target, kind))
    _checked(_libc.mount(*arguments, flags, os.fsencode(data)), f"mount {kind or source} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root directory, and put the old one at `old`."""
    _checked(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), f"pivot_root {new}")


# --- tee(2) ---

_SPLICE_F_NONBLOCK = 2


def tee(source: int, target: int, count: int) -> int:
    """Put what is in one pipe, `count` bytes at most, into another one as well; gives how many. Never waits.

    Raises BlockingIOError where the one is empty or the other full. Source: tee(2).
    """
    return _checked(_libc.tee(source, target, count, _SPLICE_F_NONBLOCK), "tee")


# --- pidfd_getfd(2) ---

_SYS_PIDFD_GETFD = 438  # the same on every machine


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of another process's descriptor, close-on-exec. Needs the right to trace it; Linux 5.6."""
    return _checked(_libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0), "pidfd_getfd")


# --- ptrace(2) ---

PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
_PTRACE_GETREGSET = 0x4204
_PTRACE_SETREGSET = 0x4205
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_GETSIGMASK = 0x420A
_PTRACE_SETSIGMASK = 0x420B
_PTRACE_SECCOMP_GET_FILTER = 0x420C
_PTRACE_GET_RSEQ_CONFIGURATION = 0x420F

PTRACE_O_TRACESYSGOOD = 1
PTRACE_EVENT_STOP = 128

NT_PRSTATUS = 1

WALL = 0x40000000  # __WALL: children made by clone, and any tracee thread

_REGSET_ROOM = 64 * 1024  # the largest x86 state today, AMX included, is 11 KB


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


# One buffer for every register set, locked into memory by `ptrace_seize`: on x86 the kernel copies registers
# in one by one, and a SIGKILL that met a page fault in the middle of that would leave the tracee with half of
# them.
_buffer = ctypes.create_string_buffer(_REGSET_ROOM)


def _ptrace(request: int, tid: int, address: int | None, data: int | None) -> int:
    return _checked(_libc.ptrace(request, tid, address, data), f"ptrace {request:#x} on {tid}")


def ptrace_seize(tid: int, options: int = 0) -> None:
    """Become the tracer of one thread, without stopping it."""
    _libc.mlock(_buffer, _REGSET_ROOM)  # best effort: RLIMIT_MEMLOCK may say no
    _ptrace(_PTRACE_SEIZE, tid, None, options)


def ptrace_interrupt(tid: int) -> None:
    """Ask a seized thread to stop; `os.waitid` tells when it has."""
    _ptrace(_PTRACE_INTERRUPT, tid, None, None)


def ptrace_resume(request: int, tid: int, signum: int = 0) -> None:
    """Let a stopped thread go on (PTRACE_CONT, PTRACE_SYSCALL, PTRACE_DETACH), delivering a signal."""
    _ptrace(request, tid, None, signum)


def ptrace_get_registers(tid: int, kind: int) -> bytes:
    """A register set of a stopped thread (NT_PRSTATUS, NT_X86_XSTATE, ...), laid out as in a core dump."""
    iovec = _Iovec(ctypes.addressof(_buffer), _REGSET_ROOM)
    _ptrace(_PTRACE_GETREGSET, tid, kind, ctypes.addressof(iovec))
    return ctypes.string_at(_buffer, iovec.length)


def ptrace_set_registers(tid: int, kind: int, content: bytes) -> None:
    """Replace a whole register set of a stopped thread."""
    ctypes.memmove(_buffer, content, len(content))
    iovec = _Iovec(ctypes.addressof(_buffer), len(content))
    _ptrace(_PTRACE_SETREGSET, tid, kind, ctypes.addressof(iovec))


def ptrace_get_signal_mask(tid: int) -> int:
    """The signals that a stopped thread blocks, bit n-1 for signal n; its own while ppoll(2) lends others."""
    mask = ctypes.c_uint64()
    _ptrace(_PTRACE_GETSIGMASK, tid, ctypes.sizeof(mask), ctypes.addressof(mask))
    return mask.value


def ptrace_set_signal_mask(tid: int, mask: int) -> None:
    """Replace the signal mask of a stopped thread."""
    value = ctypes.c_uint64(mask)
    _ptrace(_PTRACE_SETSIGMASK, tid, ctypes.sizeof(value), ctypes.addressof(value))


def ptrace_get_rseq(tid: int) -> int:
    """Where a stopped thread has its `struct rseq`; 0 for nowhere, or before Linux 5.13."""
    configuration = (ctypes.c_uint64 * 3)()  # pointer, then size, signature, flags, padding
    try:
        _ptrace(
            _PTRACE_GET_RSEQ_CONFIGURATION,
            tid,
            ctypes.sizeof(configuration),
            ctypes.addressof(configuration),
        )
    except OSError:
        return 0
    return int(configuration[0])


def ptrace_get_seccomp_filter(tid: int, index: int) -> bytes:
    """The index-th seccomp filter of a stopped thread, the newest first, 8 bytes an instruction.

    ENOENT is past the last one, EACCES or EPERM the lack of CAP_SYS_ADMIN. Source: linux/ptrace.h.
    """
    count = _ptrace(_PTRACE_SECCOMP_GET_FILTER, tid, index, None)
    program = ctypes.create_string_buffer(count * 8)
    _ptrace(_PTRACE_SECCOMP_GET_FILTER, tid, index, ctypes.addressof(program))
    return program.raw


# --- the proc connector: linux/cn_proc.h, linux/connector.h ---

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC, _CN_VAL_PROC = 1, 1
_PROC_CN_MCAST_LISTEN, _PROC_CN_MCAST_IGNORE = 1, 2
_FORK, _EXEC, _EXIT = 0x1, 0x2, 0x80000000
_KINDS: dict[int, Literal["fork", "exec", "exit"]] = {_FORK: "fork", _EXEC: "exec", _EXIT: "exit"}
_WHAT_AT, _DATA_AT = 36, 52  # offsets of proc_event.what and of its data in a message
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_RECEIVE_ROOM = 8 << 20
# Classic BPF, bpf(4): load a word, jump if equal, return.
_LD, _LD_HALF, _JEQ, _RET = 0x20, 0x28, 0x15, 0x06
_WORD = 0xFFFFFFFF


class ProcEvent(NamedTuple):
    """One event of the proc connector; pids as the first PID namespace sees them.

    `pid` is the thread it is about and `tgid` its process (of a fork: the new one). `parent_*` is the
    forker of a fork and the parent at the time of an exit, 0 for an exec. `code` is the wait status of an
    exit. "lost" says that the kernel dropped events because they were not read in time.
    """

    kind: Literal["fork", "exec", "exit", "lost"]
    pid: int = 0
    tgid: int = 0
    parent_pid: int = 0
    parent_tgid: int = 0
    code: int = 0


class ProcConnector:
    """The kernel's feed of the forks, execs and exits of the whole machine, to wait on and read from.

    `kinds` narrows it in the kernel, and `forker` the forks to those by one process (a pid), so that what is not
    asked for wakes nobody. Raises `OSError`: EPERM without CAP_NET_ADMIN (before Linux 6.6), ECONNREFUSED or
    ENOTCONN where the kernel has none; EPERM too in a PID namespace other than the first, which the kernel would
    leave waiting forever.
    """

    def __init__(
        self, kinds: Sequence[Literal["fork", "exec", "exit"]] = ("fork", "exec", "exit"), forker: int = 0
    ) -> None:
        if os.stat("/proc/self/ns/pid").st_ino != 0xEFFFFFFC:  # PROC_PID_INIT_INO, include/linux/proc_ns.h
            raise PermissionError(1, "only the first PID namespace is told of processes", "proc connector")
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_CONNECTOR)
        try:
            self._filter(kinds, forker)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_ROOM)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_ROOM)
            self._socket.bind((0, _CN_IDX_PROC))
            self._say(_PROC_CN_MCAST_LISTEN)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def _filter(self, kinds: Sequence[str], forker: int) -> None:
        """Pass the kinds asked for; the words of a message come in network order, as bpf(4) loads them."""
        wanted = [socket.htonl(what) for what, kind in _KINDS.items() if kind in kinds]
        code = [(_LD, 0, 0, _WHAT_AT)]
        code += [(_JEQ, len(wanted) - at, 0, what) for at, what in enumerate(wanted)]
        code += [(_RET, 0, 0, 0)]
        if forker:  # a fork must be by that process; what is no fork jumps over the next three
            code += [(_JEQ, 0, 3, socket.htonl(_FORK)), (_LD, 0, 0, _DATA_AT + 4)]
            code += [(_JEQ, 1, 0, socket.htonl(forker)), (_RET, 0, 0, 0)]
        code += [(_RET, 0, 0, _WORD)]
        _attach(self._socket, code)

    def _say(self, operation: int) -> None:
        size = 16 + 20 + 4
        message = struct.pack("=IHHII", size, 3, 0, 0, os.getpid())  # NLMSG_DONE
        message += struct.pack("=IIIIHH", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0)
        self._socket.send(message + struct.pack("=I", operation))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the close says it too
            self._say(_PROC_CN_MCAST_IGNORE)
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, readable when there are events."""
        return self._socket.fileno()

    def read(self) -> list[ProcEvent]:
        """Every event that is there now, which may be none; never blocks."""
        events: list[ProcEvent] = []
        while True:
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                return events
            except OSError as error:
                if error.errno != 105:  # ENOBUFS: the kernel had to drop some
                    raise
                events.append(ProcEvent("lost"))
                continue
            event = parse_proc_event(message)
            if event:
                events.append(event)


def closed_connections(ports: Sequence[int]) -> socket.socket:
    """A socket that is readable once a TCP connection to one of those ports of this network namespace has ended.

    To be closed then. Whose the connection was does not matter. Raises OSError where the kernel has no inet_diag.
    Source: SKNLGRP_INET_TCP_DESTROY, linux/sock_diag.h; struct inet_diag_msg after the header.
    """
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 4)
    try:
        source, destination = 16 + 4, 16 + 6  # idiag_sport, idiag_dport; no destination: it was who listens
        code = [(_LD_HALF, 0, 0, destination), (_JEQ, len(ports) + 1, 0, 0), (_LD_HALF, 0, 0, source)]
        code += [(_JEQ, len(ports) - at, 0, port) for at, port in enumerate(ports)]
        code += [(_RET, 0, 0, 0), (_RET, 0, 0, _WORD)]
        _attach(made, code)
        made.bind((0, 1 << 0 | 1 << 2))  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
    except BaseException:
        made.close()
        raise
    return made


def _attach(to: socket.socket, code: Sequence[tuple[int, int, int, int]]) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    header = struct.pack("HP", len(code), ctypes.addressof(program))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


def parse_proc_event(message: bytes) -> ProcEvent | None:
    """A netlink message of the proc connector; None for what is no fork, exec or exit."""
    if len(message) < _DATA_AT + 8:
        return None
    (what,) = struct.unpack_from("=I", message, _WHAT_AT)
    kind = _KINDS.get(what)
    if kind is None:
        return None
    words = struct.unpack_from(f"={min(6, (len(message) - _DATA_AT) // 4)}I", message, _DATA_AT)
    if kind == "fork" and len(words) >= 4:
        return ProcEvent(kind, words[2], words[3], words[0], words[1])
    if kind == "exit" and len(words) >= 4:
        parents = words[4:6] if len(words) >= 6 else (0, 0)  # before Linux 4.18 it does not tell them
        return ProcEvent(kind, words[0], words[1], parents[0], parents[1], words[2])
    if kind == "exec":
        return ProcEvent(kind, words[0], words[1])
    return None
