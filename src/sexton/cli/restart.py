"""`sexton restart`: ask the supervisor to restart apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, done, file_option, targets_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@file_option
@targets_argument
def restart(*, file: Path | None, targets: tuple[str, ...]) -> None:
    """Restart apps or instances, one after the other.

    The next one is stopped when the last one is ready; the first that does not come up again ends it.
    Ends with 1 if one of them has failed.
    """
    done(client(file).restart(targets))
