"""Row 11: SIGCHLD is ignored: statuses are lost, or zombies stay from before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Rule
from sexton.doctor.remedies import CLEAR_NOW, RESTART
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, mask, parentage
from sexton.proc import has

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process

# Runtimes whose programs ask for the status of what they start.
_ASKING = frozenset({"python", "java", "go", "node"})


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies of a parent that ignores SIGCHLD now; and parents with children whose statuses will be lost."""
    blamed = set()
    for parent, group in by_parent(evidence, zombies):
        if parent.status is not None and has(parent.status.ignored, CHLD) and not parent.cannot_run:
            blamed.add(parent.process.pid)
            yield finding(
                RULE.id,
                parent,
                group,
                what=f"{parent.process.name} ignores SIGCHLD, but began to after these had ended: it has"
                f" {counted(group)} that the kernel does not clear any more",
                remedy="Its code must wait for them once; what ends from now on leaves neither zombie nor status.",
                facts=(parentage(parent, group), mask(parent, "SigIgn", CHLD)),
            )
    for known in evidence.people.values():
        pid = known.process.pid
        if known.status is None or not has(known.status.ignored, CHLD) or pid in blamed or pid not in evidence.scope:
            continue
        children = [child for child in evidence.at.children(pid) if not child.zombie]
        if children and known.runtime in _ASKING:
            yield finding(
                RULE.id,
                known,
                (),
                what=f"{known.process.name} ignores SIGCHLD and has"
                f" {counted(children, 'child process')}: the kernel"
                " will throw their exit statuses away, and each wait for them ends in ECHILD",
                remedy="Start it with SIGCHLD at its default, which it does not restore by itself.",
                facts=(mask(known, "SigIgn", CHLD),),
                confidence="likely",
                severity="hazard",
            )


RULE = Rule(
    number=11,
    id="sigchld-ignored",
    title="SIGCHLD is ignored",
    cause="While a process ignores SIGCHLD the kernel reaps its children by itself: no zombies, and no"
    " exit statuses, so"
    " that waits fail with ECHILD and programs report 0 or 255. The disposition is inherited over exec,"
    " so the"
    " culprit may be whoever started the program. Zombies from before the moment it was set stay.",
    reads=("/proc/PID/status: SigIgn with SIGCHLD",),
    cures=(
        Cure(
            "shell",
            "Start the program with the default restored; a shell cannot undo by trap what it was started with",
            "exec env --default-signal=CHLD app    # coreutils 8.31 or newer",
            "None known.",
        ),
        Cure(
            "python",
            "Restore the default before the first child is started",
            "signal.signal(signal.SIGCHLD, signal.SIG_DFL)",
            "Children that nobody waits for become zombies again.",
        ),
        CLEAR_NOW,
        *RESTART,
    ),
    seen_in=(),
    examine=examine,
)
