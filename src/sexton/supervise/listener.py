"""Who listens on a port: the processes of a tree, or somebody else.

Read from /proc/PID/net/tcp and tcp6 of the network namespaces that the tree is in, and from ours. They list the sockets
that listen first, whatever number of connections comes after them, so the reading ends where those begin.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sexton import proc
from sexton.proc import Missing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Listener:
    """Whose a port is; `pid` 0 and an empty `name` (its comm): a process that we cannot see, or nobody."""

    whose: Literal["ours", "other", "nobody"]
    pid: int = 0
    name: str = ""


def who_listens(port: int, pids: Collection[int], root: str = proc.PROC) -> Listener:
    """Who listens on a TCP port, on any address of either family; `pids` are ours.

    One of ours is enough for "ours". Descriptors of other users' processes need the right to trace them.
    """
    found: set[str] = set()
    for table in tables(pids, root):
        found |= inodes(table, port)
    if not found:
        return Listener("nobody")
    if pid := _holder(found, sorted(pids), root):
        return Listener("ours", pid, _name(pid, root))
    pid = _holder(found, _everybody(root), root)
    return Listener("other", pid, _name(pid, root))


def tables(pids: Collection[int], root: str) -> Iterator[str]:
    """A directory `net` of each network namespace that matters: ours, and those of the tree."""
    seen = set()
    for who in ("self", *sorted(pids)):
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            namespace = os.stat(f"{root}/{who}/ns/net")
            if (key := (namespace.st_dev, namespace.st_ino)) not in seen:
                seen.add(key)
                yield f"{root}/{who}/net"


def inodes(table: str, port: int) -> set[str]:
    """The inodes of the sockets that listen on it, as their descriptors are called in /proc."""
    found: set[str] = set()
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"{table}/{name}", encoding="ascii") as lines:
            next(lines, None)  # the heading
            for line in lines:
                fields = line.split(maxsplit=10)
                if fields[3] != _LISTEN:
                    break
                if fields[1].endswith(wanted):
                    found.add(f"socket:[{fields[9]}]")
    return found


def _holder(sockets: set[str], pids: Collection[int], root: str) -> int:
    for pid in pids:
        open_ = proc.fds(pid, root)
        if not isinstance(open_, Missing) and not sockets.isdisjoint(open_.values()):
            return pid
    return 0


def _everybody(root: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(root) if name.isdecimal())


def _name(pid: int, root: str) -> str:
    process = proc.stat(pid, root) if pid else Missing.GONE
    return "" if isinstance(process, Missing) else proc.printable(process.comm)
