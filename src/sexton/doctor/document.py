"""A diagnosis as plain objects for JSON; the form is documented in docs/doctor/json.md, and its keys are
tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.proc import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Finding
    from sexton.proc import Container, Process

SCHEMA = 1
# Of the victims of one finding, so many are listed; `victim_count` has them all.
_MOST_VICTIMS = 100


def document(evidence: Evidence, findings: Sequence[Finding]) -> dict[str, object]:
    """The whole look: what was found, the headroom at every level, and what was not seen."""
    return {
        "schema": SCHEMA,
        "healthy": not findings,
        "processes": len(evidence.scope),
        "zombies": len(evidence.zombies),
        "states": evidence.at.states(),
        "findings": [_finding(one) for one in findings],
        "headroom": [
            {
                "kind": level.kind,
                "where": level.where,
                "used": level.used,
                "limit": level.limit,
                "refused": level.refused,
                "zombies": level.dead,
            }
            for level in evidence.levels
        ],
        "not_seen": list(evidence.blind),
    }


def _finding(one: Finding) -> dict[str, object]:
    return {
        "rule": one.rule,
        "severity": one.severity,
        "confidence": one.confidence,
        "culprit": _process(one.culprit) if one.culprit else None,
        "container": _container(one.container),
        "victims": [_process(victim) for victim in one.victims[:_MOST_VICTIMS]],
        "victim_count": len(one.victims),
        "what": one.what,
        "remedy": one.remedy,
        "evidence": [fact._asdict() for fact in one.facts],
        "cures": [cure._asdict() for cure in one.cures],
    }


def _process(process: Process) -> dict[str, object]:
    return {"pid": process.pid, "name": printable(process.comm), "state": process.state, "ppid": process.ppid}


def _container(one: Container | None) -> dict[str, object] | None:
    return {"id": one.id, "engine": one.engine, "pod": one.pod} if one else None
