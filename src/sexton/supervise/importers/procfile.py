"""Procfile, as foreman, honcho and Heroku have it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from sexton.errors import UsageError
from sexton.supervise.importers._draft import literal

if TYPE_CHECKING:
    from sexton.supervise.importers._draft import App, Draft

FIRST_PORT, STEP = 5000, 100  # what foreman and honcho give the first process, and to each further one more
_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")
_SHELLISH = re.compile(r"[$|&;<>()*?\[\]#~`!\\{}]|^\s*\w+=")
_BUILTINS = {
    "cd",
    "exec",
    "export",
    "source",
    ".",
    "set",
    "ulimit",
    "umask",
    "trap",
    "if",
    "while",
    "for",
    "eval",
    "test",
}


def needs_shell(command: str) -> bool:
    """A shell would do more with it than split it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return True
    return bool(_SHELLISH.search(command)) or not words or words[0] in _BUILTINS


def read(draft: Draft) -> None:
    """Every process type is an app."""
    for number, line in enumerate(draft.source.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise UsageError(f"{draft.source}:{number}: {line[:60]!r}: expected NAME: COMMAND")
        _process(draft, found[1], found[2].strip())
    if "release" in draft.apps:
        draft.apps["release"]["restart"] = {"policy": "never"}
        for name, app in draft.apps.items():
            if name != "release":
                app["after"] = {"release": "completed"}
        draft.lose("release", why="taken for Heroku's: it runs once, and the others wait until it is done")
    draft.lose("foreman and honcho end everything when one process ends; here it is restarted (restart, on_fatal)")


def _process(draft: Draft, kind: str, command: str) -> None:
    port = FIRST_PORT + STEP * len(draft.apps)
    name = draft.name(kind)
    app: App = {"command": literal(command)}
    if needs_shell(command):
        app["shell"] = True
    if draft.base != ".":
        app["cwd"] = draft.cwd("")
    if (draft.here / ".env").is_file():
        app["env_file"] = [draft.place(".env")]
    if kind == "web" or re.search(r"\$\{?PORT\b", command):
        app["ports"] = {"http": port}
    else:
        draft.lose(kind, "PORT", why=f"it was {port}; if it listens there, write ports = {{ http = {port} }}")
    draft.apps[name] = app
