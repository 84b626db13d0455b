"""Looking: everything that the rules may know, read once. Only `look` and `_facts` touch the system."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from sexton import proc
from sexton.doctor._facts import Looker, runtime
from sexton.doctor.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

# Seconds that a zombie must stay one to count: a parent that is busy, or that looks twice a second, is no culprit.
SETTLE = 1.0
# Of the children of an init, so many are read for signs of having been left over.
_MOST_CHILDREN = 200


def collect(
    root: str = proc.PROC,
    choose: Callable[[proc.Snapshot, Mapping[int, proc.Container]], Collection[int]] | None = None,
    *,
    settle: float = SETTLE,
    pause: Callable[[float], None] = time.sleep,
) -> Evidence:
    """Look at the processes of a /proc; `choose` says which of them it is about (all of them without).

    Takes `settle` seconds at least: what is a zombie, or in state D, must still be so at the end. Raises
    CannotLook.
    """
    begun = time.monotonic()
    at = proc.snapshot(root)
    groups = proc.memberships(at)
    containers = proc.containers(at, groups)
    scope = frozenset(choose(at, containers)) if choose else frozenset(at.processes)
    briefs = {
        pid: value
        for pid, process in at.processes.items()
        if not process.kernel and (pid in scope or process.ppid in scope)
        if not isinstance(value := proc.brief(pid, root), proc.Missing)
    }
    mounts = proc.mounts("self", root)
    looker = Looker(at, containers, groups, () if isinstance(mounts, proc.Missing) else mounts)
    people = {pid: looker.facts(pid) for pid in _who(at, scope, briefs)}
    levels = looker.levels(scope) + proc.of_users(at, {pid: brief.uid for pid, brief in briefs.items()})
    levels += proc.of_machine(at)

    left = settle - (time.monotonic() - begun)
    suspects = [p for p in at if p.pid in scope and not p.kernel and (p.state in "ZD" or p.flags & proc.PF_EXITING)]
    if left > 0 and suspects:
        pause(left)
    lasting = [p for p in suspects if _same(p, proc.stat(p.pid, root))]
    return Evidence(
        at=at,
        scope=scope,
        zombies=tuple(p for p in lasting if p.zombie),
        stuck=tuple(p for p in lasting if p.state == "D"),
        dying=tuple(p for p in lasting if p.flags & proc.PF_EXITING and not p.zombie),
        briefs=briefs,
        people=people,
        containers=containers,
        levels=levels,
        blind=(*_blind(at, scope), *looker.blind()),
    )


def _same(process: proc.Process, now: proc.Process | proc.Missing) -> bool:
    return isinstance(now, proc.Process) and (now.start, now.state) == (process.start, process.state)


def _who(at: proc.Snapshot, scope: frozenset[int], briefs: Mapping[int, proc.Brief]) -> set[int]:
    """Whom to read in full: inits and their children, culprits, tracers, who cannot run, waits, or was
    left over.
    """
    found: set[int] = set()
    dying = False
    for pid, brief in briefs.items():
        process = at.processes[pid]
        if brief.ns_pid == 1:
            found.update((pid, process.ppid))
            found.update(child.pid for child in at.children(pid)[:_MOST_CHILDREN] if not child.zombie)
            dying = dying or bool(process.flags & proc.PF_EXITING and not process.zombie)
        if pid not in scope:
            continue
        if process.zombie:
            found.update((process.ppid, brief.tracer, *((pid,) if process.threads > 1 else ())))
        elif _odd(process, brief, at):
            found.update((pid, process.ppid))
    if dying:  # whose members' parents may be in another namespace
        found.update(p.pid for p in at.zombies() if (known := briefs.get(p.pid)) and known.ns_pid != p.pid)
    for pid in _heirs(at, scope):
        found.update(child.pid for child in at.children(pid)[:_MOST_CHILDREN] if not child.zombie and not child.kernel)
        found.add(pid)
    sessions = _of_shims(at, scope)
    found.update(p.pid for p in at if p.sid in sessions and not p.zombie and not p.kernel)
    return {pid for pid in found if pid in at}


def _odd(process: proc.Process, brief: proc.Brief, at: proc.Snapshot) -> bool:
    """A living process that some rule has questions about."""
    waits = process.threads > 1 or proc.has(brief.ignored, signal.SIGCHLD)
    return process.state in "DTt" or bool(waits and at.children(process.pid)) or bool(proc.adopted(process, at))


def _heirs(at: proc.Snapshot, scope: frozenset[int]) -> set[int]:
    """Who gets orphans without being PID 1: subreapers by their name, and by a child that they did not fork."""
    parents = {p.ppid for p in at if p.pid in scope and not p.kernel}
    return {
        pid
        for pid in parents
        if (parent := at.processes.get(pid)) is not None
        if runtime(parent.comm) in {"init", "shim"} or any(proc.adopted(child, at) for child in at.children(pid))
    }


def _of_shims(at: proc.Snapshot, scope: frozenset[int]) -> set[int]:
    """The sessions of the zombies whose parent is the shim of a container runtime, or cannot be seen from
    here.
    """
    found = set()
    for process in at.zombies():
        parent = at.parent(process)
        if process.pid in scope and (parent is None or parent.comm.startswith(("containerd-shim", "conmon"))):
            found.add(process.sid)
    return found


def _blind(at: proc.Snapshot, scope: frozenset[int]) -> list[str]:
    """What was not seen of the whole, and the privilege or place that would show it."""
    lines = []
    if at.hidepid:
        lines.append(
            f"{at.root} is mounted with hidepid={at.hidepid}: processes of other users are not seen. Run"
            " as root, or"
            " in the group that the mount's gid= names."
        )
    if at.unreadable:
        lines.append(f"{len(at.unreadable)} processes may not be read at all. Run as root.")
    if any(one.ppid == 0 and one.pid not in {1, 2} for one in at if one.pid in scope):
        lines.append(
            "Some processes have their parent outside of this PID namespace: a container runtime put"
            " them here."
            " Whether it reaps them is seen from there only: run on the host."
        )
    if os.geteuid() != 0 and at.root == proc.PROC:
        lines.append("Not run as root: open files and system calls of other users' processes are not seen.")
    return lines
