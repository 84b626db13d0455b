"""Row 15: fork says EAGAIN, or will soon: a limit on the number of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.evidence import Facts
from sexton.doctor.model import Cure, Fact, Rule
from sexton.doctor.remedies import CLEAR_NOW, USE_AN_INIT
from sexton.doctor.rules._tools import counted, finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Level, Process

# Of 1. At the first there is time to act; at the second the next burst fails.
HIGH, FULL = 0.8, 0.95


def examine(evidence: Evidence, _zombies: Sequence[Process]) -> Iterator[Finding]:
    """Limits that are nearly used up, or that have already refused a fork."""
    for level in evidence.levels:
        full = level.share >= FULL
        if level.share < HIGH and not level.refused:
            continue
        culprit, zombies = _most_zombies(evidence, level)
        dead = f", {level.dead} of them zombies" if level.dead else ""
        refused = f"; fork was refused {level.refused} times" if level.refused else ""
        yield finding(
            RULE.id,
            culprit,
            (),
            what=f"{level.kind} of {level.where}: {level.used} of {level.limit} tasks are used{dead}{refused}"
            + ("; the next fork fails with EAGAIN" if full else ""),
            remedy=(
                f"Clear the zombies of {culprit.process.name}, which has {counted(zombies)}."
                if culprit
                else "End what is not needed, then raise the limit; threads count too."
            ),
            facts=_facts(level),
            severity="problem" if full or (level.refused and level.share >= HIGH) else "hazard",
        )


def _facts(level: Level) -> list[Fact]:
    if level.kind == "pids.max":
        facts = [
            Fact(f"{level.where}/pids.current", str(level.used), "tasks: threads, and zombies too"),
            Fact(f"{level.where}/pids.max", str(level.limit), "of this cgroup and all below it"),
        ]
        if level.refused:
            facts.append(Fact(f"{level.where}/pids.events", f"max {level.refused}", "forks refused since it was made"))
        return facts
    return [Fact(level.where, str(level.limit), f"{level.kind}; {level.used} tasks are counted against it")]


def _most_zombies(evidence: Evidence, level: Level) -> tuple[Facts | None, tuple[Process, ...]]:
    """Whoever has the most zombies, if those are a fifth at least of what is used."""
    groups: dict[int, list[Process]] = {}
    for zombie in evidence.zombies:
        groups.setdefault(zombie.ppid, []).append(zombie)
    worst = max(groups, key=lambda pid: len(groups[pid]), default=None)
    if worst is None or not level.dead or len(groups[worst]) * 5 < level.used or worst not in evidence.at:
        return None, ()
    known = evidence.facts(worst) or Facts(evidence.at.processes[worst])
    return known, tuple(groups[worst])


RULE = Rule(
    number=15,
    id="pid-headroom",
    title="The pids run out",
    cause="Every process, thread and zombie takes a pid. fork fails with EAGAIN (`Resource temporarily"
    " unavailable`, `cannot"
    " fork`, `can't start new thread`) at the first of: pids.max of the cgroup or of any above it,"
    " RLIMIT_NPROC of the"
    " user, threads-max, pid_max (of the PID namespace since Linux 6.14).",
    reads=(
        "pids.current, pids.max, pids.events of each ancestor cgroup",
        "/proc/PID/limits: Max processes, against the tasks of that user",
        "/proc/sys/kernel/threads-max, /proc/sys/kernel/pid_max, /proc/loadavg",
    ),
    cures=(
        CLEAR_NOW,
        Cure(
            "docker",
            "Raise the limit of the running container",
            "docker update --pids-limit 4096 {container}",
            "A fork bomb gets further before it is stopped.",
        ),
        Cure(
            "compose",
            "Raise the limit",
            "services:\n  SERVICE:\n    pids_limit: 4096",
            "A fork bomb gets further before it is stopped.",
        ),
        Cure(
            "kubernetes",
            "Raise the limit of the pods of a node",
            "# kubelet configuration\npodPidsLimit: 4096",
            "The kubelet restarts; a fork bomb gets further.",
        ),
        Cure(
            "podman",
            "Raise the limit of the running container",
            "podman update --pids-limit 4096 {container}",
            "A fork bomb gets further before it is stopped.",
        ),
        Cure(
            "systemd",
            "Raise the limit of the unit",
            "systemctl set-property UNIT TasksMax=4096",
            "A fork bomb gets further before it is stopped.",
        ),
        Cure(
            "host",
            "Raise the limit of the machine",
            "sysctl -w kernel.pid_max=4194304 kernel.threads-max=200000",
            "More kernel memory can be used by processes.",
        ),
        *USE_AN_INIT,
    ),
    seen_in=(
        "a page-metrics service at its container's limit of 15,000 pids",
        "argo-cd #3611 (10,485 zombies)",
    ),
    examine=examine,
)
