"""Row 2: PID 1 handles SIGCHLD, and waits only for the children that it started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Fact, Rule
from sexton.doctor.remedies import CLEAR_NOW, REAP_IN_CODE, RESTART, USE_AN_INIT
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, mask, parentage, settled
from sexton.proc import adopted, has

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies of a PID 1 that catches SIGCHLD and is neither an init nor a shell, which reap what they
    adopt.
    """
    for parent, group in by_parent(evidence, zombies):
        status = parent.status
        if status is None or not parent.init or not has(status.caught, CHLD):
            continue
        if parent.runtime in {"init", "shell"}:
            continue
        proofs = [why for zombie in group if (why := adopted(zombie, evidence.at))]
        known = parent.runtime in {"node", "go", "java", "python"}
        facts = [parentage(parent, group), mask(parent, "SigCgt", CHLD)]
        if proofs:
            facts.append(Fact(f"/proc/{group[0].pid}/stat", f"session {group[0].sid}", proofs[0]))
        if parent.runtime:
            facts.append(Fact(f"/proc/{parent.process.pid}/exe", parent.runtime, "waits for its own children only"))
        yield finding(
            RULE.id,
            parent,
            group,
            what=f"{parent.process.name} is PID 1 of its namespace and waits for its own children only:"
            " it has"
            f" {counted(group)} that it adopted",
            remedy="Put an init in front of it; until then `sexton reap` clears what is there.",
            facts=facts,
            confidence="certain" if proofs and known and settled(evidence, group) else "likely",
        )


RULE = Rule(
    number=2,
    id="pid1-waits-for-its-own",
    title="PID 1 waits for its own children only",
    cause="Node, Go and Java handle SIGCHLD and then wait for the pids that they started, one by one. As"
    " PID 1 they"
    " adopt every orphan, a browser's helpers for example, and never ask for those. That a program"
    " catches SIGCHLD"
    " therefore proves nothing.",
    reads=(
        "/proc/ZOMBIE/stat: state Z, ppid, session",
        "/proc/PID/status: NSpid ends in 1, SigCgt with SIGCHLD",
        "/proc/PID/exe: which runtime it is",
    ),
    cures=(CLEAR_NOW, *USE_AN_INIT, *REAP_IN_CODE, *RESTART),
    seen_in=(
        "puppeteer #1825",
        "jenkinsci/docker #54",
        "argo-helm #3752 (a chart's command: bypasses the init)",
    ),
    examine=examine,
)
