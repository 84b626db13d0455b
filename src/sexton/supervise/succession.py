"""After the supervisor before this one: adopt what it started, or end it, by the policy of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.errors import GuardError, LeftoversError, SextonError
from sexton.spawn import Tree, _ledger, _owner
from sexton.supervise import starting

if TYPE_CHECKING:
    from sexton.supervise.house import House
    from sexton.supervise.instance import Instance
    from sexton.supervise.journal import Entry


def settle(house: House) -> list[Instance]:
    """Every tree in the ledger that has no end is adopted now, or is ended: there is never a second of an instance.

    Gives the adopted ones that were started with another configuration.
    """
    outdated = []
    for entry in house.older:
        instance = house.instances.get(entry.instance)
        ready = entry.tree in house.journal.ready
        wanted = instance is not None and instance.life is None
        tree = _adopt(entry, hold=wanted)
        if tree is None:
            _end(house, entry)
        elif instance is None or not wanted:
            tree.stop()  # nobody asks for it any more
            house.journal.append("end", tree=entry.tree)
        else:
            instance.adopt(entry, tree, ready=ready)
            house.events.tell("adopted", app=entry.app, instance=entry.instance, message=f"guard {tree.guard}")
            if entry.settings != starting.digest(instance.app):
                outdated.append(instance)
    return outdated


def _adopt(entry: Entry, *, hold: bool) -> Tree | None:
    if entry.listen is None or entry.policy not in {"gentle", "expiration"}:
        return None
    try:
        return Tree.adopt(entry.listen, entry.tree, entry.command, hold=hold)
    except (OSError, GuardError):
        return None


def _end(house: House, entry: Entry) -> None:
    about = _ledger.Entry(entry.tree, entry.epoch, list(entry.command), entry.listen)
    try:
        fate = _owner.end(about)
    except LeftoversError as error:
        house.events.tell("leftovers", app=entry.app, instance=entry.instance, message=str(error))
        raise SextonError(str(error)) from error
    house.journal.append("end", tree=entry.tree)
    house.events.tell(
        "swept", app=entry.app, instance=entry.instance, message=f"its tree of an earlier supervisor {fate}"
    )
