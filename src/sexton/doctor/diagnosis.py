"""Thinking: from evidence to findings, each with its cures filled in. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.doctor.evidence import HOST_NAMESPACE
from sexton.doctor.rules import BY_ID, ORDER

if TYPE_CHECKING:
    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Cure, Finding, Place
    from sexton.proc import Container

_ENGINES: dict[str, tuple[Place, ...]] = {
    "docker": ("docker", "compose"),
    "podman": ("podman",),
    "containerd": ("kubernetes",),
    "cri-o": ("kubernetes",),
}
_CODE = frozenset({"python", "node", "go", "java", "shell"})


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Every finding: problems before hazards, and then whoever has the most victims first."""
    unclaimed = evidence.zombies
    found: list[Finding] = []
    for rule in ORDER:
        claimed: set[int] = set()
        for one in rule.examine(evidence, unclaimed):
            claimed.update(victim.pid for victim in one.victims if victim.zombie)
            found.append(one._replace(cures=cures(one, evidence)))
        if claimed:
            unclaimed = tuple(zombie for zombie in unclaimed if zombie.pid not in claimed)
    found.sort(key=lambda one: (one.severity != "problem", -len(one.victims)))
    return tuple(found)


def cures(finding: Finding, evidence: Evidence) -> tuple[Cure, ...]:
    """The cures of the finding's rule, with its pids and names in them, those that fit its place first."""
    culprit = finding.culprit
    known = evidence.facts(culprit.pid) if culprit else None
    names = {
        "{pid}": str(culprit.pid) if culprit else "PID",
        "{name}": culprit.name if culprit else "the parent",
        "{container}": finding.container.short if finding.container else "CONTAINER",
        "{victim}": str(finding.victims[0].pid) if finding.victims else "PID",
        "{where}": known.frozen if known and known.frozen else "/sys/fs/cgroup/…",
    }
    filled = [
        cure._replace(commands=_fill(cure.commands, names), risk=_fill(cure.risk, names)) for cure in _of(finding)
    ]
    first = _places(finding, evidence)
    return tuple(sorted(filled, key=lambda cure: cure.place not in first))


def first_cures(finding: Finding, evidence: Evidence) -> tuple[Cure, ...]:
    """Those of its cures that fit the place of the finding; `cures` has put them first."""
    return finding.cures[: sum(cure.place in _places(finding, evidence) for cure in finding.cures)]


def _places(finding: Finding, evidence: Evidence) -> frozenset[str]:
    pid = finding.culprit.pid if finding.culprit else 0
    known, init = evidence.facts(pid), evidence.init_of(pid)
    private = init is not None and init.namespace not in {0, HOST_NAMESPACE}
    return fitting(finding.container, known.runtime if known else "", private=private)


def _of(finding: Finding) -> tuple[Cure, ...]:
    return BY_ID[finding.rule].cures


def _fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def fitting(container: Container | None, runtime: str, *, private: bool) -> frozenset[str]:
    """The places whose cures fit a process: those of its engine, and the language it is written in.

    `private` says that it is in a PID namespace of its own, so in a container though its cgroup does not
    tell.
    """
    places: set[str] = {"sexton", "host"}
    if container is None:
        places.update(("docker", "compose", "kubernetes", "podman") if private else ("systemd",))
    elif container.pod:
        places.add("kubernetes")
    else:
        places.update(_ENGINES.get(container.engine, ("docker", "compose", "kubernetes", "podman")))
    if runtime in _CODE:
        places.add(runtime)
    return frozenset(places)
