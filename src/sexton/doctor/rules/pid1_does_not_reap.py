"""Row 1: PID 1 has no handler for SIGCHLD and waits for nothing that it adopts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Rule
from sexton.doctor.remedies import CLEAR_NOW, REAP_IN_CODE, RESTART, USE_AN_INIT
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, mask, parentage, settled
from sexton.proc import has

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies of a PID 1 that does not catch SIGCHLD."""
    for parent, group in by_parent(evidence, zombies):
        status = parent.status
        if status is None or not parent.init or parent.runtime == "init" or has(status.caught, CHLD):
            continue
        yield finding(
            RULE.id,
            parent,
            group,
            what=f"{parent.process.name} is PID 1 of its namespace and does not reap: it has {counted(group)}",
            remedy="Put an init in front of it; until then `sexton reap` clears what is there. A SIGCHLD"
            " nudge is"
            " useless: nobody listens for it.",
            facts=(parentage(parent, group), mask(parent, "SigCgt", CHLD)),
            confidence="certain" if settled(evidence, group) else "likely",
        )


RULE = Rule(
    number=1,
    id="pid1-does-not-reap",
    title="PID 1 does not reap",
    cause="Every orphan of a PID namespace becomes a child of its PID 1. A program that was not written"
    " for that, as"
    " python, sleep or tail, never waits for children that it did not start, so each orphan that ends stays a"
    " zombie until PID 1 ends. When all of its zombies are young this is only likely: some reap every few seconds.",
    reads=("/proc/ZOMBIE/stat: state Z, ppid", "/proc/PID/status: NSpid ends in 1, SigCgt without SIGCHLD"),
    cures=(CLEAR_NOW, *USE_AN_INIT, *REAP_IN_CODE, *RESTART),
    seen_in=("puppeteer #615 and #1825", "argo-cd #3611 and #3694", "minio #6974", "nextcloud/docker #1512"),
    examine=examine,
)
