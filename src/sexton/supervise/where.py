"""Where the supervisor of a file is: the state directory that the file means, and what lies in it.

Quick, and forgiving: what is wrong with the apps of a file does not hide the supervisor that runs them.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from sexton.errors import SextonError, UsageError

NAME = "sexton.toml"
SOCKET = "api.sock"
LOCK = "supervisor.pid-lock"
LEDGER = "ledger"
LOG = "supervisor.log"


def default_path() -> Path:
    """The sexton.toml of this directory, or of the nearest one above it. Raises UsageError."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / NAME).is_file():
            return Path(os.path.relpath(directory / NAME))
    raise UsageError(
        f"there is no {NAME} in {here} or above it: name one with --file FILE, write one (sexton.toml(5)), "
        "or make one from the file of another supervisor (sexton import FILE)"
    )


def state_of(path: Path) -> Path:
    """The state directory of the supervisor of that sexton.toml. Raises UsageError."""
    known = _top(text_of(path), path)
    named = {key: known[key] for key in ("state", "name") if isinstance(known.get(key), str)}
    return state(Path(os.path.abspath(path)), **named)


def state(path: Path, *, state: str | None = None, name: str | None = None) -> Path:
    """The state directory of the file at that absolute path, which says these two, or neither.

    Two files that do not say how they are called never share one.
    """
    if state is not None:
        return Path(os.path.normpath(path.parent / state))
    if name is None:
        place = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
        name = f"{tidied(path.parent.name)}-{place}"
    from sexton.spawn import _ledger  # a good part of what `sexton status` takes: only where it is needed

    return Path(os.path.abspath(_ledger.state_path() / "up" / name))


def make(state: Path) -> None:
    """See to it that the state directory is there. Raises SextonError where it cannot be written."""
    said = ""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        said = os.strerror(error.errno or 0).lower()
    if said or not os.access(state, os.W_OK | os.X_OK):
        remedy = "the file's `state`, or SEXTON_STATE, names another"
        raise SextonError(f"the state directory {state} cannot be written: {said or 'permission denied'}; {remedy}")


def tidied(name: str) -> str:
    """The name of a directory as that of a supervisor: of a-z, 0-9, _ and -."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-") or "sexton"


def text_of(path: Path) -> str:
    """What is in that sexton.toml. Raises UsageError."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: a TOML file is in UTF-8; byte {error.start} is not") from None


def _top(text: str, path: Path) -> dict[str, Any]:
    """The keys before the first table: most of a file need not be read, nor be right."""
    head = re.split(r"^[ \t]*\[", text, maxsplit=1, flags=re.MULTILINE)[0]
    for part in (head, text):  # a `[` at the beginning of a line may be within a value
        try:
            return tomllib.loads(part)
        except tomllib.TOMLDecodeError as error:
            said = error
    raise UsageError(f"{path}: {said}")
