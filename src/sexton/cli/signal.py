"""`sexton signal`: send a signal to apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, done, file_option, targets_argument

if TYPE_CHECKING:
    from pathlib import Path

    from sexton.supervise.asked import Scope


@click.command()
@file_option
@click.option("--scope", type=click.Choice(["child", "group", "tree"]), default="group", show_default=True,
              help="The command alone, its process group, or every process that came of it.")  # fmt: skip
@click.argument("signal", metavar="SIGNAL")
@targets_argument
def signal(*, file: Path | None, scope: Scope, signal: str, targets: tuple[str, ...]) -> None:
    """Send SIGNAL (HUP, SIGHUP, 1) to apps or instances that run."""
    done(client(file).signal(targets, signal, scope))
