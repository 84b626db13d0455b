"""Tables for people: they fit the terminal, and are plain where there is none. Only standard modules: `ps`
must start fast.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36"}
_SHORTEST = 8  # columns; no column that may be cut gets narrower


class Column(NamedTuple):
    """A column of a table; where the terminal is too narrow, those that are `elastic` are cut."""

    title: str
    right: bool = False
    elastic: bool = False


class Screen(NamedTuple):
    """Where it is printed: `width` in columns, 0 where no terminal limits it; `color` whether escape codes
    may be used.
    """

    width: int
    color: bool

    def paint(self, text: str, *styles: str) -> str:
        """The text in these styles, or as it is. A text that is padded already keeps its width."""
        if not self.color or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def screen(stream: TextIO | None = None) -> Screen:
    """The screen behind a stream. NO_COLOR and TERM=dumb mean no colour, COLUMNS beats what the terminal
    says.
    """
    stream = stream or sys.stdout
    try:
        if not stream.isatty():
            return Screen(0, color=False)
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # closed, or a stream without descriptor
        return Screen(0, color=False)
    return Screen(width, color=not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def wide(text: str) -> int:
    """How many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with … for what was left out."""
    if wide(text) <= width:
        return text
    while text and wide(text) > width - 1:
        text = text[:-1]
    return text + "…" if width > 0 else ""


def fold(text: str, on: Screen, indent: str = "  ") -> str:
    """The text on as many lines as the terminal makes it need; nothing of it is cut."""
    if not on.width or wide(text) <= on.width:
        return text
    from textwrap import wrap

    width = max(on.width, 20)
    return "\n".join(wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def table(columns: Sequence[Column], rows: Iterable[tuple[Sequence[str], Sequence[str]]], on: Screen) -> Iterable[str]:
    """The lines of a table: each row is its cells and the styles of the whole line."""
    rows = list(rows)
    widths = [wide(column.title) for column in columns]
    for cells, _ in rows:
        for at, cell in enumerate(cells):
            if len(cell) > widths[at] or not cell.isascii():
                widths[at] = max(widths[at], wide(cell))
    if on.width:
        _fit(widths, columns, on.width)
    for cells, styles in [([column.title for column in columns], ("bold",)), *rows]:
        line = _line(cells, widths, columns)
        # What has no column left to give is cut at the edge.
        yield on.paint(cut(line, on.width) if on.width else line, *styles)


def _fit(widths: list[int], columns: Sequence[Column], width: int) -> None:
    over = sum(widths) + 2 * (len(widths) - 1) - width
    elastic = [at for at, column in enumerate(columns) if column.elastic]
    while over > 0 and elastic:
        widest = max(elastic, key=lambda at: widths[at])
        others = [widths[at] for at in elastic if at != widest]
        # Down to the next widest, or as far as it must, or as far as it may.
        step = min(over, max(1, widths[widest] - max(others, default=0)), widths[widest] - _SHORTEST)
        if step <= 0:
            return
        widths[widest] -= step
        over -= step


def _line(cells: Sequence[str], widths: list[int], columns: Sequence[Column]) -> str:
    parts = []
    for cell, width, column in zip(cells, widths, columns, strict=True):
        text = cut(cell, width)
        blank = " " * (width - wide(text))
        parts.append(blank + text if column.right else text + blank)
    return "  ".join(parts).rstrip()


def size(count: int) -> str:
    """Bytes as people say them: 0, 512 B, 1.5 MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def span(seconds: float) -> str:
    """A time as people say it: 5s, 12m, 3h20m, 4d."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 zombie`, `2 zombies`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
