"""`sexton status`: every instance, and how it is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from sexton.cli._table import Column, Screen, fold, plural, screen, span, table, wide
from sexton.cli._up import BAD, STYLES, client, file_option, ports_of
from sexton.cli.events import how

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sexton.supervise import models
    from sexton.supervise.client import Client

    Row = tuple[tuple[str, ...], tuple[str, ...]]

COLUMNS = [
    Column("INSTANCE"),
    Column("STATE"),
    Column("FOR", right=True),
    Column("PID", right=True),
    Column("RESTARTS", right=True),
    Column("PORTS", elastic=True),
    Column("WHY", elastic=True),
]


@click.command()
@file_option
@click.option("--watch", is_flag=True, help="Stay, and show it again whenever it changes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as sexton-status(1) describes it.")
@click.argument("targets", nargs=-1, metavar="[APP[.N]]...")
def status(*, file: Path | None, watch: bool, as_json: bool, targets: tuple[str, ...]) -> None:
    """Show every instance, or these, and its state.

    Ends with 0 if all is well, 1 if an instance has failed, waits for its restart or is stuck, 3 if no supervisor runs.
    """
    supervisor = client(file)
    found = supervisor.status()
    _check(found, targets)
    if watch:
        _watch(supervisor, targets, as_json=as_json)
        return
    found = _only(found, targets)
    _show(found, screen(), as_json=as_json)
    sys.exit(any(one.state in BAD for app in found.apps for one in app.instances))


def _show(found: models.Status, on: Screen, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        text = msgspec.json.encode(found).decode()
    else:
        text = "\n".join(lines(found, on, time.time()))
    print(text, flush=True)


def _check(found: models.Status, targets: tuple[str, ...]) -> None:
    """Raises UsageError for a target that there is not."""
    from sexton.supervise.targets import unknown

    apps = [app.name for app in found.apps]
    instances = [one.name for app in found.apps for one in app.instances]
    for target in targets:
        if target not in {"all", *apps, *instances}:
            raise unknown(target, apps, instances)


def _only(found: models.Status, targets: tuple[str, ...]) -> models.Status:
    """Of all apps and instances those that are meant; without targets all."""
    if not targets or "all" in targets:
        return found
    import msgspec

    apps = []
    for app in found.apps:
        chosen = tuple(one for one in app.instances if app.name in targets or one.name in targets)
        if chosen or app.name in targets:
            apps.append(msgspec.structs.replace(app, instances=chosen))
    return msgspec.structs.replace(found, apps=tuple(apps))


def _watch(supervisor: Client, targets: tuple[str, ...], *, as_json: bool) -> None:
    """Again after each event; one look serves for all the events before it."""
    on = screen()
    looked = 0.0
    for event in supervisor.events(follow=True):
        if event.time < looked:
            continue
        looked = time.time()
        found = _only(supervisor.status(), targets)
        if on.width:
            print("\x1b[H\x1b[2J", end="")
        _show(found, on, as_json=as_json)


def lines(found: models.Status, on: Screen, now: float) -> Iterator[str]:
    """What a person sees of it; `now` in unix seconds."""
    count = sum(len(app.instances) for app in found.apps)
    yield on.paint(
        f"{found.name}: {plural(len(found.apps), 'app')}, {plural(count, 'instance')};"
        f" supervisor {found.pid}, for {span(now - found.since)}" + (", stopping" if found.stopping else ""),
        "dim",
    )
    rows = [(_cells(one, now), STYLES[one.state]) for app in found.apps for one in app.instances]
    yield from table(COLUMNS, list(_folded(rows, on)), on)
    for app in found.apps:
        for name, address in app.listen.items():
            yield on.paint(f"{app.name} listens on {address} ({name})", "dim")
        for missing in app.unavailable:
            yield on.paint(f"{app.name}: {missing}", "yellow")


def _folded(rows: Sequence[Row], on: Screen) -> Iterator[Row]:
    """With the reasons on as many lines as they need: they are what it is about, so nothing of them is cut."""
    columns = list(zip([column.title for column in COLUMNS], *(cells for cells, _ in rows), strict=True))
    before = sum(max(map(wide, cells)) + 2 for cells in columns[:-1])
    for (*cells, why), styles in rows:
        first, *rest = fold(why, on._replace(width=on.width and on.width - before), "").split("\n")
        yield (*cells, first), styles
        yield from (((*[""] * len(cells), line), styles) for line in rest)


def _cells(one: models.Instance, now: float) -> tuple[str, ...]:
    return (
        one.name,
        one.state + (" (adopted)" if one.adopted else ""),
        span(max(now - one.since, 0)),
        str(one.pid or "-"),
        str(one.restarts),
        ports_of(one.ports),
        _why(one, now),
    )


def _why(one: models.Instance, now: float) -> str:
    text = one.message
    end = one.last_exit
    if end and not end.seconds:  # nobody had asked for it
        if one.state == "ready" and one.restarts and not text:
            text = f"restarted: {how(end)}"
        elif one.state in {"completed", *BAD} and end.left:
            text += (
                f"; {plural(end.left, 'process', 'processes')} that it left {'was' if end.left == 1 else 'were'} ended"
            )
    if one.retry_at is not None:
        text += f"; again in {max(one.retry_at - now, 0):.1f} s" if text else f"again in {one.retry_at - now:.1f} s"
    return "".join(char if char.isprintable() else " " for char in text)
