"""`sexton ports`: which port each instance has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._table import Column, screen, table
from sexton.cli._up import client, file_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@file_option
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"web.0": {"http": 40001}}.')
def ports(*, file: Path | None, as_json: bool) -> None:
    """List the ports of each instance."""
    found = client(file).ports()
    if as_json:
        import msgspec

        print(msgspec.json.encode(found).decode())
        return
    rows = [((name, port, str(number)), ()) for name, own in found.items() for port, number in own.items()]
    for line in table([Column("INSTANCE"), Column("NAME"), Column("PORT", right=True)], rows, screen()):
        print(line)
