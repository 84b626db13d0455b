"""`sexton reap`: bury zombies that their parent neglects, without stopping the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._scope import of_container, of_pid
from sexton.cli._table import fold, plural, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sexton import proc
    from sexton.doctor.cure import Deed
    from sexton.doctor.evidence import Evidence
    from sexton.doctor.model import Cure

_STYLES = {"reaped": ("green",), "left": ("yellow",), "refused": ("red",)}


@click.command(short_help="Bury zombies without a restart of their parent.")
@click.argument("target", required=False)
@click.option("--parent", type=int, metavar="P", help="The zombies of process P.")
@click.option(
    "--container", metavar="C", help="The zombies in container or pod C: its name, or the beginning of its id."
)
@click.option("--all", "everything", is_flag=True, help="Every zombie that is seen.")
@click.option("--yes", is_flag=True, help="Do it; without this, only tell what is wrong and what would be done.")
@click.option("--force", is_flag=True, help="Take zombies too that their parent may be waiting for.")
@click.option("--kill-parent", is_flag=True, help="End the parent of what is left after all else.")
@click.option("--keep", is_flag=True, help="Stay, asleep, and bury each new zombie of TARGET.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as sexton-reap(1) describes it.")
@click.pass_context
def reap(
    context: click.Context,
    *,
    target: str | None,
    parent: int | None,
    container: str | None,
    everything: bool,
    yes: bool,
    force: bool,
    kill_parent: bool,
    keep: bool,
    as_json: bool,
) -> None:
    """Bury zombies: tell, nudge their parent with SIGCHLD, then have it call wait4 itself.

    TARGET is the pid of a zombie; with --keep, the pid of a parent, or a container. Stops at the first
    rung that works. Ends with 0 when nothing is left, 1 when a zombie is, 2 when it could not look.
    """
    if keep and target is None and parent is None and container is None:
        raise click.UsageError("--keep takes the pid of a parent, or a container")
    given = (target is not None) + (parent is not None) + (container is not None) + everything
    if given != 1:
        raise click.UsageError("name one of: a zombie's pid, --parent P, --container C, --all")
    if keep:
        kept = target or container or (str(parent) if parent is not None else "")
        if not kept or kill_parent:
            raise click.UsageError("--keep takes the pid of a parent, or a container, and never kills")
        from sexton.cli._keep import stay

        context.exit(stay(kept, force=force, as_json=as_json))
    from sexton.doctor.look import collect

    evidence = collect(choose=_choice(target, parent, container))
    if not yes:
        _tell(evidence, as_json=as_json)
        context.exit(1 if evidence.zombies else 0)
    from sexton.doctor.cure import cure, left_of

    _say(cure(evidence, force=force, kill_parent=kill_parent), as_json=as_json)
    left = left_of(evidence.zombies, None)
    if not as_json:
        reaped = len(evidence.zombies) - len(left)
        print(f"{plural(reaped, 'zombie')} reaped, {len(left)} left.")
    context.exit(1 if left else 0)


def _choice(
    target: str | None, parent: int | None, container: str | None
) -> Callable[[proc.Snapshot, Mapping[int, proc.Container]], Collection[int]] | None:
    if target is not None:
        pid = _number(target)
        return lambda at, _: _zombie(at, pid)
    if parent is not None:
        return lambda at, _: {pid for pid in of_pid(at, parent) if at.processes[pid].ppid == parent}
    if container is not None:
        return lambda at, known: of_container(at, known, container)
    return None


def _number(target: str) -> int:
    if not target.isdecimal():
        raise click.UsageError(f"{target!r} is no pid; a container is named with --container, or with --keep")
    return int(target)


def _zombie(at: proc.Snapshot, pid: int) -> Collection[int]:
    of_pid(at, pid)  # says why it cannot be seen
    process = at.processes[pid]
    if not process.zombie:
        raise click.UsageError(f"{process.name} is not a zombie; for the zombies it has: --parent {pid}")
    return {pid}


def _tell(evidence: Evidence, *, as_json: bool) -> None:
    """The first rung: what is wrong, and what each of the others would do."""
    from sexton.doctor.cure import plan

    if not as_json:
        from sexton.cli._report import section
        from sexton.doctor.diagnosis import diagnose

        shown: set[Cure] = set()
        for finding in diagnose(evidence):
            if any(victim.zombie for victim in finding.victims):
                print("\n".join(section(finding, evidence, screen(), shown)), end="\n\n")
    deeds = list(plan(evidence))
    _say(deeds, as_json=as_json)
    if not as_json:
        print(fold(_outlook(deeds), screen()))


def _outlook(deeds: Sequence[Deed]) -> str:
    """What there is, and what --yes would make of it."""
    if not deeds:
        return "No zombies."
    text = f"{plural(len(deeds), 'zombie')}; nothing was done: --yes does it"
    if all(deed.result == "left" for deed in deeds):
        return f"{text}."
    return f"{text} to those marked `would`; what a parent may be waiting for, only --yes --force takes."


def _say(deeds: Iterable[Deed], *, as_json: bool) -> None:
    """Each deed as it is done; for people those of a kind on one line, however many zombies there are."""
    if as_json:
        import json

        for deed in deeds:
            print(json.dumps(document(deed)), flush=True)
        return
    from itertools import groupby

    for _, group in groupby(deeds, key=lambda deed: (deed.culprit, deed.rung, deed.result, deed.why)):
        print(line(list(group)), flush=True)


def line(deeds: Sequence[Deed]) -> str:
    """One line on deeds that differ in nothing but the zombie."""
    first = deeds[0]
    whose = f" of {first.culprit.name}" if first.culprit else ""
    longest = max(deed.stopped_for for deed in deeds)
    held = f" (stopped it for {longest * 1000:.2f} ms{' at most' if len(deeds) > 1 else ''})" if longest else ""
    who = first.zombie.name if len(deeds) == 1 else f"{len(deeds)} zombies, {first.zombie.name} the first,"
    word = "would" if first.rung == "tell" and first.result == "left" else first.result
    on = screen()
    painted = on.paint(f"{word:8}", *_STYLES[first.result])
    said = fold(f"{first.rung:11} {word:8} {who}{whose}{held}: {first.why}", on, " " * 12)
    return said.replace(f" {word:8} ", f" {painted} ", 1)


def document(deed: Deed) -> dict[str, object]:
    """A deed as JSON: pids as sexton sees them, times in seconds."""
    culprit = deed.culprit
    return {
        "pid": deed.zombie.pid,
        "comm": deed.zombie.comm,
        "parent": culprit and {"pid": culprit.pid, "comm": culprit.comm},
        "rung": deed.rung,
        "result": deed.result,
        "why": deed.why,
        "stopped_for": deed.stopped_for,
    }
