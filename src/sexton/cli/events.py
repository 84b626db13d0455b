"""`sexton events`: what happens to the apps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from sexton.cli._table import screen
from sexton.cli._up import STYLES, client, file_option

if TYPE_CHECKING:
    from pathlib import Path

    from sexton.supervise import models


@click.command()
@file_option
@click.option("--follow/--no-follow", default=True, help="Stay and print what comes; that is the default.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Of what has happened the last N only.")
@click.option("--since", type=click.IntRange(min=0), default=0, metavar="NUMBER", help="Only those after this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def events(*, file: Path | None, follow: bool, lines: int | None, since: int, as_json: bool) -> None:
    """Print what has happened to the apps, and what happens.

    It begins with the start of the supervisor, and ends with its end.
    """
    found = client(file).events(since, lines=lines, follow=follow)
    if as_json:
        import msgspec

        for event in found:
            print(msgspec.json.encode(event).decode(), flush=True)
        return
    on = screen()
    for event in found:
        print(on.paint(said(event), *STYLES.get(event.state or "", ())), flush=True)


def said(event: models.Event, *, clock: bool = True) -> str:
    """An event in one line for people."""
    words = [time.strftime("%H:%M:%S", time.localtime(event.time))] if clock else []
    if event.instance or event.app:
        words.append(f"{event.instance or event.app}:")
    match event.kind:
        case "state":
            words.append(str(event.state))
        case "exit" if event.exit:
            words.append(how(event.exit))
        case _:
            words.append(event.kind)
    text = " ".join(words)
    return f"{text}: {event.message}" if event.message else text


def how(end: models.Exit) -> str:
    """How a command ended, and what was left of its tree."""
    if end.signal:
        text = f"ended by SIG{end.signal}"
    elif end.code is None:
        text = "was not started"
    else:
        text = f"ended with exit code {end.code}"
    if end.why and end.why != "exit":
        text += f" ({end.why}, {end.seconds:.1f} s)" if end.seconds else f" ({end.why})"
    if end.left:
        text += f", {end.left} of its processes {'was' if end.left == 1 else 'were'} left"
    if end.killed:
        text += f", {end.killed} had to be killed"
    return text
