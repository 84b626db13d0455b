"""`sexton sweep`: end what a crashed owner left."""

from __future__ import annotations

from pathlib import Path

import click

from sexton.spawn import _ledger
from sexton.spawn._owner import sweep as sweep_ledgers


@click.command()
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="The directory of the ledgers.")
@click.option("--all", "everything", is_flag=True, help="Trees that have a lease too.")
def sweep(state: Path | None, everything: bool) -> None:
    """
    End the trees that owners left when they crashed.

    Each owner (sexton.Owner) writes its trees into a ledger before it starts them. Those of a dead owner are stopped
    here; trees with a lease are left to it.
    """
    state = _ledger.state_directory() if state is None else state
    swept = sweep_ledgers(state, everything=everything)
    for owner, tree in swept:
        click.echo(f"{owner}: {' '.join(tree.command)}: {tree.fate}")
    if not swept:
        click.echo(f"nothing was left in {state}" if state.is_dir() else f"nothing was left: there is no {state}")
