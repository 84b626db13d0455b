"""After the supervisor before this one: adopt what it started, or end it, by the policy of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.errors import GuardError, LeftoversError, SextonError
from sexton.spawn import Tree
from sexton.supervise import starting
from sexton.supervise.config import App

if TYPE_CHECKING:
    from sexton.supervise.house import House
    from sexton.supervise.instance import Instance
    from sexton.supervise.journal import Entry


def settle(house: House) -> tuple[list[Instance], list[Instance]]:
    """Every tree in the ledger that has no end is adopted now, or is ended: there is never a second of an instance.

    Gives the adopted ones that were started with another configuration, and those that nobody asks for any more.
    """
    outdated, unwanted = [], []
    for entry in house.older:
        tree = _adopt(entry)
        if tree is None:
            _end(house, entry)
            continue
        instance = house.instances.get(entry.instance)
        if instance is None:
            app = house.config.apps.get(entry.app) or App(name=entry.app, command=entry.command)
            instance = house.add(app, int(entry.instance.rpartition(".")[2]))
            unwanted.append(instance)
        elif entry.settings != starting.digest(instance.app):
            outdated.append(instance)
        instance.adopt(entry, tree, ready=entry.tree in house.journal.ready)
        house.events.tell("adopted", app=entry.app, instance=entry.instance, message=f"guard {tree.guard}")
    return outdated, unwanted


def _adopt(entry: Entry) -> Tree | None:
    if entry.listen is None or entry.policy not in {"gentle", "expiration"}:
        return None
    try:
        return Tree.adopt(entry.listen, entry.tree, entry.command)
    except (OSError, GuardError):
        return None


def _end(house: House, entry: Entry) -> None:
    try:
        fate = entry.end()
    except LeftoversError as error:
        house.events.tell("leftovers", app=entry.app, instance=entry.instance, message=str(error))
        raise SextonError(str(error)) from error
    house.journal.append("end", tree=entry.tree)
    house.events.tell(
        "swept", app=entry.app, instance=entry.instance, message=f"its tree of an earlier supervisor {fate}"
    )
