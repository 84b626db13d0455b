"""Row 13: the init of a PID namespace has ended and waits for a member that nobody outside has reaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import counted, finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Dying inits, each with the members of its namespace that keep it."""
    for process in evidence.dying:
        init = evidence.facts(process.pid)
        if init is None or not init.init:
            continue
        members = [
            z for z in zombies if _inside(evidence, z, init) and not _inside(evidence, evidence.at.parent(z), init)
        ]
        stuck = [hanging for hanging in evidence.stuck if _inside(evidence, hanging, init)]
        if not members and not stuck and init.wchan != "zap_pid_ns_processes":
            continue
        parents = {zombie.ppid for zombie in members}
        outer = evidence.facts(min(parents)) if parents else None
        facts = [
            Fact(
                f"/proc/{init.process.pid}/wchan",
                init.wchan or "exiting",
                "it waits for its namespace to empty",
            )
        ]
        if outer is not None:
            yield finding(
                RULE.id,
                outer,
                members,
                what=f"The PID namespace of {init.process.name} cannot end: {counted(members)} in it"
                f" {'is' if len(members) == 1 else 'are'} the child of {outer.process.name} outside,"
                " which has not reaped",
                remedy=f"Make {outer.process.name} reap it: a nudge, `sexton reap`, or its end.",
                facts=[
                    *facts,
                    Fact(f"/proc/{members[0].pid}/ns/pid", f"pid:[{init.namespace}]", "it is in that namespace"),
                    Fact(f"/proc/{members[0].pid}/stat", f"ppid {members[0].ppid}", "its parent is outside"),
                ],
            )
        else:
            names = ", ".join(process.name for process in stuck)
            yield finding(
                RULE.id,
                init,
                (),
                what=f"The PID namespace of {init.process.name} cannot end: "
                + (f"{names} in it cannot be killed" if names else "a member of it, not seen from here, is left"),
                remedy="Mend what it waits for." if names else "Look from the host, where every member is seen.",
                facts=facts,
                confidence="certain" if names else "possible",
            )


def _inside(evidence: Evidence, process: Process | None, init: Facts) -> bool:
    """Whether the process is in the init's namespace."""
    known = evidence.facts(process.pid) if process else None
    return known is not None and init.namespace != 0 and known.namespace == init.namespace


RULE = Rule(
    number=13,
    id="namespace-stuck",
    title="The container does not stop: its PID namespace cannot end",
    cause="When PID 1 of a namespace ends, the kernel kills all members and then lets it wait until each"
    " has been reaped."
    " A member that was put in from outside (docker exec, nsenter) has its parent outside: until that"
    " reaps, or while"
    " a member hangs in state D, PID 1 stays and the container does not stop.",
    reads=(
        "/proc/INIT/wchan: zap_pid_ns_processes; /proc/INIT/stat: flags with PF_EXITING",
        "/proc/ZOMBIE/ns/pid: the same namespace; /proc/ZOMBIE/stat: a ppid outside of it",
    ),
    cures=(
        Cure("host", "Nudge the outer parent", "kill -CHLD {pid}", "None."),
        Cure(
            "sexton",
            "Make the outer parent reap, without its end",
            "sexton reap {victim} --yes --force",
            "{name} stops for about a millisecond; if it tracks this child, it does not learn how that ended.",
        ),
        Cure(
            "host",
            "End the outer parent, when it is an nsenter or a stray shell",
            "kill {pid}",
            "Never do this to containerd-shim, conmon or dockerd.",
        ),
    ),
    seen_in=("moby #34683, #37627, #40749", "containerd #7717"),
    examine=examine,
)
