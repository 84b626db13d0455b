"""What ${...} means in a command, an environment value, a probe or a directory.

    ${port}  ${port.NAME}                      the instance's own first port, or the one of that name
    ${instance}                                its number, from 0
    ${app.NAME.port}  ${app.NAME.port.PORT}    a port of another app's first instance
    $$                                         $

Any other ${...} is an error; a $ before anything else is itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sexton.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "[a-z0-9_-]+"
"""What an app or a port may be called."""

_VARIABLE = re.compile(r"\$(?:\$|\{([^}]*)(\}?))")
_OWN = re.compile(rf"port(?:\.({NAME}))?")
_OTHERS = re.compile(rf"app\.({NAME})\.port(?:\.({NAME}))?")


def expand(text: str, *, own: Mapping[str, int], number: int, port_of: Callable[[str, str | None], int]) -> str:
    """The text with every variable in its place.

    own      the instance's own ports by name, the first one first
    number   the instance's
    port_of  gives the port of an app: its first one, or that of the name. Its UsageError is passed on

    Raises UsageError for a variable that there is not.
    """

    def value(found: re.Match[str]) -> str:
        name, end = found[1], found[2]
        if name is None:
            return "$"
        if not end:
            raise UsageError(f"{found[0]!r} has no }} (a $ itself is written $$)")
        if name == "instance":
            return str(number)
        if mine := _OWN.fullmatch(name):
            return str(_own(own, mine[1]))
        if other := _OTHERS.fullmatch(name):
            return str(port_of(other[1], other[2]))
        raise UsageError(
            f"${{{name}}}: expected ${{port}}, ${{port.NAME}}, ${{instance}}, ${{app.NAME.port}} or "
            f"${{app.NAME.port.PORT}}; $${{{name}}} is not touched"
        )

    return _VARIABLE.sub(value, text)


def _own(ports: Mapping[str, int], name: str | None) -> int:
    if not ports:
        raise UsageError(f"${{port{f'.{name}' if name else ''}}}: the app has no ports")
    if name is None:
        return next(iter(ports.values()))
    if name not in ports:
        raise UsageError(f"${{port.{name}}}: the app has no such port, but {', '.join(ports)}")
    return ports[name]


def quote(text: str) -> str:
    """So that expand() gives the text back as it is."""
    return text.replace("$", "$$")
