"""`sexton status`: every instance, and how it is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from sexton.cli._table import Column, Screen, fold, plural, screen, span, table, wide
from sexton.cli._up import BAD, STYLES, client, file_option, ports_of

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
def status(*, file: Path | None, watch: bool, as_json: bool) -> None:
    """Show every instance and its state.

    Ends with 0 if all is well, 1 if an instance has failed, waits for its restart or is stuck, 3 if no supervisor runs.
    """
    supervisor = client(file)
    if watch:
        _watch(supervisor, as_json=as_json)
        return
    found = supervisor.status()
    _show(found, screen(), as_json=as_json)
    sys.exit(any(one.state in BAD for app in found.apps for one in app.instances))


def _show(found: models.Status, on: Screen, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        text = msgspec.json.encode(found).decode()
    else:
        text = "\n".join(lines(found, on, time.time()))
    print(text, flush=True)


def _watch(supervisor: Client, *, as_json: bool) -> None:
    """Again after each event; one look serves for all the events before it."""
    on = screen()
    looked = 0.0
    for event in supervisor.events(follow=True):
        if event.time < looked:
            continue
        looked = time.time()
        found = supervisor.status()
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
    if one.retry_at is not None:
        text += f"; again in {max(one.retry_at - now, 0):.1f} s" if text else f"again in {one.retry_at - now:.1f} s"
    return "".join(char if char.isprintable() else " " for char in text)
