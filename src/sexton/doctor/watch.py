"""Waiting for the next process to end, without looking on any interval."""

from __future__ import annotations

import os
import resource
import select
import time
from typing import TYPE_CHECKING, Self

from sexton import _linux, proc

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

# Descriptors left for everything else.
_SPARE = 64


class Watch:
    """Tells when a process has ended and has stayed a zombie; asleep in between.

    In the first PID namespace the kernel tells of every end on the machine, before Linux 6.6 only with CAP_NET_ADMIN.
    Elsewhere it holds a pidfd of each living process that it was shown: what is born and ends between two looks is seen
    at the next.
    """

    def __init__(self, root: str = proc.PROC) -> None:
        self._root = root
        self._poll = select.poll()
        self._pidfds: dict[int, int] = {}
        self._missed = 0
        self._connector: _linux.ProcConnector | None = None
        try:
            self._connector = _linux.ProcConnector(("exit",)) if root == proc.PROC else None
        except OSError:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._room = (hard if hard != resource.RLIM_INFINITY else soft) - _SPARE
        if self._connector:
            self._poll.register(self._connector.fileno(), select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connector:
            self._connector.__exit__(kind, value, trace)
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds.clear()

    def how(self) -> str:
        """What it waits on, for the person who relies on it."""
        if self._connector:
            return "the kernel tells of every process that ends (proc connector)"
        missed = f"; {self._missed} more are not watched, for want of file descriptors" if self._missed else ""
        return (
            f"{len(self._pidfds)} processes are watched, each by a pidfd{missed}; one that is born and"
            " ends between two"
            " looks is seen at the next end of another. On the host every end is seen"
        )

    def show(self, at: proc.Snapshot, scope: Collection[int]) -> None:
        """Take these processes as those to watch, besides the ones it knows."""
        if self._connector:
            return
        known = set(self._pidfds.values())
        for pid in scope:
            process = at.processes.get(pid)
            if process is None or process.zombie or process.kernel or pid in known or pid == os.getpid():
                continue
            if len(self._pidfds) >= self._room:
                self._missed += 1
                continue
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue  # gone since
            self._pidfds[fd] = pid
            self._poll.register(fd, select.POLLIN)

    def wait(self, scope: Collection[int] | None, settle: float, timeout: float | None = None) -> bool:
        """Sleep until a process has ended and `settle` seconds later still is a zombie; False after
        `timeout` seconds.

        `scope` narrows it to the ends of these and of their children; None means all.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready = self._poll.poll(None if left is None else left * 1000)
            if not ready:
                return False
            ended = self._ended([fd for fd, _ in ready])
            if ended is None:
                return True  # the kernel had to drop events: look at everything
            time.sleep(settle)  # once for each burst of ends, and never when nothing ends
            if any(self._stayed(pid, scope) for pid in ended):
                return True
            if self._connector is None:
                return True  # whoever was born since the last look is not watched yet

    def _ended(self, ready: list[int]) -> set[int] | None:
        if self._connector:
            events = self._connector.read()
            if any(event.kind == "lost" for event in events):
                return None
            return {event.tgid for event in events if event.kind == "exit" and event.pid == event.tgid}
        ended = set()
        for fd in ready:
            ended.add(self._pidfds.pop(fd))
            self._poll.unregister(fd)
            os.close(fd)
        return ended

    def _stayed(self, pid: int, scope: Collection[int] | None) -> bool:
        process = proc.stat(pid, self._root)
        if isinstance(process, proc.Missing) or not process.zombie:
            return False
        return scope is None or pid in scope or process.ppid in scope
