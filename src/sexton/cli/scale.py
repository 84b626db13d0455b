"""`sexton scale`: change how many instances an app has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, done, file_option

if TYPE_CHECKING:
    from pathlib import Path


class _Wanted(click.ParamType[tuple[str, int]]):
    name = "APP=N"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """The app, and how many."""
        if not isinstance(value, str):
            return value
        app, _, count = value.partition("=")
        if not app or not (count.isascii() and count.isdecimal()):
            self.fail(f"{value!r}: expected APP=N, as in web=3", param, ctx)
        return app, int(count)


@click.command()
@file_option
@click.argument("wanted", nargs=-1, required=True, type=_Wanted(), metavar="APP=N...")
def scale(*, file: Path | None, wanted: tuple[tuple[str, int], ...]) -> None:
    """Let APP have N instances, until it is scaled again or the file is reloaded.

    Returns when the new ones are up, and nothing is left of those that are too many.
    """
    supervisor = client(file)
    for app, count in wanted:
        done(supervisor.scale(app, count))
