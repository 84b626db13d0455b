"""From the files of other supervisors to a sexton.toml, and a list of what could not be carried over."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from sexton.errors import UsageError
from sexton.supervise.importers._draft import Draft
from sexton.supervise.importers._toml import document
from sexton.supervise.load import parse

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = "expected a supervisord.conf, a Procfile, a docker-compose.yml or an ecosystem.config.js or .json of pm2"


class Imported(NamedTuple):
    """The text of a sexton.toml, the names of its apps, and what could not be carried over, a line each."""

    text: str
    apps: tuple[str, ...]
    lost: tuple[str, ...]


def convert(source: Path, target: Path) -> Imported:
    """Make a sexton.toml, to be written to `target`, from the file of another supervisor.

    Nothing is written. An ecosystem.config.js is run by node, as pm2 does.

    Raises UsageError where the source is of none of these kinds, or has a mistake.
    """
    directory = os.path.abspath(target.parent)
    draft = Draft(source, os.path.relpath(os.path.abspath(source.parent), directory))
    try:
        import_module(f"{__name__}.{_kind(source)}").read(draft)
    except OSError as error:
        raise UsageError(f"{source}: {os.strerror(error.errno or 0).lower()}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{source}: expected UTF-8") from None
    settings = draft.settings_of_all()
    head = f"# Made from {source.name} by `sexton import`; see sexton.toml(5).\n"
    if draft.lost:
        head += "# Not carried over, or different:\n" + "".join(f"#   {line}\n" for line in draft.lost)
    text = f"{head}\n{document(settings)}"
    try:
        text.encode()
        parse(text, target)
    except (UsageError, UnicodeEncodeError) as error:
        raise UsageError(f"what {source} says makes no sexton.toml that loads:\n{error}") from None
    return Imported(text, tuple(draft.apps), tuple(draft.lost))


def _kind(source: Path) -> str:
    """The module that reads it, by its name."""
    name = source.name.lower()
    if name.startswith("procfile"):
        return "procfile"
    match source.suffix.lower():
        case ".conf" | ".ini":
            return "supervisord"
        case ".yml" | ".yaml":
            return "compose"
        case ".json" | ".js" | ".cjs" | ".mjs":
            return "pm2"
    raise UsageError(f"{source}: {EXPECTED}")
