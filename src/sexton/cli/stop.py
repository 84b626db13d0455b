"""`sexton stop`: ask the supervisor to stop apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, done, file_option, targets_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@file_option
@targets_argument
def stop(*, file: Path | None, targets: tuple[str, ...]) -> None:
    """Stop apps or instances.

    Returns when nothing of them is left.
    Ends with 1 if one of them has failed.
    """
    done(client(file).stop(targets))
