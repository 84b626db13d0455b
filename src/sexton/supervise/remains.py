"""What a supervisor that is dead has left, ended without another supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sexton.errors import LeftoversError
from sexton.spawn import _ledger, _owner
from sexton.supervise.journal import Journal
from sexton.supervise.run import lock
from sexton.supervise.where import LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Fate(NamedTuple):
    """What became of the tree of an instance."""

    instance: str
    text: str
    failed: bool = False


def end_all(state: Path) -> Iterator[Fate]:
    """End every tree in the ledger of a state directory that has no end there, those that came last first.

    Raises Occupied where a supervisor lives, and OSError.
    """
    with lock(state):
        journal = Journal(state / LEDGER)
        if not journal.open:
            return
        older = list(journal.open.values())
        journal.announce()
        try:
            for entry in reversed(older):
                about = _ledger.Entry(entry.tree, entry.epoch, list(entry.command), entry.listen)
                try:
                    fate = _owner.end(about)
                except LeftoversError as error:
                    yield Fate(entry.instance, str(error), failed=True)
                else:
                    journal.append("end", tree=entry.tree)
                    yield Fate(entry.instance, f"its supervisor was dead; its tree {fate}")
        finally:
            journal.close()
