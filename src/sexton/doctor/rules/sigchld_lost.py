"""Row 9: a parent that handles SIGCHLD has missed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Rule
from sexton.doctor.remedies import CLEAR_NOW, NUDGE, RESTART, WAIT_IN_CODE
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, mask, parentage
from sexton.proc import has

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies of a parent that catches SIGCHLD, or that is an init, which takes it without a handler."""
    for parent, group in by_parent(evidence, zombies):
        status = parent.status
        if status is None or not (has(status.caught, CHLD) or parent.runtime == "init"):
            continue
        reaper = parent.runtime in {"init", "shell"}
        blocked = has(status.blocked, CHLD) and parent.runtime != "init"
        yield finding(
            RULE.id,
            parent,
            group,
            what=f"{parent.process.name} handles SIGCHLD and has {counted(group)} all the same: "
            + ("it has SIGCHLD blocked" if blocked else "the signals of several deaths were merged into one, or lost"),
            remedy="Send it SIGCHLD, the cheapest first step. If the zombies stay, it does not wait for"
            " these children.",
            facts=(
                parentage(parent, group),
                mask(parent, "SigCgt", CHLD),
                *((mask(parent, "SigBlk", CHLD),) if blocked else ()),
            ),
            confidence="likely" if reaper or blocked else "possible",
        )


RULE = Rule(
    number=9,
    id="sigchld-lost",
    title="A SIGCHLD was merged or lost",
    cause="Signals of one kind do not queue: ten children that end while SIGCHLD is pending give one. A"
    " handler that"
    " waits once and not until nothing is left, or that is blocked, leaves the others as zombies.",
    reads=("/proc/ZOMBIE/stat: state Z, ppid", "/proc/PID/status: SigCgt with SIGCHLD, SigBlk"),
    cures=(NUDGE, CLEAR_NOW, *WAIT_IN_CODE, *RESTART),
    seen_in=("celery #6656", "rq #1193"),
    examine=examine,
)
