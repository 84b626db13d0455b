"""The socket on which an instance says how it is, by the protocol of sd_notify(3)."""

from __future__ import annotations

import array
import asyncio
import hashlib
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1 << 14  # bytes that a datagram may have
FDS = 253  # descriptors that the kernel lets one bring
STATUS = 500  # characters of a status that are kept
AT_ONCE = 64  # datagrams that are read before others have their turn
_CREDENTIALS = struct.Struct("3i")


def _nothing(_: str = "") -> None:
    pass


class Notify:
    """What an instance said of itself since it was started, or since reset().

    path        where the socket is made; what an earlier supervisor left there is replaced
    accept      whether a pid is of the instance's tree: others are not listened to
    on_change   called after each message that changed something
    on_message  called with what was refused or ignored, and why, for people
    abstract    the socket's name is not in the file system: for an instance of another user, who may not go where
                `path` is; the name is made from `path`, so that the next supervisor has the same

    ready       set by READY=1
    status      its own words for what it does, one line, without control characters
    stopping, reloading    it said so
    errno       ERRNO=, 0 if it said nothing
    beats       how many WATCHDOG=1 there were
    triggered   WATCHDOG=trigger: it knows by itself that it is not well
    watchdog    seconds between two beats, if it asked for others by WATCHDOG_USEC=
    listeners   are called like on_change, by whoever wants to
    extended    the moment (of the loop's clock) until which it asked to be waited for by EXTEND_TIMEOUT_USEC=

    Raises OSError where the socket cannot be made.
    """

    def __init__(
        self,
        path: Path,
        accept: Callable[[int], bool],
        on_change: Callable[[], None] = _nothing,
        on_message: Callable[[str], None] = _nothing,
        *,
        abstract: bool = False,
    ) -> None:
        self.listeners: set[Callable[[], None]] = set()
        self.ready = asyncio.Event()
        self.reset()
        self._accept = accept
        self._on_change = on_change
        self._on_message = on_message
        self._news = asyncio.Event()
        self._said: set[str] = set()  # what people were told once is not told again
        self._loop = asyncio.get_running_loop()
        self._path = None if abstract else path
        self.address = f"@sexton-{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}" if abstract else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if abstract:
                self._socket.bind("\0" + self.address[1:])
            else:
                path.unlink(missing_ok=True)
                self._socket.bind(str(path))
                path.chmod(0o600)
        except BaseException:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._receive)

    def reset(self) -> None:
        """Forget what was said: the instance is started anew."""
        self.ready.clear()
        self.status = ""
        self.stopping = False
        self.reloading = False
        self.errno = 0
        self.beats = 0
        self.triggered = False
        self.watchdog: float | None = None
        self.extended = 0.0

    def environment(self, watchdog: float | None = None) -> dict[str, str]:
        """What the instance is to have in its environment; `watchdog`: seconds between two beats that are expected.

        WATCHDOG_PID is not set: which process of the tree beats is its own affair.
        """
        found = {"NOTIFY_SOCKET": self.address}
        if watchdog is not None:
            found["WATCHDOG_USEC"] = str(round(watchdog * 1e6))
        return found

    async def change(self) -> None:
        """Wait for the next message that changes something."""
        await self._news.wait()

    def close(self) -> None:
        """Listen no more; more than once is allowed."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            if self._path:
                self._path.unlink(missing_ok=True)

    # --- what comes ---

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, extra, flags, _ = self._socket.recvmsg(
                    SIZE, socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(FDS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            pid, fds = _unpack(extra)
            try:
                self._take(data, pid, whole=not flags & socket.MSG_TRUNC)
            finally:
                for fd in fds:  # those of a BARRIER=1 as well: that we close it is what its sender waits for
                    os.close(fd)

    def _take(self, data: bytes, pid: int, *, whole: bool) -> None:
        if not whole:
            self._tell(f"a message of process {pid} has more than {SIZE} bytes, and was ignored")
            return
        words = dict(line.partition("=")[::2] for line in data.decode(errors="replace").split("\n") if "=" in line)
        words.pop("BARRIER", None)
        if not words:
            return
        if not self._accept(pid):
            gone = "" if Path(f"/proc/{pid}").exists() else " (it has ended: a sender has to wait until it is heard)"
            self._tell(f"{', '.join(words)} came from process {pid}, which is not of this instance{gone}: ignored")
        elif sum(self._word(key, value, pid) for key, value in words.items()):
            self._on_change()
            for listener in list(self.listeners):
                listener()
            self._news.set()
            self._news = asyncio.Event()

    def _word(self, key: str, value: str, pid: int) -> bool:  # noqa: C901 - a table: one case, one line
        """Whether it changed anything."""
        match key, value:
            case "READY", "1":
                self.reloading = False
                self.ready.set()
            case "STATUS", _:
                self.status = "".join(letter if letter.isprintable() else " " for letter in value[:STATUS])
            case "WATCHDOG", "1":
                self.beats += 1
            case "WATCHDOG", "trigger":
                self.triggered = True
            case "STOPPING", "1":
                self.stopping = True
            case "RELOADING", "1":
                self.reloading = True
            case "WATCHDOG_USEC", _ if value.isdecimal() and int(value):
                self.watchdog = int(value) / 1e6
            case "EXTEND_TIMEOUT_USEC", _ if value.isdecimal():
                self.extended = max(self.extended, self._loop.time() + int(value) / 1e6)
            case "ERRNO", _ if value.isdecimal():
                self.errno = int(value)
            case "MAINPID", _:
                self._tell(
                    f"MAINPID={value} of process {pid} was ignored: the main process is the command that we started"
                )
                return False
            case (("FDSTORE" | "FDSTOREREMOVE" | "FDNAME" | "FDPOLL"), _):
                self._tell(f"{key}={value} of process {pid} was refused: no descriptors are kept here")
                return False
            case _:
                return False  # MONOTONIC_USEC=, and whatever an application says to others
        return True

    def _tell(self, text: str) -> None:
        key = text.partition(" of process ")[0] if " of process " in text else text.partition(" came ")[0]
        if key not in self._said and len(self._said) < 100:
            self._said.add(key)
            self._on_message(text)


def _unpack(extra: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """The sender's pid (0: not to be seen from here), and the descriptors that it sent."""
    pid, fds = 0, array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return pid, list(fds)
