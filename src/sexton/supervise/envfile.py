"""Files of NAME=VALUE lines, as `env_file` names them: never run by a shell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sexton.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?([^\s=#\"'][^\s=]*)\s*=\s*(.*)")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"\s*(?:#.*)?|'([^']*)'\s*(?:#.*)?")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read(path: Path) -> dict[str, str]:
    r"""What it sets. Empty lines and those that begin with # mean nothing; `export` before a name does no harm.

    A value may stand in double quotes, where \n, \t, \" and \\ mean what they do elsewhere, or in single ones, where
    nothing does; without quotes it ends at " #". Variables are not put in.

    Raises UsageError with the line that cannot be read, and OSError.
    """
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected UTF-8 ({error.reason} at byte {error.start})") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        pair = _LINE.fullmatch(text)
        value = _value(pair[2]) if pair else None
        if pair is None or value is None:
            raise UsageError(f"{path}:{number}: {text[:60]!r}: expected NAME=VALUE")
        found[pair[1]] = value
    return found


def _value(text: str) -> str | None:
    if text[:1] not in {'"', "'"}:
        return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return None
    if quoted[1] is None:
        return quoted[2]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), quoted[1])
