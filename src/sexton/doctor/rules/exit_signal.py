"""Row 7: the child was made by clone without SIGCHLD, and a plain wait does not see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.remedies import RESTART
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, parentage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies whose exit signal is another than SIGCHLD."""
    for parent, group in by_parent(evidence, zombies):
        cloned = [zombie for zombie in group if zombie.exit_signal != CHLD]
        if not cloned or parent.cannot_run:
            continue
        signal = cloned[0].exit_signal
        yield finding(
            RULE.id,
            parent,
            cloned,
            what=f"{parent.process.name} made {counted(cloned)} by clone with exit signal {signal} in"
            " place of SIGCHLD;"
            " a plain wait says ECHILD, and no SIGCHLD was sent",
            remedy="Its code must wait with __WALL or __WCLONE. `sexton reap --force` does so from outside.",
            facts=(
                parentage(parent, cloned),
                Fact(
                    f"/proc/{cloned[0].pid}/stat",
                    f"exit_signal {signal} (field 38)",
                    f"SIGCHLD would be {CHLD}",
                ),
            ),
        )


RULE = Rule(
    number=7,
    id="exit-signal",
    title="The child reports its end by another signal than SIGCHLD",
    cause="clone(2) takes the signal that tells the parent of the child's end; with 0 or another one,"
    " wait and waitpid do"
    " not return the child unless they are asked with __WALL or __WCLONE, and no SIGCHLD handler runs.",
    reads=("/proc/ZOMBIE/stat: exit_signal, field 38",),
    cures=(
        Cure(
            "sexton",
            "Clear the zombies that are there, without a restart",
            "sexton reap --parent {pid} --yes --force",
            "{name} stops for about a millisecond. If it waits with __WALL later, that wait says ECHILD.",
        ),
        Cure(
            "go",
            "Wait with __WALL, or clone with SIGCHLD",
            "syscall.Wait4(pid, &status, syscall.WALL, nil)   // or SysProcAttr{Cloneflags: …} and cmd.Wait()",
            "None known.",
        ),
        Cure(
            "python",
            "Wait with __WALL, or clone with SIGCHLD",
            "os.waitpid(pid, 0x40000000)   # __WALL",
            "None known.",
        ),
        *RESTART,
    ),
    seen_in=(),
    examine=examine,
)
