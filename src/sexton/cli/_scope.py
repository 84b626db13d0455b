"""Which processes a command is about: a pid and its descendants, a container, or all; one way for ps, tree
and doctor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.errors import CannotLook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sexton import proc


def of_pid(at: proc.Snapshot, pid: int) -> frozenset[int]:
    """The process and its descendants."""
    if pid not in at:
        if pid in at.unreadable:
            raise CannotLook(f"process {pid} may not be looked at; root may, or its own user")
        hidden = f"; {at.root} hides the processes of others (hidepid={at.hidepid})" if at.hidepid else ""
        raise CannotLook(f"no process {pid} in {at.root}{hidden}")
    return frozenset((pid, *(process.pid for process in at.descendants(pid))))


def of_container(known: Mapping[int, proc.Container], name: str) -> frozenset[int]:
    """The processes of the container whose id, or whose pod's uid, begins so."""
    wanted = name.lower().replace("_", "-")
    matches = {one for one in known.values() if wanted and (one.id.startswith(wanted) or one.pod.startswith(wanted))}
    ids = {one.id for one in matches if one.id.startswith(wanted)}
    if not matches:
        seen = ", ".join(sorted({one.short for one in known.values()})) or "none"
        raise CannotLook(f"no container or pod begins with {name!r}; a container is named by its id. Seen: {seen}")
    if len(ids) > 1:
        raise CannotLook(
            f"{name!r} is the beginning of {len(ids)} containers: {', '.join(sorted(i[:20] for i in ids))}"
        )
    return frozenset(pid for pid, one in known.items() if one in matches)
