"""`sexton init`: become sexton-init. Here for the help; `sexton.cli.main` comes first where it can."""

from __future__ import annotations

import click

from sexton._binary import become


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTION]...",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND [ARG]...")
def init(arguments: tuple[str, ...]) -> None:
    """Run COMMAND under sexton-init, an init for containers."""
    become(list(arguments))
