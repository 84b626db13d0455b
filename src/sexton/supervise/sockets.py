"""The sockets that apps listen on: opened here, so that they outlive every instance, and passed to each of them.

The convention is that of sd_listen_fds(3): descriptors from 3 on, LISTEN_FDS, LISTEN_FDNAMES, and LISTEN_PID, which
sexton-init sets to the command's own pid where it is 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sexton import _linux, proc
from sexton.errors import SextonError, UsageError
from sexton.proc import Missing
from sexton.supervise import listener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sexton.supervise.config import App

FIRST = 3  # SD_LISTEN_FDS_START
MOST = 32  # that one app can have
_BACKLOG = 4096  # the kernel takes net.core.somaxconn if that is less
# include/net/tcp_states.h: a connection that somebody has or is about to have; no longer in TIME_WAIT.
_ESTABLISHED, _SYN_RECV, _TIME_WAIT, _CLOSE_WAIT, _LISTEN = "01", "03", "06", "08", "0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON in the flags of /proc/net/unix


@dataclass(frozen=True, slots=True)
class Passing:
    """What a command needs to be given its app's sockets: two keywords of subprocess, and more environment."""

    preexec_fn: Callable[[], None]
    pass_fds: tuple[int, ...]
    environment: dict[str, str]


@dataclass(slots=True)
class _Open:
    address: str
    socket: socket.socket
    file: tuple[int, int] | None = None  # device and inode of a unix socket's path


class Sockets:
    """The open sockets of each app.

    To be made before anything else opens descriptors that come and go: it keeps 3 to 34 for itself, so that what
    subprocess opens for its own use is never where a command's sockets go.
    """

    def __init__(self) -> None:
        self._apps: dict[str, dict[str, _Open]] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._watched: set[str] = set()  # the apps whose sockets have a reader
        self._kept: list[int] = []
        self._keep_low()

    def open(self, app: App) -> None:
        """Listen on every address of the app's `listen`, and on no other any more; what is open already stays open.

        Raises SextonError, and has changed nothing then.
        """
        before = {one.address: one for one in self._apps.get(app.name, {}).values()}
        opened: dict[str, _Open] = {}
        try:
            for name, address in app.listen.items():
                opened[name] = before.get(address) or _listen(app.name, name, address)
        except BaseException:
            for one in opened.values():
                if one.address not in before:
                    _close(one)
            raise
        self._stop_waiting(app.name)
        self._apps[app.name] = opened
        for address in before.keys() - set(app.listen.values()):
            _close(before[address])
        self._start_waiting(app.name)

    def adopt(self, app: App, pids: Collection[int]) -> list[str]:
        """Get the app's sockets back from its processes, after a supervisor that was killed; what none has is opened.

        Gives what could be neither got nor opened, and why; those are tried again when an instance is started. To get
        them takes the right to trace the app's processes: root's, or that of their user where Yama does not forbid it.
        """
        opened, problems = self._apps.setdefault(app.name, {}), []
        for name, address in app.listen.items():
            if name in opened:
                continue
            try:
                opened[name] = _get_back(address, pids) or _listen(app.name, name, address)
            except (SextonError, OSError) as error:
                problems.append(str(error))
        return problems

    def fds(self, app: App) -> list[int]:
        """Their descriptors in our process, in the order of the app's `listen`.

        What is not open yet is opened. Raises SextonError.
        """
        opened = self._apps.setdefault(app.name, {})
        for name, address in app.listen.items():
            if name not in opened:
                opened[name] = _listen(app.name, name, address)
        return [opened[name].socket.fileno() for name in app.listen]

    def close(self, app: App) -> None:
        """Listen no more. The files of unix sockets are removed, if they are still these."""
        self._stop_waiting(app.name)
        for future in self._waiting.pop(app.name, ()):
            future.cancel()
        for one in self._apps.pop(app.name, {}).values():
            _close(one)

    async def wait_connection(self, app: App) -> None:
        """Until a connection waits to be accepted, on any of them. Raises SextonError."""
        self.fds(app)
        waiting = self._waiting.setdefault(app.name, set())
        future = asyncio.get_running_loop().create_future()
        waiting.add(future)
        self._start_waiting(app.name)
        try:
            await future
        finally:
            waiting.discard(future)
            if not waiting:
                self._stop_waiting(app.name)

    def names(self, app: App) -> list[str | int]:
        """The paths of its unix sockets that are open, and the ports of the others."""
        found = [one.socket.getsockname() for one in self._apps.get(app.name, {}).values()]
        return [name if isinstance(name, str) else int(name[1]) for name in found]

    def busy(self, pids: Collection[int], app: App) -> bool:
        """Whether these processes have a connection open that came by the app's sockets, or one waits to be accepted.

        One that the client has closed and the app has not yet is still open.
        """
        held: set[str] = set()
        for pid in pids:
            fds = proc.fds(pid)
            held |= set() if isinstance(fds, Missing) else set(fds.values())
        return any(_has_connection(one.socket, held) for one in self._apps.get(app.name, {}).values())

    def _come(self, app: str) -> None:
        self._stop_waiting(app)  # it would be called again and again until somebody accepts
        for future in self._waiting.get(app, ()):
            if not future.done():
                future.set_result(None)

    def _start_waiting(self, app: str) -> None:
        for one in self._apps[app].values() if self._waiting.get(app) else ():
            self._watched.add(app)
            asyncio.get_running_loop().add_reader(one.socket.fileno(), self._come, app)

    def _stop_waiting(self, app: str) -> None:
        if app not in self._watched:
            return
        self._watched.remove(app)
        for one in self._apps.get(app, {}).values():
            asyncio.get_running_loop().remove_reader(one.socket.fileno())

    def _keep_low(self) -> None:
        """Occupy what is free of the descriptors where commands get their sockets."""
        with open(os.devnull, "rb") as low:
            null = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, FIRST + MOST)
        while (fd := fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, FIRST)) < FIRST + MOST:
            self._kept.append(fd)
        os.close(fd)
        os.close(null)

    def forget(self) -> None:
        """Give the descriptors back, and the sockets up, without a change to their files: a successor has them."""
        for opened in self._apps.values():
            for one in opened.values():
                one.socket.close()
        self._apps.clear()
        for fd in self._kept:
            os.close(fd)
        self._kept.clear()


