"""`sexton reload`: apply what the file says now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sexton.cli._up import client, file_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@file_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object of lists: added, removed, changed, scaled ...")
def reload(*, file: Path | None, as_json: bool) -> None:
    """Read the file again and apply the difference, and only that.

    What is no more in it is stopped, what is new is started, what has changed is restarted. The settings that are of no
    app hold from then on, and the token of the API is read again. A file with a mistake changes nothing.
    """
    import msgspec

    changes = client(file).reload()
    if as_json:
        print(msgspec.json.encode(changes).decode())
        return
    for what, apps in msgspec.structs.asdict(changes).items():
        if apps and what != "unchanged":
            print(f"{what}: {', '.join(apps)}")
    if changes == type(changes)(unchanged=changes.unchanged):
        print("nothing has changed")
