"""One log file, which is rotated by its size, and the reading of what is in one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sexton.supervise import models

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from sexton.supervise.config import Log

BLOCK = 1 << 16  # bytes that are read at once, from the end backwards
MODE = 0o640

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(models.Line)


def path_of(state: Path, instance: str, log: Log) -> Path:
    """Where the output of an instance goes."""
    return Path(log.directory or state / "logs") / f"{instance}.log"


class LogFile:
    """Takes whole lines, and never raises: what cannot be written is dropped, and counted by the caller.

    torn  what to do with an unfinished line at its end: "drop", the whole of it is going to come again; "seal", it is
          a line
    """

    def __init__(self, path: Path, log: Log, torn: Literal["drop", "seal"]) -> None:
        self.path = path
        self.log = log
        self.error: OSError | None = None  # of the last write, if it failed
        self._fd = -1
        self._size = 0
        with contextlib.suppress(OSError):
            self._open()
            self._mend(torn)

    def write(self, data: bytes) -> int:
        """Write lines, each with its end; gives how many were dropped."""
        self.error = None
        lost = 0
        while 0 < self.log.max_size < self._size + len(data):
            cut = data.rfind(b"\n", 0, max(self.log.max_size - self._size, 0)) + 1
            if not cut and self._size:
                if not self._rotate():
                    break
                continue
            cut = cut or data.find(b"\n") + 1  # a line that is longer than a file may be has one for itself
            lost += self._put(data[:cut])
            data = data[cut:]
            if not data:
                return lost
        return lost + self._put(data)

    def close(self) -> None:
        """No more is written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self._fd = os.open(self.path, flags, MODE)
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self.path, flags, MODE)
        self._size = os.fstat(self._fd).st_size

    def _mend(self, torn: Literal["drop", "seal"]) -> None:
        if not self._size or os.pread(self._fd, 1, self._size - 1) == b"\n":
            return
        if torn == "seal":
            self._put(b"\n")
            return
        end = self._size
        while end:
            begin = max(end - BLOCK, 0)
            found = os.pread(self._fd, end - begin, begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        os.ftruncate(self._fd, end)
        self._size = end

    def _put(self, data: bytes) -> int:
        done = 0
        try:
            if self._fd < 0:
                self._open()
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            self.error = error
            kept = data.rfind(b"\n", 0, done) + 1
            if done > kept:  # of a line all is there, or nothing
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - (done - kept))
            self._size += kept
            return data.count(b"\n", kept)
        self._size += len(data)
        return 0

    def _rotate(self) -> bool:
        """Begin a new file; what was x.log is x.log.1. A rotation that was cut short is finished by the next one."""
        keep = self.log.keep
        try:
            free = next((n for n in range(1, keep) if not self._older(n).exists()), keep)
            if keep:
                # First away with it: to rename onto a file has ext4 write to the disk what is renamed, at once.
                self._older(free).unlink(missing_ok=True)
            for number in range(free, 1, -1):
                os.replace(self._older(number - 1), self._older(number))
            if keep:
                os.replace(self.path, self._older(1))
            else:
                os.unlink(self.path)
        except FileNotFoundError:
            pass  # somebody else has taken it away
        except OSError as error:
            self.error = error
            return False
        self.close()
        self._size = 0
        return True

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


# --- lines ---


def encode(lines: Iterable[models.Line]) -> bytes:
    """As they are in a file of format json."""
    return _encoder.encode_lines(lines)


def split(data: bytes, instance: str, stream: Literal["out", "err"], time: float) -> list[models.Line]:
    """The lines of some output; what is no UTF-8 in it becomes U+FFFD."""
    app = instance.rpartition(".")[0]
    return [
        models.Line(time=time, app=app, instance=instance, stream=stream, text=text.decode(errors="replace"))
        for text in data.removesuffix(b"\n").split(b"\n")
    ]


def tail(path: Path, instance: str, count: int) -> list[models.Line]:
    """The last lines of a log, older files included. In a text file no line has a time (0), and all count as "out"."""
    found: list[models.Line] = []
    for number in range(1000):
        try:
            data = _end(path.with_name(f"{path.name}.{number}") if number else path, count - len(found))
        except OSError:
            break
        found = [*_parse(data, instance), *found]
        if len(found) >= count:
            break
    return found[-count:] if count else []


def _end(path: Path, count: int) -> bytes:
    """The last so many lines of a file, perhaps some more; an unfinished one is still to come."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        data = b""
        while end and data.count(b"\n") <= count:
            begin = max(end - BLOCK, 0)
            file.seek(begin)
            data = file.read(end - begin) + data
            end = begin
    if end:
        data = data[data.find(b"\n") + 1 :]
    return data[: data.rfind(b"\n") + 1]


def _parse(data: bytes, instance: str) -> list[models.Line]:
    if not data:
        return []
    if data.startswith(b'{"time":'):
        with contextlib.suppress(msgspec.MsgspecError):
            return _decoder.decode_lines(data)
    return split(data, instance, "out", 0.0)
