"""What a tree asks of /proc: who is below a process, who carries a mark, who holds a pipe.

sexton.proc reads it; that is imported when something is first asked, since most trees ask nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sexton import proc

MARK = "SEXTON_TREE"  # what sexton-init calls it


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
    """Who held a pipe open: `streams` are "stdout", "stderr"."""

    pid: int
    name: str
    cmdline: tuple[str, ...]
    streams: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pid} ({' '.join(self.cmdline) or self.name}) holds {' and '.join(self.streams)}"


def _of(found: proc.Process) -> Process:
    return Process(found.pid, found.ppid, found.comm, found.state, found.start)


def look(pid: int) -> Process | None:
    """The process, or None when it is gone; without its command line."""
    from sexton import proc

    found = proc.stat(pid)
    return None if isinstance(found, proc.Missing) else _of(found)


def cmdline(pid: int) -> tuple[str, ...]:
    """The words of its command line; () when it is gone or a zombie."""
    from sexton import proc

    found = proc.cmdline(pid)
    return () if isinstance(found, proc.Missing) else found


def children(pid: int) -> list[int]:
    """The children of every thread of a process, zombies too; [] when it is gone."""
    from sexton import proc

    return list(proc.children(pid))


def everyone() -> Iterator[Process]:
    """Every process that can be seen."""
    from sexton import proc

    return map(_of, proc.snapshot())


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
    return replace(process, cmdline=cmdline(process.pid))


def variable(pid: int, name: str) -> str | None:
    """What that variable was when the process was executed; None where it was not set, or cannot be read."""
    found = _environment(pid) or next(filter(None, map(_environment, _later_threads(pid))), {})
    return found.get(name)


def _environment(pid: int) -> dict[str, str]:
    from sexton import proc

    found = proc.environ(pid)
    return {} if isinstance(found, proc.Missing) else found


def _later_threads(pid: int) -> list[int]:
    """The threads of a process whose first one has ended; [] for any other."""
    from sexton import proc

    found = proc.stat(pid)
    if isinstance(found, proc.Missing) or not found.zombie or found.threads <= 1:
        return []
    threads = proc.threads(pid)
    return [] if isinstance(threads, proc.Missing) else [tid for tid in threads if tid != pid]


def mark_of(tree: str) -> str:
    """The mark of a tree, as its processes have it in their environment."""
    return f"{MARK}={tree}"


def guard_words(tree: str) -> list[str]:
    """How the command line of the guard of a tree begins: there it has the mark, and not in its environment."""
    return ["sexton-init", "--mark", tree]


def is_guard(pid: int, mark: str) -> bool:
    """Whether that process is a guard of the tree with that mark."""
    name, _, tree = mark.partition("=")
    return name == MARK and list(cmdline(pid)[:3]) == guard_words(tree)


def carries(pid: int, mark: str) -> bool:
    """Whether that process has this mark ("NAME=value"); False when it is gone or another user's."""
    name, _, value = mark.partition("=")
    return variable(pid, name) == value or is_guard(pid, mark)


def marked(mark: str) -> list[Process]:
    """Everybody who has this mark."""
    return search(mark)[0]


def search(mark: str) -> tuple[list[Process], bool]:
    """Everybody who has this mark; and whether there may be more: who is in the midst of an exec has nothing to see."""
    from sexton import proc

    found, unclear = [], False
    for process in proc.snapshot():
        if process.kernel:
            continue
        if carries(process.pid, mark):
            found.append(_of(process))
        elif not process.zombie and proc.environ(process.pid) == {}:
            unclear |= not (proc.cmdline(process.pid) and proc.environ(process.pid) == {})
    return found, unclear


def holders(pipes: dict[str, int], among: Iterable[int]) -> tuple[Holder, ...]:
    """Who of those processes has one of the pipes open; `pipes`: stream name to our own descriptor of it."""
    from sexton import proc

    wanted: dict[str, list[str]] = {}
    for stream, fd in pipes.items():
        wanted.setdefault(os.readlink(f"/proc/self/fd/{fd}"), []).append(stream)
    found = []
    for pid in among:
        files = proc.fds(pid)
        held = (
            ()
            if isinstance(files, proc.Missing)
            else {each for file in files.values() for each in wanted.get(file, ())}
        )
        process = look(pid)
        if held and process:
            found.append(Holder(pid, process.name, cmdline(pid), tuple(sorted(held))))
    return tuple(found)
