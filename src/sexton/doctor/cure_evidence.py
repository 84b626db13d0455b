"""Whose zombie is it: is it an adopted orphan, which nobody waits for, or a child that its parent keeps track of?

The kernel does not tell who forked a process. So this is evidence, and it has four answers:

- certain: the parent cannot have forked it (its session, its age, an init that starts one program).
- likely: nothing that is known of the parent would keep track of it.
- unknown: it may be a child of the parent's own; taking its status may break the parent.
- tracked: the parent holds a pidfd on it, or a thread waits for it.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Literal, NamedTuple

from sexton import proc

if TYPE_CHECKING:
    from sexton.doctor.evidence import Facts

# Programs that never fork: what they have for children, they were given or they inherited over exec.
_CHILDLESS = frozenset({"sleep", "tail", "cat", "pause"})
_PIDFD = re.compile(rb"^Pid:\t(-?\d+)$", re.MULTILINE)

_BREAKS = {
    "python": "Popen.wait() and poll() would say 0, whatever the real exit code was",
    "node": "the 'exit' event of that child would never come",
    "go": 'Wait() of that command would say "wait: no child processes"',
    "java": "waitFor() of that process would not get its exit code",
    "shell": "`wait` for that job would say 127",
}
_BREAKS_OTHERWISE = "its waitpid() for that child would fail with ECHILD"


class Judgement(NamedTuple):
    """How sure it is that nobody tracks the zombie, why, and what taking it would break if somebody does."""

    level: Literal["certain", "likely", "unknown", "tracked"]
    why: str
    breaks: str = ""

    @property
    def free(self) -> bool:
        """It may be taken from its parent."""
        return self.level in {"certain", "likely"}


def judge(zombie: proc.Process, parent: Facts, at: proc.Snapshot, *, nudged: bool = False) -> Judgement:
    """Whether the parent keeps track of the zombie; `nudged` says that it has handled a SIGCHLD since."""
    breaks = _BREAKS.get(parent.runtime, _BREAKS_OTHERWISE)
    name = parent.process.name
    tracked = _tracked(zombie, parent)
    if tracked:
        return Judgement("tracked", tracked, breaks)
    if zombie.start < parent.process.start:
        return Judgement("certain", f"it is older than its parent {name}, which so cannot have forked it")
    adopted = proc.adopted(zombie, at)
    if adopted:
        if _may_have_moved(zombie, parent, at):
            return Judgement("likely", f"{adopted}; unless {name} was in that session before it made its own")
        return Judgement("certain", adopted)
    likely = _likely(zombie, parent, at, nudged=nudged)
    if likely:
        return Judgement("likely", likely)
    return Judgement("unknown", f"it has no sign of having been adopted: {name} may have forked it", breaks)


def _tracked(zombie: proc.Process, parent: Facts) -> str:
    status = proc.status(zombie.pid)
    numbers = {zombie.pid} if isinstance(status, proc.Missing) else {zombie.pid, *status.ns_pids}
    for wait in parent.waits:
        if not wait.any_child and wait.pid in numbers:
            return f"thread {wait.tid} of {parent.process.name} waits for it"
    found = proc.fds(parent.process.pid)
    for number, link in () if isinstance(found, proc.Missing) else found.items():
        if "pidfd" in link:
            info = proc.read(f"{proc.PROC}/{parent.process.pid}/fdinfo/{number}")
            match = _PIDFD.search(info) if isinstance(info, bytes) else None
            if match and int(match[1]) == zombie.pid:
                return f"{parent.process.name} holds a pidfd on it (descriptor {number})"
    return ""


def _may_have_moved(zombie: proc.Process, parent: Facts, at: proc.Snapshot) -> bool:
    """Whether the parent may have been in the zombie's session once, and forked it there.

    A process leaves a session only by setsid(2), which makes it the leader of its own. PID 1 of a container
    was in no session inside before that.
    """
    if parent.process.sid != parent.process.pid:
        return False
    leader = at.processes.get(zombie.sid)
    if leader is not None:
        return leader.start <= parent.process.start
    status = proc.status(zombie.pid)
    inside = isinstance(status, proc.Status) and parent.init and status.ns_sids[-1] != 0
    return not inside


def _likely(zombie: proc.Process, parent: Facts, at: proc.Snapshot, *, nudged: bool) -> str:
    process = parent.process
    if process.comm in _CHILDLESS:
        return f"{process.comm} makes no children of its own"
    leader = at.processes.get(zombie.pgid)
    own_group = zombie.pgid in {zombie.pid, process.pgid}
    if not own_group and parent.runtime != "shell" and not (leader and leader.ppid == process.pid):
        return f"its process group {zombie.pgid} is neither its own nor that of {process.name}"
    if parent.runtime == "java":
        return "java keeps a thread waiting for each child of its own, and none waits for this one"
    caught = parent.status is not None and proc.has(parent.status.caught, signal.SIGCHLD)
    if parent.runtime == "node" and parent.status and not caught:
        return f"node catches SIGCHLD while it has children of its own, and {process.name} does not: it has none"
    if nudged and caught and parent.runtime not in {"go", "python", "shell"}:
        return f"{process.name} handled a SIGCHLD, as it does for its own children, and left this one"
    return ""
