"""The ledger of an owner: which trees were started under its name, written before each start, read after a crash.

An append-only file of JSON lines, NAME.ledger in the state directory:
  {"event": "epoch", "epoch": 3, "policy": "...", "pid": 9, "start": 123, "boot": "...", "time": ...}
  {"event": "start", "epoch": 3, "tree": "...", "command": [...], "listen": "/..." or null, "time": ...}
  {"event": "end", "tree": "..."}
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sexton.errors import UsageError
from sexton.spawn import _processes

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Entry:
    """A tree that was started, and of which no end is written."""

    tree: str
    epoch: int
    command: list[str]
    listen: str | None


@dataclass(slots=True)
class Ledger:
    """What a ledger says. `owner` is the process of the last incarnation: (pid, start in ticks); None: none yet."""

    path: Path
    epoch: int = 0
    policy: str = ""
    boot: str = ""
    owner: tuple[int, int] | None = None
    open: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read it; a last line that a crash cut off is left out. Trees of an earlier boot are over."""
        ledger = cls(path)
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return ledger
        for line in lines:
            try:
                ledger._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue
        if ledger.boot != boot():
            ledger.open.clear()
        return ledger

    def _take(self, line: dict[str, Any]) -> None:
        match line["event"]:
            case "epoch":
                self.epoch, self.policy, self.boot = int(line["epoch"]), str(line["policy"]), str(line["boot"])
                self.owner = int(line["pid"]), int(line["start"])
            case "start":
                entry = Entry(str(line["tree"]), int(line["epoch"]), list(line["command"]), line["listen"])
                self.open[entry.tree] = entry
            case "end":
                self.open.pop(str(line["tree"]), None)

    @property
    def owner_lives(self) -> bool:
        """The process of the last incarnation is alive."""
        if self.owner is None or self.boot != boot():
            return False
        found = _processes.look(self.owner[0])
        return found is not None and found.start == self.owner[1] and found.state != "Z"

    def announce(self, policy: str) -> int:
        """A new incarnation: this process. Gives its epoch."""
        me = _processes.look(os.getpid())
        assert me is not None, "/proc is another PID namespace's"
        self.epoch, self.policy, self.boot, self.owner = self.epoch + 1, policy, boot(), (me.pid, me.start)
        self.append(event="epoch", epoch=self.epoch, policy=policy, pid=me.pid, start=me.start, boot=self.boot)
        return self.epoch

    def append(self, **line: Any) -> None:
        """Write a line; it is on the disk when this returns. Raises OSError, and has written nothing then."""
        data = json.dumps(line | {"time": time.time()}).encode() + b"\n"
        fd = _open(self.path)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # a crash cut the last line off: this is not the rest of it
            written = os.write(fd, data)
            if written < len(data):
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(fd)
        finally:
            os.close(fd)
        self._take(line)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """For who reads a ledger and announces itself by what it says: one at a time. Raises OSError."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        fcntl.flock(fd, fcntl.LOCK_UN)  # of all who have it: another thread may have forked meanwhile
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def boot() -> str:
    """The kernel's name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def state_path() -> Path:
    """Where ledgers are: $SEXTON_STATE, else $XDG_STATE_HOME/sexton, else ~/.local/state/sexton. Raises UsageError."""
    if named := os.environ.get("SEXTON_STATE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state", "sexton")
    except RuntimeError:
        raise UsageError("this user has no home directory; set HOME or SEXTON_STATE") from None


def state_directory(named: str | os.PathLike[str] | None = None) -> Path:
    """The one that is named, or else the same as above; made if need be. Raises OSError."""
    found = state_path() if named is None else Path(named)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def ledgers(directory: Path) -> list[Path]:
    """The file of each ledger in it. Raises OSError."""
    return sorted(path for path in directory.iterdir() if path.name.endswith(".ledger"))
