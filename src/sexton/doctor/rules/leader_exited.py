"""Row 5: the first thread has ended and others live on; no wait can reap that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.evidence import Facts
from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.rules._tools import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Process


def examine(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[Finding]:
    """Zombies with more than one thread."""
    for zombie in zombies:
        if zombie.threads <= 1:
            continue
        known = evidence.facts(zombie.pid) or Facts(zombie, container=evidence.containers.get(zombie.pid))
        yield finding(
            RULE.id,
            known,
            (zombie,),
            what=f"{zombie.name} looks dead and is not: its first thread has ended, {zombie.threads - 1}"
            " of its threads"
            " live on, and nobody can reap it before they end",
            remedy=f"See what they do in /proc/{zombie.pid}/task/*; a signal to {zombie.pid} reaches"
            " them, SIGKILL ends"
            " them all.",
            facts=(
                Fact(
                    f"/proc/{zombie.pid}/stat",
                    f"state Z, {zombie.threads} threads",
                    "more than the one that died",
                ),
            ),
        )


RULE = Rule(
    number=5,
    id="leader-exited",
    title="The first thread has ended, others live on",
    cause="A process whose first thread ends by itself (pthread_exit in main, or a seccomp filter that"
    " kills the thread"
    " and not the process) shows as a zombie while its other threads run. It is not dead: it holds its"
    " memory, files"
    " and locks, and no wait returns it.",
    reads=("/proc/PID/stat: state Z, more than one thread", "/proc/PID/task/*: the threads that live"),
    cures=(
        Cure(
            "host",
            "See what the threads do, then end the process as a whole",
            "grep -H . /proc/{victim}/task/*/wchan\nkill -TERM {victim}   # then, if it stays: kill -KILL {victim}",
            "The work that the living threads do is lost.",
        ),
        Cure(
            "go",
            "Let a seccomp profile kill the process, and not one thread of it",
            '"defaultAction": "SCMP_ACT_KILL_PROCESS"',
            "None beyond what the profile does now.",
        ),
        Cure(
            "docker",
            "Let a seccomp profile kill the process, and not one thread of it",
            'docker run --security-opt seccomp=FILE …\n# with "defaultAction": "SCMP_ACT_KILL_PROCESS"',
            "The container is made anew.",
        ),
    ),
    seen_in=("runc #5431",),
    examine=examine,
)