def passing(sockets: Sockets, app: App) -> Passing:
    """How to start a command of the app with its sockets; to be used at once, before any other descriptor is closed.

    Raises SextonError where a socket cannot be opened, UsageError where there are too many.
    """
    if len(app.listen) > MOST:
        raise UsageError(f"{app.name} listens on {len(app.listen)} addresses; {MOST} at most can be passed")
    fds = sockets.fds(app)
    sockets._keep_low()  # noqa: SLF001 - one class in two parts: this one is subprocess' side
    targets = tuple(range(FIRST, FIRST + len(fds)))

    def put() -> None:
        # A socket may be where another is to go: all out of the way first. Those copies are closed before the exec.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST + MOST) for fd in fds]
        for fd, target in zip(high, targets, strict=True):
            os.dup2(fd, target)

    names = ":".join(app.listen)
    return Passing(put, targets, {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names, "LISTEN_PID": "0"})


# --- one socket ---


def _unix(address: str) -> tuple[str, int] | None:
    """The path and the mode of `unix:/path` or `unix:/path?mode=660`; everybody may connect if none is said."""
    if not address.startswith("unix:"):
        return None
    path, _, mode = address.removeprefix("unix:").partition("?mode=")
    if mode and not re.fullmatch("0?[0-7]{3}", mode):
        raise UsageError(f"{address}: mode: {mode!r}: expected an octal number such as 660")
    return path, int(mode or "666", 8)


