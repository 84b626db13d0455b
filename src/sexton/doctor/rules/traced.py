"""Row 6: a tracer holds the zombie; the parent's wait returns nothing before the tracer waits or ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import counted, finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies whose tracer is not their parent, one finding a tracer."""
    held: dict[int, list[Process]] = {}
    for zombie in zombies:
        brief = evidence.briefs.get(zombie.pid)
        if brief is not None and brief.tracer not in {0, zombie.ppid} and zombie.threads == 1:
            held.setdefault(brief.tracer, []).append(zombie)
    for tracer, group in held.items():
        known = evidence.facts(tracer)
        name = known.process.name if known else f"process {tracer}"
        yield finding(
            RULE.id,
            known,
            group,
            what=f"{name} traces {counted(group)} and has not waited for it; until it does, the parent cannot reap",
            remedy=f"Let {name} go on, or end it: the zombie then goes to its parent. The parent is not to blame.",
            facts=(
                Fact(
                    f"/proc/{group[0].pid}/status",
                    f"TracerPid {tracer}",
                    "a tracer must wait before the parent can",
                ),
            ),
        )


RULE = Rule(
    number=6,
    id="traced",
    title="A tracer holds the dead",
    cause="A traced process that ends is reported to its tracer (a debugger, strace, a profiler, a"
    " sandbox) first. As"
    " long as that neither waits nor ends, the parent's wait returns nothing.",
    reads=("/proc/ZOMBIE/status: TracerPid, another one than PPid",),
    cures=(
        Cure(
            "host",
            "Let the tracer go on if it is stopped, or end it",
            "kill -CONT {pid}\nkill {pid}",
            "The debugging session ends. What {name} still traces goes on untraced, or is killed if it"
            " asked for that"
            " (PTRACE_O_EXITKILL).",
        ),
    ),
    seen_in=(),
    examine=examine,
)
