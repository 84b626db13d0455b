"""Row 10: `job & exec app` gave the shell's children to the app."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.remedies import CLEAR_NOW, RESTART
from sexton.doctor.rules._tools import CHLD, by_parent, counted, finding, mask, parentage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.doctor.model import Finding
    from sexton.proc import Process

# What a start script starts, it starts before its exec: in the first seconds of the process that it is.
_FIRST = 3 * os.sysconf("SC_CLK_TCK")
# Without bash's own sign: a program that never waits would have made zombies later than that too. Seconds.
_OLD = 60.0


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies that a child of an init has had since its first seconds, when it may have been a shell."""
    for parent, group in by_parent(evidence, zombies):
        init = evidence.init_of(parent.process.pid)
        if init is None or init.runtime != "init" or parent.process.ppid != init.process.pid:
            continue
        early = [zombie for zombie in group if zombie.start - parent.process.start <= _FIRST]
        if parent.runtime in {"shell", "init"} or not early or parent.cannot_run:
            continue
        by_bash = parent.environ.get("SHLVL") == "0"
        if not by_bash and (len(early) < len(group) or evidence.at.age(parent.process) < _OLD):
            continue
        yield finding(
            RULE.id,
            parent,
            early,
            what=f"{parent.process.name} has {counted(early)} from before it was this program: a start"
            " script did"
            f" `job & exec {parent.process.comm}`, so the job is a child of {parent.process.name} and not of"
            f" {init.process.name}",
            remedy="Give the job to the init: let the script stay and wait, or start the job through a guard.",
            facts=_facts(parent, init, early, by_bash=by_bash),
            confidence="likely" if by_bash else "possible",
        )


def _facts(parent: Facts, init: Facts, early: Sequence[Process], *, by_bash: bool) -> list[Fact]:
    pid = parent.process.pid
    facts = [
        parentage(parent, early),
        Fact(
            f"/proc/{pid}/stat",
            f"ppid {init.process.pid}",
            f"the main program of the init {init.process.name}",
        ),
        Fact(f"/proc/{early[0].pid}/stat", f"start {early[0].start}", "within the first seconds of its parent"),
        mask(parent, "SigCgt", CHLD),
    ]
    if by_bash:
        facts.append(Fact(f"/proc/{pid}/environ", "SHLVL=0", "what bash leaves to a program that it execs"))
    return facts


RULE = Rule(
    number=10,
    id="exec-inherited",
    title="The app inherited the start script's children",
    cause="exec replaces the shell and keeps its children. After `job & exec app` the job is the app's"
    " child, though an"
    " init is PID 1: an init gets only orphans, and the job is none as long as the app lives. exec also"
    " drops the"
    " script's traps.",
    reads=(
        "/proc/ZOMBIE/stat: ppid is the init's main program, start near that program's own",
        "/proc/PID/environ: SHLVL=0, which bash leaves to what it execs",
    ),
    cures=(
        Cure(
            "shell",
            "Make the job an orphan on purpose, so that the init gets it",
            "(job &)         # the subshell ends at once, the init adopts the job\nexec app",
            "The script no longer knows the job's pid.",
        ),
        Cure(
            "shell",
            "Or let the script stay in front, and an init deliver the signals to all",
            '#!/bin/sh\n# ENTRYPOINT ["/usr/bin/sexton-init", "--", "/start.sh"]\njob &\napp &\nwait',
            "The container ends when both have ended; sexton-init signals the whole group.",
        ),
        CLEAR_NOW,
        *RESTART,
    ),
    seen_in=("tini #130", "the 7 GB in 72 hours of a Go service beside a monitoring agent"),
    examine=examine,
)