def _resolve(address: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family, host and port of "HOST:PORT"; without a host all addresses of both families."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host in {"", "*"}:
        host = "::" if _has_ipv6() else "0.0.0.0"  # noqa: S104 - as it is asked for
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, where = found[0]
    return socket.AddressFamily(family), (str(where[0]), int(where[1]))


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as test:
        test.bind(("::", 0))
        return True
    return False


def _listen(app: str, name: str, address: str) -> _Open:
    """Raises SextonError."""
    try:
        if unix := _unix(address):
            return _listen_unix(address, *unix)
        family, where = _resolve(address)
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
            made.bind(where)
            made.listen(_BACKLOG)
        except BaseException:
            made.close()
            raise
        return _Open(address, _away(made))
    except OSError as error:
        raise SextonError(
            f"{app} cannot listen on {address} ({name}): {error.strerror or error}{_who(address, error)}"
        ) from error


def _who(address: str, error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "; ports below net.ipv4.ip_unprivileged_port_start take root or CAP_NET_BIND_SERVICE"
    if error.errno != errno.EADDRINUSE or address.startswith("unix:"):
        return ""
    found = listener.who_listens(int(address.rpartition(":")[2]), ())
    return f"; {found.pid} ({found.name}) listens there" if found.pid else ""


def _listen_unix(address: str, path: str, mode: int) -> _Open:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o777 & ~mode)
    try:
        try:
            made.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(path):
                raise
            os.unlink(path)
            made.bind(path)
        made.listen(_BACKLOG)
        return _Open(address, _away(made), _file(path))
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(mask)


def _is_dead(path: str) -> bool:
    """A socket is there, and nobody listens on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as test:
        try:
            test.connect(path)
        except ConnectionRefusedError:
            return stat.S_ISSOCK(os.lstat(path).st_mode)
        except OSError:
            return False
    return False


def _file(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _away(made: socket.socket) -> socket.socket:
    """The same socket with a descriptor above those that commands get."""
    with made:
        return socket.socket(fileno=fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, FIRST + MOST))


def _close(one: _Open) -> None:
    path = one.socket.getsockname() if one.file else ""
    one.socket.close()
    if path and _file(path) == one.file:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _get_back(address: str, pids: Collection[int]) -> _Open | None:
    """The socket of that address, from a process that has it; None when none has. Raises SextonError, OSError."""
    unix = _unix(address)
    family, where = (socket.AF_UNIX, unix[0]) if unix else _resolve(address)
    inodes = _listening(where)
    for pid in sorted(pids) if inodes else ():
        open_ = proc.fds(pid)
        for fd in () if isinstance(open_, Missing) else [fd for fd, what in open_.items() if what in inodes]:
            try:
                pidfd = os.pidfd_open(pid)
                try:
                    made = socket.socket(fileno=_linux.pidfd_getfd(pidfd, fd))
                finally:
                    os.close(pidfd)
            except OSError as error:
                raise SextonError(
                    f"the socket {address} cannot be got back from process {pid}: {error.strerror}; it is opened again "
                    f"when that process has closed it"
                ) from error
            name = made.getsockname()
            if made.family == family and (name if unix else name[:2]) == where:
                return _Open(address, _away(made), _file(unix[0]) if unix else None)
            made.close()
    return None


def _listening(where: str | tuple[str, int]) -> set[str]:
    """The sockets that listen there, as their descriptors are called in /proc."""
    if isinstance(where, tuple):
        return listener.inodes("/proc/self/net", where[1])
    return {f"socket:[{inode}]" for flags, inode, path in _unix_table() if path == where and flags & _ACCEPTS}


def _unix_table() -> Iterator[tuple[int, str, str]]:
    """Flags, inode and path of the unix sockets that have a path, from /proc/net/unix."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
        next(lines)
        for line in lines:
            fields = line.rstrip("\n").split(maxsplit=7)
            if len(fields) == 8:
                yield int(fields[3], 16), fields[6], fields[7]


def _has_connection(one: socket.socket, held: Collection[str]) -> bool:
    if one.family == socket.AF_UNIX:
        path = one.getsockname()
        return any(
            where == path and not flags & _ACCEPTS and (inode == "0" or f"socket:[{inode}]" in held)
            for flags, inode, where in _unix_table()
        )
    wanted = f":{one.getsockname()[1]:04X}"
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}", encoding="ascii") as lines:
            next(lines)
            for line in lines:
                fields = line.split(maxsplit=10)
                if not fields[1].endswith(wanted) or fields[3] in {_LISTEN, _TIME_WAIT}:
                    continue
                if fields[9] == "0":
                    if fields[3] in {_ESTABLISHED, _SYN_RECV, _CLOSE_WAIT}:
                        return True
                elif f"socket:[{fields[9]}]" in held:
                    return True
    return False
