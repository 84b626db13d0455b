"""The supervisor's ledger: which trees it started, written before each start; how each ended; read after a crash.

An append-only file of JSON lines, `ledger` in the state directory:
  {"event": "epoch", "epoch": 3, "pid": 9, "start": 123, "boot": "...", "time": ...}
  {"event": "start", "epoch": 3, "tree": "...", "instance": "web.0", "app": "web", "command": [...], ...}
  {"event": "ready", "tree": "..."}
  {"event": "exit", "tree": "...", "instance": "web.0", "code": 0, ...}
  {"event": "end", "tree": "..."}
Room for lines to come is reserved on the disk (NUL bytes at the end of the file), so that it can be written when the
disk is full. Beginning a new epoch writes the file anew, without what is over.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from sexton.spawn import _ledger, _owner, _processes
from sexton.spawn._ledger import boot
from sexton.supervise import limits, models

RESERVE = 1 << 20  # bytes; some four thousand starts and exits
KEEP_EXITS = 1000  # that a new epoch remembers


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

    def end(self) -> str:
        """End its tree, whose supervisor is dead: "was gone" or "ended". Raises LeftoversError."""
        how = _owner.end(_ledger.Entry(self.tree, self.epoch, list(self.command), self.listen))
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
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError):
                    self._take(msgspec.json.decode(line.strip(b"\0")))
        if self.boot != boot():  # nothing survives a boot
            self.open.clear()

    def _take(self, line: dict[str, Any]) -> None:
        match line["event"]:
            case "epoch":
                self.epoch, self.boot = int(line["epoch"]), str(line["boot"])
            case "start":
                entry = msgspec.convert(line, Entry)
                self.open[entry.tree] = entry
            case "ready":
                self.ready.add(str(line["tree"]))
            case "exit":
                self.exits = [*self.exits[-KEEP_EXITS:], msgspec.convert(line, Exited)]
            case "end":
                self.open.pop(str(line["tree"]), None)
                self.ready.discard(str(line["tree"]))

    def announce(self) -> int:
        """A new epoch: this process. Writes the file anew. Raises OSError."""
        me = _processes.look(os.getpid())
        self.epoch, self.boot = self.epoch + 1, boot()
        lines = [
            {"event": "epoch", "epoch": self.epoch, "pid": os.getpid(), "start": me.start if me else 0}
            | {"boot": self.boot, "time": time.time()}
        ]
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
            raise
        self._fd, self._end, self._room = fd, len(data), len(data)
        self._reserve()
        return self.epoch

    def append(self, event: str, **about: Any) -> None:
        """Write a line; it outlives us when this returns. What the disk has no room for is written later.

        It is not forced onto the disk: what a crash of the machine loses is void with it, for no tree outlives a boot.
        """
        line: dict[str, Any] = {"event": event, **about}
        self._take(msgspec.to_builtins(line))
        self.unwritten.append(msgspec.json.encode(line) + b"\n")
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
