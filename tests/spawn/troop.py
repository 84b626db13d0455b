"""Monsters for the library's tests: their command line, and their log, whose end is that of the last of them."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from sexton import proc
from tests.support.lines import Pipe, until
from tests.support.monsters import Note, await_notes, join, rest_of


class Handed(TypedDict):
    """What a command line of monsters needs of its Tree."""

    pass_fds: tuple[int, ...]


class Troop:
    """Some monsters that write to one log."""

    def __init__(self, monster: Path) -> None:
        self.monster = monster
        self.log = Pipe("the monsters' log")

    def words(self, *statements: str) -> list[str]:
        """The command line of these statements."""
        return [str(self.monster), str(self.log.write_fd), *join(*statements)]

    @property
    def handed(self) -> Handed:
        """The keywords that hand the log down."""
        return {"pass_fds": (self.log.write_fd,)}

    def ready(self, count: int = 1) -> list[Note]:
        """Wait until so many more of them are ready."""
        return await_notes(self.log, "ready", count)

    def end(self) -> list[Note]:
        """Wait until all of them are dead, and give what they wrote meanwhile; the log is closed on our side."""
        self.log.close_writer()
        return rest_of(self.log)


RECV = {45, 207}  # recvfrom(2) on x86_64 and aarch64


def await_reader(pid: int) -> None:
    """Until the process waits in recv(2), as the owner of a tree does."""
    until(lambda: getattr(proc.syscall(pid), "number", None) in RECV, "an owner that waits")
