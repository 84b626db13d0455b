"""`sexton sweep`: end what a crashed owner left."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sexton.errors import UsageError
from sexton.spawn import _ledger
from sexton.spawn._owner import sweep as sweep_ledger


@click.command()
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="The directory of the ledgers.")
@click.option("--all", "everything", is_flag=True, help="Trees that have a lease too.")
def sweep(state: Path | None, everything: bool) -> None:
    """
    End the trees that owners left when they crashed.

    Each owner (sexton.Owner) writes its trees into a ledger before it starts them. Those of a dead owner are stopped
    here; trees with a lease are left to it.
    """
    state = _ledger.state_path() if state is None else state
    try:
        ledgers = _ledger.ledgers(state)
    except FileNotFoundError:
        click.echo(f"nothing was left: there is no {state}")
        return
    except OSError as error:
        raise UsageError(f"{state}: {error.strerror}") from None
    swept = failed = False
    for path in ledgers:
        try:
            for tree in sweep_ledger(path, everything=everything):
                click.echo(f"{path.stem}: {' '.join(tree.command)}: {tree.fate}")
                swept = True
        except OSError as error:
            click.echo(f"sexton: {path}: {error.strerror}", err=True)
            failed = True
    if failed:
        sys.exit(UsageError.exit_code)
    if not swept:
        click.echo(f"nothing was left in {state}")
