"""Stays beside a program that cannot be restarted now, and buries each new zombie of it. Asleep in between.

What wakes it: in the first PID namespace (before Linux 6.6 with CAP_NET_ADMIN) the kernel tells of every process
that ends (the proc connector), and of every fork by the culprit, so that what is its own child is known for
certain. Without, it holds a pidfd on each descendant of the culprit that it has seen, and looks again when one of
them ends: a process whose whole life falls between two looks is found at the next one.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, Self

from sexton import _linux, proc
from sexton.doctor.cure import Held, cure
from sexton.doctor.cure_evidence import Judgement
from sexton.doctor.look import collect
from sexton.errors import CannotLook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sexton.doctor.cure import Deed

# Seconds: between the word of an end and the zombie that it leaves there are microseconds.
_END_WAIT = 1.0


class Keeper:
    """One culprit, kept until it ends or `stop` (a descriptor) is readable. A context manager."""

    def __init__(self, culprit: proc.Process, stop: int, *, force: bool = False) -> None:
        self.culprit = culprit
        self.force = force
        self.stop = stop
        self.own: set[int] = set()
        self.refused: set[tuple[int, int]] = set()
        self.ended: list[int] = []  # of these the word has come; what they leave may still be on its way
        self.stack = contextlib.ExitStack()
        self.held = Held(culprit)
        self.stack.callback(self.held.close)
        if self.held.gone:
            raise CannotLook(f"{culprit.name} is gone")
        self.poll = select.poll()
        self.poll.register(self.held.descriptor, select.POLLIN)
        self.poll.register(stop, select.POLLIN)
        self.pidfds: dict[int, int] = {}
        self.connector: _linux.ProcConnector | None = None
        try:
            connector = _linux.ProcConnector(("fork", "exit"), forker=culprit.pid)
            self.connector = self.stack.enter_context(connector)
            self.poll.register(self.connector.fileno(), select.POLLIN)
        except OSError:
            self.stack.callback(self._close_pidfds)
        # What there is already cannot be told apart by having been seen to be forked.
        self.before = set(proc.children(culprit.pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def how(self) -> str:
        """What it waits on, for the person who relies on it."""
        if self.connector:
            return "the kernel tells of every process that ends (proc connector)"
        return (
            f"{len(self.pidfds)} processes below it are watched, each by a pidfd; one that is born and ends between two"
            " looks is buried at the next end of another. As root on the host every end is seen"
        )

    def deeds(self) -> Iterator[Deed]:
        """Every deed, as it is done; ends with the culprit, or when told to stop."""
        while True:
            self._watch_descendants()
            fresh = [zombie for zombie in self._zombies() if (zombie.pid, zombie.start) not in self.refused]
            if fresh:
                yield from self._bury(fresh)
            if not self._sleep():
                return

    def _zombies(self) -> list[proc.Process]:
        found = (proc.stat(pid) for pid in proc.children(self.culprit.pid))
        return [one for one in found if isinstance(one, proc.Process) and one.zombie]

    def _bury(self, fresh: list[proc.Process]) -> Iterator[Deed]:
        """The ladder, for those that are still there when their parent has had time for them."""
        pids = {zombie.pid for zombie in fresh}
        evidence = collect(choose=lambda at, _: pids & at.processes.keys())
        self._note()  # the fork of every zombie that we have seen is among the events by now
        for deed in cure(evidence, force=self.force, known=self._known(evidence.zombies)):
            if deed.rung == "inject" and deed.result != "reaped":
                self.refused.add((deed.zombie.pid, deed.zombie.start))
            yield deed

    def _known(self, zombies: tuple[proc.Process, ...]) -> dict[int, Judgement]:
        """What the forks tell: who was born while we watched, and not by the culprit, was adopted."""
        if self.connector is None:
            return {}
        why = f"it was seen to be forked by another than {self.culprit.name}"
        others = [one.pid for one in zombies if one.pid not in self.own and one.pid not in self.before]
        return {pid: Judgement("certain", why) for pid in others}

    def _sleep(self) -> bool:
        """Until something ended that may matter; False when it is over."""
        if self.ended:  # heard of while burying others
            self._await_ends()
            return True
        ready = {fd for fd, _ in self.poll.poll()}
        if self.stop in ready or self.held.descriptor in ready:
            return False
        if self.connector is None:
            for fd in ready:
                self.poll.unregister(fd)
                del self.pidfds[fd]
                os.close(fd)
            return True
        self._note()
        self._await_ends()
        return True

    def _await_ends(self) -> None:
        """Wait until what the kernel told of has happened."""
        # The word comes a moment before the zombie, and before its own zombies get their new parent.
        for pid in self.ended:
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(pid)
                select.select([fd], [], [], _END_WAIT)
                os.close(fd)
        self.ended.clear()

    def _note(self) -> None:
        """Take what the kernel told: who has ended, and whom the culprit forked."""
        for event in self.connector.read() if self.connector else ():
            if event.kind == "lost":
                self.before |= set(proc.children(self.culprit.pid))  # of these nobody knows who forked them
            elif event.kind == "fork" and event.pid == event.tgid:
                self.own.add(event.tgid)
            elif event.kind == "exit" and event.pid == event.tgid:
                self.ended.append(event.tgid)
        living = set(proc.children(self.culprit.pid))
        self.own &= living
        self.before &= living

    def _close_pidfds(self) -> None:
        for fd in self.pidfds:
            os.close(fd)

    def _watch_descendants(self) -> None:
        if self.connector:
            return
        known = set(self.pidfds.values())
        for process in proc.snapshot().descendants(self.culprit.pid):
            if process.zombie or process.pid in known:
                continue
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(process.pid)
                self.pidfds[fd] = process.pid
                self.poll.register(fd, select.POLLIN)
