"""The supervisor's ledger: which trees it started, written before each start; how each ended; read after a crash.

An append-only file of JSON lines, `ledger` in the state directory:
  {"event": "epoch", "epoch": 3, "pid": 9, "start": 123, "boot": "...", "time": ...}
  {"event": "start", "epoch": 3, "tree": "...", "instance": "web.0", "app": "web", "command": [...], ...}
  {"event": "ready", "tree": "..."}
  {"event": "exit", "tree": "...", "instance": "web.0", "code": 0, ...}
  {"event": "left", "tree": "...", "killed": [[9, 123]]}
  {"event": "end", "tree": "..."}
Room for lines to come is reserved on the disk (NUL bytes at the end of the file), so that it can be written when the
disk is full. Beginning a new epoch writes the file anew, without what is over; so does a line with which what is over
outweighs the rest. Where the disk has no room for a new file, the old one goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from sexton.spawn import Process, _ledger, _owner, _processes, _rescue
from sexton.spawn._ledger import boot
from sexton.supervise import limits, models

RESERVE = 1 << 20  # bytes; some four thousand starts and exits
KEEP_EXITS = 1000  # that a new epoch remembers
LONG = 1 << 22  # bytes; a shorter file is not written anew
OUTWEIGHED = 4  # nor is one that has grown to less than so many times what it was


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A tree that was started, and of which no end is written."""

    tree: str
    instance: str
    app: str
    epoch: int
    command: tuple[str, ...]
    policy: str
    listen: str | None = None
    ports: dict[str, int] = {}
    started: float = 0.0
    restarts: int = 0
    until: float | None = None  # unix seconds: expiration's hard maximum
    cgroup: str | None = None
    settings: str = ""  # a digest of what the app was started with
    killed: tuple[tuple[int, int], ...] = ()  # (pid, start) of who was alive even after SIGKILL

    @property
    def survivors(self) -> list[Process]:
        """Those who were; their names are not known."""
        return [Process(pid, 0, "", "", start) for pid, start in self.killed]

    def end(self, patience: float = _rescue.DYING) -> str:
        """End its tree, whose supervisor is dead: "was gone" or "ended".

        Raises LeftoversError for who has not died so many seconds after SIGKILL.
        """
        entry = _ledger.Entry(self.tree, self.epoch, list(self.command), self.listen)
        how = _owner.end(entry, patience=patience, killed=self.survivors)
        if self.cgroup:
            limits.remove(Path(self.cgroup))
        return how


class Exited(msgspec.Struct, frozen=True, kw_only=True):
    """How the command of a tree ended."""

    tree: str
    instance: str
    exit: models.Exit


class Journal:
    """The ledger of one state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epoch = 0
        self.boot = ""
        self.open: dict[str, Entry] = {}
        self.ready: set[str] = set()
        self.exits: list[Exited] = []
        self.unwritten: list[bytes] = []  # while the disk is full
        self._fd = -1
        self._end = 0
        self._room = 0
        self._whole = True  # the last line has its end
        self._long = LONG  # bytes, from which on it is time to write it anew
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            self._end, self._room = len(data.rstrip(b"\0")), len(data)
            self._whole = data[: self._end].endswith(b"\n")
            for line in data.split(b"\n"):
                with contextlib.suppress(msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError):
                    self._take(msgspec.json.decode(line.strip(b"\0")))
        if self.boot != boot():
            self.open.clear()
            self.ready.clear()

    def _take(self, line: dict[str, Any]) -> None:
        match line["event"]:
            case "epoch":
                self.epoch = int(line["epoch"])
                if self.boot != line["boot"]:  # nothing survives a boot
                    self.boot = str(line["boot"])
                    self.open.clear()
                    self.ready.clear()
            case "start":
                entry = msgspec.convert(line, Entry)
                self.open[entry.tree] = entry
            case "left":
                entry = self.open[line["tree"]]
                killed = msgspec.convert(line["killed"], tuple[tuple[int, int], ...])
                self.open[entry.tree] = msgspec.structs.replace(entry, killed=killed)
            case "ready":
                self.ready.add(str(line["tree"]))
            case "exit":
                self.exits = [*self.exits[-KEEP_EXITS:], msgspec.convert(line, Exited)]
            case "end":
                self.open.pop(str(line["tree"]), None)
                self.ready.discard(str(line["tree"]))

    def announce(self) -> int:
        """A new epoch: this process. Writes the file anew, where there is room for that. Raises OSError."""
        self.epoch, self.boot = self.epoch + 1, boot()
        try:
            self._rewrite()
        except OSError as error:
            try:
                self._go_on()
            except OSError:
                raise error from None
        return self.epoch

    def _go_on(self) -> None:
        """The new epoch is a line more in the old file. Raises OSError."""
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        data = b"" if self._whole else b"\n"
        data += msgspec.json.encode(self._header()) + b"\n"
        try:
            _write(fd, data, self._end)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        self._end += len(data)
        self._room = max(self._room, self._end)
        self._put_off()

    def _put_off(self) -> None:
        self._long = max(LONG, 2 * self._end)

    def _header(self) -> dict[str, Any]:
        me = _processes.look(os.getpid())
        about = {"event": "epoch", "epoch": self.epoch, "pid": os.getpid(), "start": me.start if me else 0}
        return about | {"boot": self.boot, "time": time.time()}

    def _rewrite(self) -> None:
        """Another file in its place, without what is over. Raises OSError; the file is as it was then."""
        lines = [self._header()]
        lines += [{"event": "exit", **msgspec.to_builtins(exited)} for exited in self.exits]
        lines += [{"event": "start", **msgspec.to_builtins(entry)} for entry in self.open.values()]
        lines += [{"event": "ready", "tree": tree} for tree in self.ready]
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        part = self.path.with_name(self.path.name + ".new")
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, data, 0)
            os.fsync(fd)
            os.replace(part, self.path)
        except OSError:
            os.close(fd)
            part.unlink(missing_ok=True)  # its room is dear now
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._end, self._room = fd, len(data), len(data)
        self._long = max(LONG, OUTWEIGHED * self._end)
        self.unwritten.clear()  # it is in there
        self._reserve()

    def append(self, event: str, **about: Any) -> None:
        """Write a line; it outlives us when this returns. What the disk has no room for is written later.

        It is not forced onto the disk: what a crash of the machine loses is void with it, for no tree outlives a boot.
        """
        line: dict[str, Any] = {"event": event, **about}
        self._take(msgspec.to_builtins(line))
        self.unwritten.append(msgspec.json.encode(line) + b"\n")
        if self._end > self._long:
            self._put_off()
            with contextlib.suppress(OSError):
                self._rewrite()
                return
        data = b"".join(self.unwritten)
        if self._end + len(data) > self._room:
            self._reserve()
        with contextlib.suppress(OSError):
            _write(self._fd, data, self._end)
            self._end += len(data)
            self.unwritten.clear()

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._fd, self._end, RESERVE)
            self._room = self._end + RESERVE

    def close(self) -> None:
        """No more is written. What was reserved is given back."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            os.close(self._fd)
            self._fd = -1


def _write(fd: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)
