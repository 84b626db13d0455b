"""What goes through a tree's pipes, both ways at once, for no longer than the tree lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import termios
import time
from typing import IO, TYPE_CHECKING, Any

from sexton.spawn._start import milliseconds

if TYPE_CHECKING:
    from sexton.spawn._tree import Tree

CHUNK = 1 << 16


class Exchange:
    """Feeds stdin, gathers stdout and stderr, and hears the guard, until the tree is over.

    A pipe that a stranger holds does not keep it: when nothing of the tree is left, what is in the pipes is all.
    """

    def __init__(self, tree: Tree, data: Any = None) -> None:
        self._tree = tree
        self._found: dict[int, list[bytes]] = {}
        self._streams: dict[int, IO[Any]] = {}
        self._poll = select.poll()
        self._rest = memoryview(encoded(data, tree.stdin)).cast("B")
        if tree.stdin:
            with contextlib.suppress(BrokenPipeError):
                tree.stdin.flush()
            self._feeding = tree.stdin.fileno()
            if self._rest:
                self._poll.register(self._feeding, select.POLLOUT)
            else:
                self._close_stdin()
        for stream in (tree.stdout, tree.stderr):
            if stream:
                self._streams[stream.fileno()] = stream
                self._found[stream.fileno()] = []
                self._poll.register(stream.fileno(), select.POLLIN)
        self._open = set(self._streams)
        self._out, self._err = (stream.fileno() if stream else -1 for stream in (tree.stdout, tree.stderr))

    def until_over(self, timeout: float | None) -> bool:
        """Go on until the tree is over, or for so many seconds; whether it is over."""
        if timeout is None and not self._open and not self._rest:
            self._tree.wait()  # there is nobody else to listen to
            return True
        until = None if timeout is None else time.monotonic() + timeout
        with self._tree.watched() as guard:
            if guard is not None:
                self._poll.register(guard, select.POLLIN)
            try:
                while not self._over():
                    left = None if until is None else until - time.monotonic()
                    if left is not None and left <= 0:
                        self._tree.listen()
                        return self._over()
                    for fd, _ in self._poll.poll(milliseconds(left)):
                        self._ready(fd)
            finally:
                if guard is not None:
                    self._poll.unregister(guard)
        self._drain()
        return True

    def _over(self) -> bool:
        return self._tree.over or self._tree.held

    def _ready(self, fd: int) -> None:
        if fd in self._streams:
            self._read(fd)
        elif self._tree.stdin and fd == self._feeding:
            self._write(fd)
        else:
            self._tree.listen()

    def _read(self, fd: int) -> bool:
        data = os.read(fd, CHUNK)
        self._found[fd].append(data)
        if not data:
            self._poll.unregister(fd)
            self._open.discard(fd)
        return bool(data)

    def _write(self, fd: int) -> None:
        try:
            self._rest = self._rest[os.write(fd, self._rest[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            self._rest = self._rest[:0]
        if not self._rest:
            self._poll.unregister(fd)
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._tree.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._tree.stdin.close()

    def _drain(self) -> None:
        """Nobody of the tree writes any more: take what is there, and wait for nobody."""
        for fd in self._open:
            self._found[fd].append(rest_of(fd))

    def pipes(self) -> dict[str, int]:
        """The descriptors of those that have not ended, by name."""
        names = {self._out: "stdout", self._err: "stderr"}
        return {names[fd]: fd for fd in self._open}

    def bytes(self) -> tuple[bytes | None, bytes | None]:
        """What came of stdout and stderr so far; None for one that is no pipe."""
        out, err = (b"".join(self._found[fd]) if fd in self._found else None for fd in (self._out, self._err))
        return out, err

    def result(self) -> tuple[Any, Any]:
        """The same as the caller asked for it: text, if the streams are text."""
        out, err = self.bytes()
        return decoded(out, self._tree.stdout), decoded(err, self._tree.stderr)


def rest_of(fd: int) -> bytes:
    """What is in a pipe now: a stranger, or who was left behind, may write more for ever."""
    size = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    return os.read(fd, size) if size else b""


def encoded(data: Any, stream: IO[Any] | None) -> Any:
    """Input as bytes, if the stream is text."""
    if data is None or stream is None:
        return b""
    encoding = getattr(stream, "encoding", None)
    return data.encode(encoding, stream.errors) if encoding else data  # type: ignore[attr-defined]


def decoded(data: bytes | None, stream: IO[Any] | None) -> Any:
    """Output as text, if the stream is text."""
    encoding = getattr(stream, "encoding", None)
    if data is None or stream is None or not encoding:
        return data
    text = data.decode(encoding, stream.errors)  # type: ignore[attr-defined]
    return text.replace("\r\n", "\n").replace("\r", "\n")
