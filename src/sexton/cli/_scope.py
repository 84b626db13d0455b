"""Which processes a command is about: a pid and its descendants, a container, or all; one way for ps, tree
and doctor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton import proc
from sexton.errors import CannotLook

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sexton.cli._names import Name


def of(at: proc.Snapshot, said: str, known: Mapping[int, proc.Container] | None = None) -> frozenset[int]:
    """The processes that are meant by a word, PID or CONTAINER; `known`: the containers, where they were looked at."""
    if said.isdecimal() and (len(said) < 8 or int(said) in at):
        return of_pid(at, int(said))
    return of_container(at, proc.containers(at) if known is None else known, said)


def of_pid(at: proc.Snapshot, pid: int) -> frozenset[int]:
    """The process and its descendants."""
    if pid not in at:
        if pid in at.unreadable:
            raise CannotLook(f"process {pid} may not be looked at; root may, or its own user")
        hidden = f"; {at.root} hides the processes of others (hidepid={at.hidepid})" if at.hidepid else ""
        raise CannotLook(f"no process {pid} in {at.root}{hidden}")
    return frozenset((pid, *(process.pid for process in at.descendants(pid))))


def of_container(at: proc.Snapshot, known: Mapping[int, proc.Container], wanted: str, fs: str = "") -> frozenset[int]:
    """The processes of the container or pod that is called so, or whose id begins so; `fs` as in `_names.read`."""
    from sexton.cli import _names

    names = _names.read(at, known, fs)
    ids = {one for one, name in names.items() if name.answers(wanted)}
    pods = {names[one].pod for one in ids}
    if len(ids) > 1 and (pods == {""} or wanted in {names[one].name for one in ids}):
        raise CannotLook(f"{wanted!r} is the name of {len(ids)} containers: {_listed(ids, names)}; name one by its id")
    matches = {one for one in known.values() if one.id in ids} or _beginning(known, wanted)
    if not matches and (answer := _names.ask(wanted, set(known.values()))):
        matches = {one for one in known.values() if one.id == answer}
    if not matches:
        seen = _listed({one.id or one.pod for one in known.values()}, names) or "none"
        raise CannotLook(f"no container or pod is called {wanted!r}, and no id begins so. Seen: {seen}")
    return frozenset(pid for pid, one in known.items() if one in matches)


def _beginning(known: Mapping[int, proc.Container], wanted: str) -> set[proc.Container]:
    """Those whose id, or whose pod's uid, begins so."""
    start = wanted.lower().replace("_", "-")
    matches = {one for one in known.values() if start and (one.id.startswith(start) or one.pod.startswith(start))}
    ids = {one.id for one in matches if one.id.startswith(start)}
    if len(ids) > 1:
        raise CannotLook(
            f"{wanted!r} is the beginning of {len(ids)} containers: {', '.join(sorted(i[:20] for i in ids))}"
        )
    return matches


def _listed(ids: Collection[str], names: Mapping[str, Name]) -> str:
    """`web (4f0c…)` of each, by name."""
    return ", ".join(sorted(f"{names[one]} ({one[:12]})" if one in names else one[:12] for one in ids))
