"""What a supervisor that is dead has left, ended without another supervisor."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from sexton.errors import GuardError, SextonError
from sexton.spawn import Tree
from sexton.spawn._record import name_of
from sexton.supervise import models
from sexton.supervise.journal import Journal
from sexton.supervise.run import lock
from sexton.supervise.where import LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sexton.supervise.journal import Entry


class Fate(NamedTuple):
    """What became of the tree of an instance."""

    instance: str
    text: str
    failed: bool = False


def end_all(state: Path) -> Iterator[Fate]:
    """End every tree in the ledger of a state directory that has no end there; the apps that came last come first.

    Each has the grace that it was started with. Raises Occupied where a supervisor lives, SextonError and OSError.
    """
    if not Journal(state / LEDGER).open:
        with lock(state, shared=True):
            return
    with lock(state):
        journal = Journal(state / LEDGER)
        older = list(reversed(journal.open.values()))
        if not older:
            return
        journal.announce()
        try:
            for _, entries in groupby(older, key=lambda entry: entry.app):
                for entry, tree in [(entry, _asked(entry)) for entry in entries]:
                    yield _end(journal, entry, tree)
        finally:
            journal.close()


def _asked(entry: Entry) -> Tree | None:
    """The tree, asked to end, if its guard listens to us."""
    if entry.listen is None:
        return None
    try:
        tree = Tree.adopt(entry.listen, entry.tree, entry.command)
        if not tree.held:
            tree.ask_to_stop()
    except (OSError, GuardError):
        return None
    return tree


def _end(journal: Journal, entry: Entry, tree: Tree | None) -> Fate:
    try:
        if tree is not None:
            _hear_out(journal, entry, tree)
        how = entry.end()
    except SextonError as error:
        return Fate(entry.instance, str(error), failed=True)
    journal.append("end", tree=entry.tree)
    return Fate(entry.instance, f"its supervisor is dead; its tree {'ended' if tree else how}")


def _hear_out(journal: Journal, entry: Entry, tree: Tree) -> None:
    """How it ended is written down before its guard is dismissed."""
    try:
        tree.wait()
    finally:
        if tree.over or tree.held:
            journal.append("exit", tree=entry.tree, instance=entry.instance, exit=_how(tree))
    tree.stop()


def _how(tree: Tree) -> models.Exit:
    code = tree.returncode
    signal = None if code is None or code >= 0 else name_of(-code)
    return models.Exit(time=time.time(), code=None if signal else code, signal=signal, why=tree.receipt.why)
