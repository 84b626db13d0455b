"""The little of /proc that a tree needs: who is below a process, who carries a mark, who holds a pipe.

Kept small on purpose: `sexton.proc` has the whole, and takes this over when it is there.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc had it when looked at.

    pid      as this process sees it
    name     the kernel's name of it
    state    one letter of ps(1): R, S, D, T, Z ...
    start    clock ticks since boot; (pid, start) is an identity
    cmdline  its words; () for a zombie
    """

    pid: int
    ppid: int
    name: str
    state: str
    start: int
    cmdline: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.pid} ({' '.join(self.cmdline) or self.name})"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who held a pipe open: `streams` are "stdin", "stdout", "stderr"."""

    pid: int
    name: str
    cmdline: tuple[str, ...]
    streams: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pid} ({' '.join(self.cmdline) or self.name}) holds {' and '.join(self.streams)}"


def look(pid: int) -> Process | None:
    """The process, or None when it is gone; without its command line."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except GONE:
        return None
    end = text.rindex(b")")
    words = text[end + 2 :].split()
    name = text[text.index(b"(") + 1 : end].decode(errors="replace")
    return Process(pid, int(words[1]), name, words[0].decode(), int(words[19]))


def cmdline(pid: int) -> tuple[str, ...]:
    """The words of its command line; () when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            text = file.read()
    except GONE:
        return ()
    return tuple(word.decode(errors="replace") for word in text.removesuffix(b"\0").split(b"\0")) if text else ()


def children(pid: int) -> list[int]:
    """The children of every thread of a process, zombies too; [] when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except GONE:
        return []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                continue  # that thread has ended
            return [one.pid for one in everyone() if one.ppid == pid]  # a kernel without CONFIG_PROC_CHILDREN
        except GONE:
            continue
    return found


def everyone() -> Iterator[Process]:
    """Every process that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and (process := look(int(name))):
            yield process


def descendants(pid: int) -> list[Process]:
    """All below a process, parents first.

    An orphan moves up to the process at the top while we look: hence looked at again until nobody new is there.
    """
    found: dict[int, Process] = {}
    queue = children(pid)
    while queue:
        for child in queue:
            if child not in found and (process := look(child)):
                found[child] = process
                queue.extend(children(child))
        queue = [child for child in children(pid) if child not in found and look(child)]
    return list(found.values())


def with_cmdline(process: Process) -> Process:
    """The same, with its command line."""
    return Process(process.pid, process.ppid, process.name, process.state, process.start, cmdline(process.pid))


def marked(mark: bytes) -> list[Process]:
    """Everybody whose environment had this entry ("NAME=value") when it was executed."""
    return [process for process in everyone() if process.state != "Z" and carries(process.pid, mark)]


def variable(pid: int, name: str) -> str | None:
    """What that variable was when the process was executed; None where it was not set, or cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except GONE:
        return None
    start = name.encode() + b"="
    return next((entry[len(start) :].decode(errors="replace") for entry in entries if entry.startswith(start)), None)


def carries(pid: int, mark: bytes) -> bool:
    """Whether the environment of that process has this entry; False when it is gone or another user's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except GONE:
        return False


def holders(pipes: dict[str, int], among: Iterable[int]) -> tuple[Holder, ...]:
    """Who of those processes has one of the pipes open; `pipes`: stream name to our own descriptor of it."""
    wanted: dict[str, list[str]] = {}
    for stream, fd in pipes.items():
        with contextlib.suppress(OSError):
            wanted.setdefault(os.readlink(f"/proc/self/fd/{fd}"), []).append(stream)
    found = []
    for pid in among:
        held: list[str] = []
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except GONE:
            continue
        for name in names:
            with contextlib.suppress(*GONE):
                held += wanted.get(os.readlink(f"/proc/{pid}/fd/{name}"), [])
        process = look(pid)
        if held and process:
            found.append(Holder(pid, process.name, cmdline(pid), tuple(sorted(set(held)))))
    return tuple(found)
