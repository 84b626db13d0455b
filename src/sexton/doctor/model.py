"""The words of a diagnosis: facts, cures, findings, and the rule that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.proc import Container, Process

Severity = Literal["problem", "hazard"]
"""A problem does damage now; a hazard will, or makes the next stop slow."""

Confidence = Literal["certain", "likely", "possible"]

Place = Literal[
    "sexton",
    "host",
    "docker",
    "compose",
    "kubernetes",
    "podman",
    "systemd",
    "python",
    "node",
    "go",
    "java",
    "shell",
]


class Fact(NamedTuple):
    """One thing that was read: the file, what it said, and what that means here."""

    source: str
    value: str
    meaning: str


class Cure(NamedTuple):
    """Commands or code to paste, where they go, and what may go wrong.

    In `commands`, {pid} and {name} are the culprit's, {container} its container, {victim} the first
    victim, {where} the directory of a cgroup.
    """

    place: Place
    what: str
    commands: str
    risk: str


class Finding(NamedTuple):
    """What is wrong with whom. Pids are as the /proc that was looked at has them."""

    rule: str
    severity: Severity
    confidence: Confidence
    culprit: Process | None
    container: Container | None
    victims: tuple[Process, ...]
    what: str
    remedy: str
    facts: tuple[Fact, ...]
    cures: tuple[Cure, ...]


class Rule(NamedTuple):
    """A row of the table of causes. `examine` is pure; it gets the zombies that no rule before it has
    claimed.
    """

    number: int
    id: str
    title: str
    cause: str
    reads: tuple[str, ...]
    cures: tuple[Cure, ...]
    seen_in: tuple[str, ...]
    examine: Callable[[Evidence, Sequence[Process]], Iterable[Finding]]
