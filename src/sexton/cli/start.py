"""`sexton start`: ask the supervisor to start apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, done, file_option, targets_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@file_option
@targets_argument
def start(*, file: Path | None, targets: tuple[str, ...]) -> None:
    """Start apps or instances, and the apps that they wait for.

    Returns when they are ready or have failed.
    Ends with 1 if one of them has failed.
    """
    done(client(file).start(targets))
