"""After the supervisor before this one: adopt what it started, or end it, by the policy of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.errors import GuardError, LeftoversError
from sexton.supervise import starting
from sexton.supervise.config import App
from sexton.supervise.survivors import Guarded

if TYPE_CHECKING:
    from sexton.supervise.house import House
    from sexton.supervise.instance import Instance
    from sexton.supervise.journal import Entry


SOON = 0.1  # seconds that those who are killed have to die before we go on without waiting for it


def settle(house: House) -> tuple[list[Instance], list[Instance]]:
    """Every tree in the ledger that has no end is adopted now, or is ended: there is never a second of an instance.

    Gives the adopted ones that were started with another configuration, and those that nobody asks for any more.
    """
    outdated, unwanted = [], []
    for entry in house.older:
        tree = _adopt(entry)
        if tree is None and _end(house, entry):
            continue
        instance = house.instances.get(entry.instance)
        if instance is None:
            app = house.config.apps.get(entry.app) or App(name=entry.app, command=entry.command)
            instance = house.add(app, int(entry.instance.rpartition(".")[2]))
            unwanted.append(instance)
        elif tree and entry.settings != starting.digest(instance.app):
            outdated.append(instance)
        if tree is None:
            instance.inherit(entry)
            continue
        instance.adopt(entry, tree, ready=entry.tree in house.journal.ready)
        house.events.tell("adopted", app=entry.app, instance=entry.instance, message=f"guard {tree.guard}")
    return outdated, unwanted


def _adopt(entry: Entry) -> Guarded | None:
    if entry.listen is None or entry.policy not in {"gentle", "expiration"}:
        return None
    try:
        return Guarded.adopt(entry.listen, entry.tree, entry.command)
    except (OSError, GuardError):
        return None


def _end(house: House, entry: Entry) -> bool:
    """End a tree; whether nothing is left."""
    try:
        fate = entry.end(SOON)
    except LeftoversError:
        return False
    house.journal.append("end", tree=entry.tree)
    house.events.tell(
        "swept", app=entry.app, instance=entry.instance, message=f"its tree of an earlier supervisor {fate}"
    )
    return True
