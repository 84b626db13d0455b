"""Row 8: the parent is stopped, traced, in D or frozen, and so runs no handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import by_parent, counted, finding, parentage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies of a parent that cannot run; and such parents whose children do run, as a hazard."""
    blamed = set()
    for parent, group in by_parent(evidence, zombies):
        if parent.cannot_run:
            blamed.add(parent.process.pid)
            yield finding(
                RULE.id,
                parent,
                group,
                what=f"{parent.process.name} is {parent.cannot_run}, so it cannot reap: it has {counted(group)}",
                remedy=_remedy(parent),
                facts=(parentage(parent, group), _fact(parent)),
            )
    for known in evidence.people.values():
        pid = known.process.pid
        if pid in blamed or pid not in evidence.scope or known.process.zombie or not known.cannot_run:
            continue
        running = [child for child in evidence.at.children(pid) if child.state in "RS" and not _frozen(evidence, child)]
        # A stuck process has a rule of its own, and a job that is stopped with its children is somebody's
        # Ctrl-Z.
        if running and known.process.state != "D":
            yield finding(
                RULE.id,
                known,
                (),
                what=f"{known.process.name} is {known.cannot_run} while"
                f" {counted(running, 'child process')} of it runs:"
                " those that end will stay zombies",
                remedy=_remedy(known),
                facts=(_fact(known),),
                severity="hazard",
            )


def _frozen(evidence: Evidence, process: Process) -> bool:
    known = evidence.facts(process.pid)
    return known is not None and bool(known.frozen)


def _remedy(parent: Facts) -> str:
    if parent.frozen:
        return f"Thaw it: unpause the container, or write to {parent.frozen}."
    words = {
        "T": "Send it SIGCONT.",
        "t": "Let its tracer go on, or end the tracer.",
        "D": "Mend what it waits for.",
    }
    return words[parent.process.state]


def _fact(parent: Facts) -> Fact:
    if parent.frozen:
        return Fact(parent.frozen, "frozen", "no process of this cgroup runs")
    return Fact(f"/proc/{parent.process.pid}/stat", f"state {parent.process.state}", parent.cannot_run)


RULE = Rule(
    number=8,
    id="parent-cannot-run",
    title="The parent is stopped, frozen or stuck",
    cause="A process reaps by running code. Stopped by a signal or a tracer, frozen by its cgroup, or in an"
    " uninterruptible sleep it runs none, and what ends meanwhile waits as a zombie.",
    reads=("/proc/PID/stat: state T, t or D", "freezer.state (version 1), cgroup.freeze (version 2)"),
    cures=(
        Cure("host", "Let it go on", "kill -CONT {pid}", "None, unless somebody stopped it for a reason."),
        Cure(
            "docker",
            "Thaw the container",
            "docker unpause {container}",
            "Its processes go on where they were.",
        ),
        Cure(
            "podman",
            "Thaw the container",
            "podman unpause {container}",
            "Its processes go on where they were.",
        ),
        Cure(
            "host",
            "Thaw a cgroup by hand",
            "echo THAWED > {where}/freezer.state   # version 1\necho 0 > {where}/cgroup.freeze        # version 2",
            "Its processes go on; an engine that froze them for a checkpoint or a commit is disturbed.",
        ),
        Cure("systemd", "Thaw the unit", "systemctl thaw UNIT", "Its processes go on where they were."),
    ),
    seen_in=(),
    examine=examine,
)
