"""Row 12: one thread waits for any child while another waits for a child of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process

# Runtimes that wait for each child that they start themselves, so that a wait for any child is a thief.
_TRACKING = frozenset({"node", "go", "java"})


def examine(evidence: Evidence, _zombies: Sequence[Process]) -> Iterator[Finding]:
    """Processes with a thread in a wait for any child that takes statuses from a rightful waiter."""
    for known in evidence.people.values():
        pid = known.process.pid
        thieves = [wait for wait in known.waits if wait.any_child]
        owners = [wait for wait in known.waits if not wait.any_child]
        if pid not in evidence.scope or not thieves or not (owners or known.runtime in _TRACKING):
            continue
        wanted = {wait.pid for wait in owners}
        victims = [child for child in evidence.at.children(pid) if _inner(evidence, child) in wanted]
        whose = ", ".join(process.name for process in victims) or "the children that it started"
        yield finding(
            RULE.id,
            known,
            (),
            what=f"In {known.process.name}, thread {thieves[0].tid} waits for any child and will take"
            " the exit status of"
            f" {whose}, for which the program itself waits: exit codes turn into 0, 255 or ECHILD at random",
            remedy="Take the waitpid(-1) loop out; let an init reap orphans, and each waiter wait for its own pid.",
            facts=(
                Fact(
                    f"/proc/{pid}/task/{thieves[0].tid}/syscall",
                    "a wait for any child",
                    "it takes every status",
                ),
                *(
                    Fact(
                        f"/proc/{pid}/task/{wait.tid}/syscall",
                        f"a wait for {wait.pid or 'one child'}",
                        "it may lose it",
                    )
                    for wait in owners
                ),
            ),
            confidence="certain" if owners else "likely",
            severity="hazard",
        )


def _inner(evidence: Evidence, process: Process) -> int:
    """Its pid as its own namespace has it, which is how its parent asks for it."""
    brief = evidence.briefs.get(process.pid)
    return brief.ns_pid if brief else process.pid


RULE = Rule(
    number=12,
    id="statuses-stolen",
    title="Exit statuses are stolen",
    cause="A status can be taken once. A loop over waitpid(-1), put into a program so that it reaps"
    " orphans, also takes"
    " the statuses of the children that the program's libraries wait for: subprocess then says 0, Node's"
    " `exit` event"
    " never comes, Go says ECHILD. Loops that only look now and then (WNOHANG) do the same and are not"
    " seen here.",
    reads=("/proc/PID/task/*/syscall: wait4(-1) or waitid(P_ALL) in one thread, a wait for one child in another",),
    cures=(
        Cure(
            "docker",
            "Reap orphans in an init in front of the program, and not in it",
            "docker run --init IMAGE …",
            "The container is made anew.",
        ),
        Cure(
            "python",
            "Wait for known pids only",
            "for pid in list(mine):\n    if os.waitpid(pid, os.WNOHANG)[0]:\n        mine.discard(pid)",
            "Adopted orphans are not reaped so; an init in front does that.",
        ),
        Cure(
            "go",
            "Take the Wait4(-1) loop out, and let an init reap",
            'ENTRYPOINT ["/usr/bin/sexton-init", "--", "/app"]',
            "None known.",
        ),
    ),
    seen_in=("ingress-nginx #577 and #596", "ingress-nginx #2807"),
    examine=examine,
)
