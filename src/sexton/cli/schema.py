"""`sexton schema`: the JSON Schema of sexton.toml."""

from __future__ import annotations

import json

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of sexton.toml.

    For editors that complete and check it.
    """
    from sexton.supervise.schema import schema as make

    print(json.dumps(make(), indent=2))
