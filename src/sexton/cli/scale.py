"""`sexton scale`: change how many instances an app has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, done, file_option

if TYPE_CHECKING:
    from pathlib import Path


def _wanted(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each app, and how many."""
    found = []
    for word in words:
        app, _, count = word.partition("=")
        if not app or not (count.isascii() and count.isdecimal()):
            raise click.BadParameter(f"{word!r}: expected APP=N, as in web=3")
        found.append((app, int(count)))
    return found


@click.command()
@file_option
@click.argument("wanted", nargs=-1, required=True, callback=_wanted, metavar="APP=N...")
def scale(*, file: Path | None, wanted: list[tuple[str, int]]) -> None:
    """Change how many instances an app has.

    That holds until it is scaled again or the file is reloaded.
    Returns when the new ones are up, and nothing is left of those that are too many.
    """
    supervisor = client(file)
    for app, count in wanted:
        done(supervisor.scale(app, count))
