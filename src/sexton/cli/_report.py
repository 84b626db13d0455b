"""A diagnosis for people: what is wrong with whom, why, and what to paste."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.cli._table import Screen, plural
from sexton.proc import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Cure, Finding
    from sexton.proc import Container

_PLAIN_WIDTH = 100  # of prose where no terminal gives a width
_STYLES = {"problem": ("bold", "red"), "hazard": ("bold", "yellow")}


def report(evidence: Evidence, findings: Sequence[Finding], on: Screen) -> Iterator[str]:
    """The lines of a whole report."""
    shown: set[Cure] = set()
    for finding in findings:
        yield from section(finding, evidence, on, shown)
        yield ""
    yield on.paint(summary(evidence, findings), "bold")
    for sentence in evidence.blind:
        yield from _prose(f"Not seen: {sentence}", "", "  ", on)


def section(finding: Finding, evidence: Evidence, on: Screen, shown: set[Cure]) -> Iterator[str]:
    """The lines of one finding; of cures that are in `shown` only the name, and the others are added to
    it.
    """
    from sexton.doctor.diagnosis import first_cures

    head = f"{finding.severity.upper()}  {finding.rule} ({finding.confidence})"
    if finding.container:
        head += f"  in {_place(finding.container, evidence)}"
    yield on.paint(head, *_STYLES[finding.severity])
    yield from _prose(finding.what + ".", "  ", "  ", on)
    yield from _prose(finding.remedy, "  Do: ", "      ", on)
    yield "  Evidence:"
    for fact in finding.facts:
        yield from _prose(f"{fact.source}: {fact.value} ({fact.meaning})", "    ", "      ", on)
    fitting = first_cures(finding, evidence)
    for cure in fitting:
        if cure not in shown:
            yield from _cure(cure, on)
    again = [f"{cure.place}: {cure.what}" for cure in fitting if cure in shown]
    if again:
        yield from _prose(f"Also, as above: {'; '.join(again)}.", "  ", "    ", on)
    shown.update(fitting)
    others = len(finding.cures) - len(fitting)
    if others:
        yield on.paint(f"  {plural(others, 'more cure')} for other places: --json, or the page {finding.rule}", "dim")


def _place(container: Container, evidence: Evidence) -> str:
    """`docker web (0123456789ab), pod UID`, as far as that is known."""
    from sexton.cli import _names

    name = _names.read(evidence.at, evidence.containers).get(container.id)
    known = f"{printable(str(name))} ({container.short})" if name else container.short
    pod = f", pod {container.pod}" if container.pod else ""
    return f"{container.engine or 'container'} {known}{pod}"


def _cure(cure: Cure, on: Screen) -> Iterator[str]:
    yield on.paint(f"  Cure, {cure.place}: {cure.what}", "cyan")
    for line in cure.commands.split("\n"):
        yield f"      {line}"  # never wrapped: it is to be pasted
    yield from _prose(f"Risk: {cure.risk}", "    ", "      ", on)


def summary(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """One line on everything."""
    seen = f"{plural(len(evidence.scope), 'process', 'processes')}, {plural(len(evidence.zombies), 'zombie')}"
    tight = max(evidence.levels, key=lambda level: level.share, default=None)
    room = f", {tight.used} of {tight.limit} tasks ({tight.kind})" if tight else ""
    if not findings:
        return f"Healthy: {seen}{room}."
    problems = sum(finding.severity == "problem" for finding in findings)
    return f"{plural(problems, 'problem')}, {plural(len(findings) - problems, 'hazard')}: {seen}{room}."


def _prose(text: str, first: str, rest: str, on: Screen) -> list[str]:
    from textwrap import wrap

    width = max(40, on.width or _PLAIN_WIDTH)
    return wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
