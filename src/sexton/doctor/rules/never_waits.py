"""Beyond the sixteen rows: a program that is no PID 1 and does not wait for what it started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Rule
from sexton.doctor.remedies import CLEAR_NOW, RESTART, WAIT_IN_CODE
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, mask, parentage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Whatever zombies are left over by the other rules."""
    for parent, group in by_parent(evidence, zombies):
        yield finding(
            RULE.id,
            parent,
            group,
            what=f"{parent.process.name} started {counted(group)} and never waited for"
            f" {'it' if len(group) == 1 else 'them'}",
            remedy="Its code must wait for each child that it starts. When it ends, its zombies go to PID 1.",
            facts=(parentage(parent, group), mask(parent, "SigCgt", CHLD)),
            confidence="likely",
        )


RULE = Rule(
    number=17,
    id="never-waits",
    title="A program never waits for what it starts",
    cause="Whoever starts a process must wait for it once. A program that keeps no handle, that waits in"
    " code which it never"
    " comes to, or that was killed from its own wait's thread, leaves one zombie for each child.",
    reads=("/proc/ZOMBIE/stat: state Z, ppid", "/proc/PID/status: SigCgt without SIGCHLD"),
    cures=(*WAIT_IN_CODE, CLEAR_NOW, *RESTART),
    seen_in=("a local app manager in Go that forgot cmd.Wait",),
    examine=examine,
)
