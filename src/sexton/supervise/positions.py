"""On which line of a TOML file each key stands: tomllib does not tell.

The text has been read by tomllib, so that nothing here need look for mistakes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\]|\\.)*"|\'[^\']*\'', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def positions(text: str) -> Mapping[Path, int]:
    """The line, from 1, of every table, key and element of a list, by its path: ("apps", "web", "command", 0)."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._counts: dict[Path, int] = {}  # of the tables in each [[list]]

    def scan(self) -> Mapping[Path, int]:
        table: Path = ()
        while self._skip():
            if self._eat("[["):
                table = self._table(self._key("]]"), one_of_many=True)
            elif self._eat("["):
                table = self._table(self._key("]"), one_of_many=False)
            else:
                self._pair(table)
        return self.lines

    def _skip(self) -> bool:
        """Past what means nothing; False at the end."""
        found = _BLANK.match(self.text, self.at)
        assert found
        self.at = found.end()
        return self.at < len(self.text)

    def _eat(self, word: str) -> bool:
        found = self.text.startswith(word, self.at)
        self.at += len(word) if found else 0
        return found

    def _mark(self, path: Path) -> None:
        line = bisect_left(self._ends, self.at) + 1
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)

    def _table(self, names: Path, *, one_of_many: bool) -> Path:
        path: Path = ()
        for name in names:
            if path in self._counts:  # what is said of a list of tables is said of its last one
                path += (self._counts[path] - 1,)
            path += (name,)
        if one_of_many:
            number = self._counts[path] = self._counts.get(path, 0) + 1
            path += (number - 1,)
        elif path in self._counts:
            path += (self._counts[path] - 1,)
        self._mark(path)
        return path

    def _key(self, end: str) -> Path:
        names: list[str] = []
        while True:
            self._skip()
            if self._eat(end):
                return tuple(names)
            if not self._eat("."):
                names.append(self._name())

    def _name(self) -> str:
        if self.text[self.at] in "\"'":
            text = self._string()
            return text[1:-1] if text[0] == "'" else _ESCAPE.sub(_plain, text[1:-1])
        found = _BARE.match(self.text, self.at)
        assert found
        self.at = found.end()
        return found[0]

    def _string(self) -> str:
        found = _STRING.match(self.text, self.at)
        assert found
        self.at = found.end()
        return found[0]

    def _pair(self, table: Path) -> None:
        start = self.at
        path = table + self._key("=")
        after, self.at = self.at, start
        self._mark(path)
        self.at = after
        self._skip()
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._eat("["):
            self._list(path)
        elif self._eat("{"):
            while self._skip() and not self._eat("}"):
                if not self._eat(","):
                    self._pair(path)
        elif self.text[self.at] in "\"'":
            self._string()
        else:
            found = _SCALAR.match(self.text, self.at)
            assert found
            self.at = found.end()

    def _list(self, path: Path) -> None:
        number = 0
        while self._skip() and not self._eat("]"):
            if not self._eat(","):
                self._mark((*path, number))
                self._value((*path, number))
                number += 1


def _plain(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _ESCAPES.get(found[3], found[3])
