"""`sexton doctor`: each zombie and each hazard, its culprit, its cause and its cure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sexton.cli._report import report, section, summary
from sexton.cli._scope import of, of_container, of_pid
from sexton.cli._table import screen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sexton import proc
    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Cure, Finding

    Choice = Callable[[proc.Snapshot, Mapping[int, proc.Container]], Collection[int]]


# Seconds that a parent has for its child's end before a watch looks closer.
_MOMENT = 0.3


@click.command(short_help="Find what is wrong with processes, and the cure.")
@click.option("--pid", type=int, metavar="P", help="Only process P and its descendants.")
@click.option("--container", metavar="C", help="Only container or pod C: its name, or the beginning of its id.")
@click.option("--all", "everything", is_flag=True, help="Every process that is seen (the default).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as sexton-doctor(1) describes it.")
@click.option("--watch", is_flag=True, help="Stay, asleep until a process ends, and tell what changes.")
@click.argument("target", required=False, metavar="[PID|CONTAINER]")
@click.pass_context
def doctor(
    context: click.Context,
    *,
    target: str | None,
    pid: int | None,
    container: str | None,
    everything: bool,
    as_json: bool,
    watch: bool,
) -> None:
    """Find zombies and what is about to go wrong; name the culprit, the cause and the cure.

    PID and CONTAINER: as with --pid and --container.

    Ends with 0 when all is well, 1 when there is a finding, 2 when it could not look.
    """
    if (pid is not None) + (container is not None) + (target is not None) + everything > 1:
        raise click.UsageError("PID or CONTAINER, --pid, --container and --all exclude one another")
    choose = _choice(pid, container, target)
    if watch:
        _watch(choose, as_json=as_json)
    evidence, findings = _look(choose)
    if as_json:
        _print_json(evidence, findings)
    else:
        print("\n".join(report(evidence, findings, screen())))
    context.exit(1 if findings else 0)


def _choice(pid: int | None, container: str | None, target: str | None) -> Choice | None:
    if target is not None:
        return lambda at, known: of(at, target, known)
    if pid is not None:
        return lambda at, _: of_pid(at, pid)
    if container is not None:
        return lambda at, known: of_container(at, known, container)
    return None


def _look(choose: Choice | None) -> tuple[Evidence, Sequence[Finding]]:
    from sexton.doctor.diagnosis import diagnose
    from sexton.doctor.look import collect

    evidence = collect(choose=choose)
    return evidence, diagnose(evidence)


def _print_json(evidence: Evidence, findings: Sequence[Finding]) -> None:
    import json

    from sexton.doctor.document import document

    print(json.dumps(document(evidence, findings)), flush=True)


def _watch(choose: Choice | None, *, as_json: bool) -> None:
    """Look, then sleep until a process has ended and stayed a zombie; for ever."""
    from sexton.doctor.watch import Watch

    before: dict[object, Finding] = {}
    with Watch() as watching:
        first = True
        while True:
            evidence, findings = _look(choose)
            watching.show(evidence.at, evidence.scope)
            now = {_key(finding): finding for finding in findings}
            if (first or now.keys() != before.keys()) and as_json:
                _print_json(evidence, findings)
            elif first or now.keys() != before.keys():
                _print_changes(before, now, evidence)
            if first:
                print(f"sexton: watching: {watching.how()}", file=sys.stderr, flush=True)
            first, before = False, now
            watching.wait(evidence.scope if choose else None, _MOMENT)


def _key(finding: Finding) -> object:
    """What makes a finding the same at two looks: its rule and its culprit; not how many victims it has by
    now.
    """
    culprit = finding.culprit
    return finding.rule, (culprit.pid, culprit.start) if culprit else finding.facts[0].source


def _print_changes(before: Mapping[object, Finding], now: Mapping[object, Finding], evidence: Evidence) -> None:
    on = screen()
    for key, finding in before.items():
        if key not in now:
            who = f" of {finding.culprit.name}" if finding.culprit else ""
            print(on.paint(f"GONE  {finding.rule}{who}", "green"))
    shown: set[Cure] = set()
    for key, finding in now.items():
        if key not in before:
            print("\n".join(section(finding, evidence, on, shown)))
    print(on.paint(summary(evidence, list(now.values())), "bold"), flush=True)
