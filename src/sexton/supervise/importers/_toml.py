"""Writing TOML: what tomllib reads is what was given."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WIDTH = 100  # a table that is not longer than this stands on one line
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LITERAL = re.compile(r"[^'\x00-\x08\x0a-\x1f\x7f]*")


def document(settings: Mapping[str, Any]) -> str:
    """The text of a document; tables stand after what is none."""
    return "\n".join(_table(settings, ())).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    below = {
        name: value for name, value in table.items() if isinstance(value, dict) and not _is_short(name, value, path)
    }
    own = {name: value for name, value in table.items() if name not in below}
    if path and (own or not below):
        yield ""
        yield f"[{'.'.join(map(_key, path))}]"
    for name, value in own.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in below.items():
        yield from _table(value, (*path, name))


def _is_short(name: str, value: dict[str, Any], path: tuple[str, ...]) -> bool:
    """It may stand within the table of an app, on one line."""
    plain = not any(isinstance(one, dict) for one in value.values())
    return len(path) > 0 and path != ("apps",) and plain and len(name) + len(_value(value)) < WIDTH


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return str(int(value)) if value == int(value) else repr(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{ {', '.join(f'{_key(name)} = {_value(one)}' for name, one in value.items())} }}"
        case _:
            return _string(str(value))


def _string(text: str) -> str:
    if ('"' in text or "\\" in text) and _LITERAL.fullmatch(text):
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
