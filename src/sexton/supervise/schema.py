"""The JSON Schema of sexton.toml, for editors and for programs that write one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sexton.supervise.shape import FILE

if TYPE_CHECKING:
    from sexton.supervise.values import Schema


def schema() -> dict[str, Any]:
    """What a user may write. What holds between keys is not in it: the loader alone knows that."""
    found: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sexton.toml",
        "description": "The apps that `sexton up` looks after; see sexton.toml(5).",
    }
    return found | FILE.schema
