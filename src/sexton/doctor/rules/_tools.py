"""What rules share: grouping, counting and wording; no knowledge of causes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.model import Confidence, Fact, Finding, Severity
from sexton.proc import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence, Facts
    from sexton.proc import Process

# Seconds between two looks of the slowest reapers.
SLOW = 5.0
CHLD = 17
TERM = 15


def by_parent(evidence: Evidence, zombies: Sequence[Process]) -> Iterator[tuple[Facts, tuple[Process, ...]]]:
    """Each parent that something was read of, with its zombies among these."""
    groups: dict[int, list[Process]] = {}
    for zombie in zombies:
        groups.setdefault(zombie.ppid, []).append(zombie)
    for pid, group in groups.items():
        facts = evidence.facts(pid)
        if facts is not None:
            yield facts, tuple(group)


def settled(evidence: Evidence, zombies: Sequence[Process]) -> bool:
    """Whether one of them may have been dead for longer than a slow reaper takes; when it died is in no file."""
    return any(evidence.at.age(zombie) > SLOW for zombie in zombies)


def counted(victims: Sequence[Process], one: str = "zombie") -> str:
    """`1 zombie (sh[12])`, `5 zombies (sh x 4, curl)`."""
    if len(victims) == 1:
        return f"1 {one} ({victims[0].name})"
    names: dict[str, int] = {}
    for process in victims:
        names[process.comm] = names.get(process.comm, 0) + 1
    most = sorted(names, key=lambda name: -names[name])
    shown = ", ".join(f"{printable(name)} x {names[name]}" if names[name] > 1 else printable(name) for name in most[:4])
    more = ", …" if len(most) > 4 else ""
    return f"{len(victims)} {one}{'es' if one.endswith('s') else 's'} ({shown}{more})"


def finding(
    rule: str,
    culprit: Facts | None,
    victims: Sequence[Process],
    *,
    what: str,
    remedy: str,
    facts: Sequence[Fact],
    confidence: Confidence = "certain",
    severity: Severity = "problem",
) -> Finding:
    """A finding without cures: those are the rule's, filled in by the diagnosis."""
    return Finding(
        rule=rule,
        severity=severity,
        confidence=confidence,
        culprit=culprit.process if culprit else None,
        container=culprit.container if culprit else None,
        victims=tuple(victims),
        what=what,
        remedy=remedy,
        facts=tuple(facts),
        cures=(),
    )


def parentage(culprit: Facts, victims: Sequence[Process]) -> Fact:
    """The fact that these are zombies of that parent."""
    first = victims[0]
    return Fact(
        f"/proc/{first.pid}/stat",
        f"state {first.state}, ppid {first.ppid}",
        f"a zombie of {culprit.process.name}",
    )


def mask(culprit: Facts, name: str, signum: int) -> Fact:
    """What a signal mask of `status` says of one signal."""
    status = culprit.status
    value = 0 if status is None else {"SigCgt": status.caught, "SigIgn": status.ignored, "SigBlk": status.blocked}[name]
    verbs = {"SigCgt": "caught", "SigIgn": "ignored", "SigBlk": "blocked"}
    signal = {CHLD: "SIGCHLD", TERM: "SIGTERM"}[signum]
    said = "" if value >> (signum - 1) & 1 else "not "
    return Fact(f"/proc/{culprit.process.pid}/status", f"{name} {value:016x}", f"{signal} is {said}{verbs[name]}")
