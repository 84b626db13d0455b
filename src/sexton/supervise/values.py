"""How a value of sexton.toml is read: each kind knows what it expects, its JSON Schema, and what it gives."""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from sexton.errors import UsageError
from sexton.supervise import shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sexton.supervise.positions import Path

Schema = dict[str, Any]

LONGEST = 1e9  # seconds; more are too many for the guard
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+"
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = r"(\d+(?:\.\d+)?) ?([kKMGT]?)(i?)B"


class Wrong(Exception):
    """A value is not what was expected; says what was."""


class Problems:
    """What is wrong with a file, each with its line and its key.

    name   of the file, for the messages
    lines  of the keys; what stands in [defaults] counts for each app
    """

    def __init__(self, name: str, lines: Mapping[Path, int]) -> None:
        self.name = name
        self._lines = lines
        self._found: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        """There are some."""
        return bool(self._found)

    def add(self, path: Path, text: str) -> None:
        """One more, about that key."""
        line = self.line(path)
        key = f"{dotted(path)}: " if path else ""
        said = (line, f"{self.name}:{line}: {key}{text}")
        if said not in self._found:
            self._found.append(said)

    def line(self, path: Path) -> int:
        """Where a key stands, or the nearest table around it."""
        for end in range(len(path), 0, -1):
            for place in (path[:end], ("defaults", *path[2:end]) if path[0] == "apps" and end > 2 else ()):
                if place in self._lines:
                    return self._lines[place]
        return 1

    def check(self) -> None:
        """Raises UsageError if there are some: all of them, by line."""
        if self._found:
            raise UsageError("\n".join(text for _, text in sorted(self._found, key=lambda one: one[0])))


def dotted(path: Path) -> str:
    """A path as TOML has it, the elements of lists in brackets: apps.web.command[0]."""
    text = ""
    for name in path:
        if isinstance(name, int):
            text += f"[{name}]"
        else:
            text += ("." if text else "") + (name if _BARE.fullmatch(name) else json.dumps(name))
    return text


def shown(value: object) -> str:
    """A value as the file has it, briefly."""
    match value:
        case dict():
            return "a table"
        case list():
            return "a list"
        case str() | bool() | int():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 60 else text[:57] + '..."'
        case _:
            return str(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """What was perhaps meant: " (did you mean X?)", or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


class Kind:
    """A kind of value."""

    expected: str
    schema: Schema

    def read(self, value: object, path: Path, problems: Problems) -> Any:
        """What the value means. Raises Wrong, or tells `problems` what is wrong inside of it."""
        raise NotImplementedError

    def wrong(self, value: object) -> Wrong:
        """That it is another kind of value."""
        return Wrong(f"{shown(value)}: expected {self.expected}")


class Text(Kind):
    """A string; `check` may refuse it (raises ValueError that says why) or make something else of it."""

    def __init__(
        self, expected: str = "a string", pattern: str = "", check: Callable[[str], Any] | None = None
    ) -> None:
        self.expected = expected
        self._pattern = re.compile(pattern or r"[^\0]*")
        self._check = check
        self.schema: Schema = {"type": "string"} | ({"pattern": f"^(?:{pattern})$"} if pattern else {})

    def read(self, value: object, path: Path, problems: Problems) -> Any:
        """The string."""
        if not isinstance(value, str) or not self._pattern.fullmatch(value):
            raise self.wrong(value)
        try:
            return self._check(value) if self._check else value
        except ValueError as error:
            raise Wrong(f"{shown(value)}: {error}") from None


class Flag(Kind):
    """true or false."""

    expected = "true or false"

    def __init__(self) -> None:
        self.schema = {"type": "boolean"}

    def read(self, value: object, path: Path, problems: Problems) -> bool:
        """It."""
        if not isinstance(value, bool):
            raise self.wrong(value)
        return value


class Whole(Kind):
    """A whole number within bounds."""

    def __init__(self, least: int = 0, most: int | None = None) -> None:
        self._least, self._most = least, most
        self.expected = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
        self.schema: Schema = {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})

    def read(self, value: object, path: Path, problems: Problems) -> int:
        """It."""
        if isinstance(value, bool) or not isinstance(value, int) or value < self._least:
            raise self.wrong(value)
        if self._most is not None and value > self._most:
            raise self.wrong(value)
        return value


class Number(Kind):
    """A number within bounds."""

    def __init__(self, least: float, most: float = math.inf) -> None:
        self._least, self._most = least, most
        self.expected = f"a number, {least:g} or more" if most == math.inf else f"a number from {least:g} to {most:g}"
        self.schema: Schema = {"type": "number", "minimum": least} | ({} if most == math.inf else {"maximum": most})

    def read(self, value: object, path: Path, problems: Problems) -> float:
        """It, in floating point."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(value)
        if not self._least <= value <= self._most:
            raise self.wrong(value)
        return float(value)


class Duration(Kind):
    """Seconds; `zero`: none may be asked for."""

    def __init__(self, *, zero: bool = True) -> None:
        self._zero = zero
        self.expected = f'seconds{"" if zero else ", more than 0"}: a number, or a duration such as "1m30s" or "500ms"'
        least: Schema = {"minimum": 0} if zero else {"exclusiveMinimum": 0}
        self.schema: Schema = {
            "anyOf": [{"type": "number", **least, "maximum": LONGEST}, {"type": "string", "pattern": f"^{_DURATION}$"}]
        }

    def read(self, value: object, path: Path, problems: Problems) -> float:
        """The seconds."""
        seconds = -1.0
        if isinstance(value, str) and re.fullmatch(_DURATION, value):
            parts = re.findall(r"([\d.]+)(ms|[smhd])", value)
            seconds = round(sum(float(number) * _UNITS[unit] for number, unit in parts), 6)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        if not 0 <= seconds <= LONGEST or (seconds == 0 and not self._zero):
            raise self.wrong(value)
        return seconds


class Size(Kind):
    """Bytes."""

    expected = 'bytes, at least 1: a whole number, or a size such as "512MB" or "1GiB"'

    def __init__(self) -> None:
        self.schema = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_SIZE}$"}]}

    def read(self, value: object, path: Path, problems: Problems) -> int:
        """The bytes."""
        found = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
        size = 0
        if found and (found[2] or not found[3]):
            size = int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2]])
        elif isinstance(value, int) and not isinstance(value, bool):
            size = value
        if size < 1:
            raise self.wrong(value)
        return size


class Choice(Kind):
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.expected = " or ".join(", ".join(f'"{word}"' for word in words).rsplit(", ", 1))
        self.schema: Schema = {"enum": list(words)}

    def read(self, value: object, path: Path, problems: Problems) -> str:
        """It."""
        if not isinstance(value, str) or value not in self._words:
            raise self.wrong(value)
        return value

    def wrong(self, value: object) -> Wrong:
        """With what was perhaps meant."""
        return Wrong(f"{super().wrong(value)}{nearest(value, self._words) if isinstance(value, str) else ''}")


class Either(Kind):
    """The first of some kinds that takes the value."""

    def __init__(self, *kinds: Kind, expected: str = "") -> None:
        self._kinds = kinds
        self.expected = expected or ", or ".join(kind.expected for kind in kinds)
        self.schema: Schema = {"anyOf": [kind.schema for kind in kinds]}

    def read(self, value: object, path: Path, problems: Problems) -> Any:
        """What that one gives."""
        for kind in self._kinds:
            try:
                return kind.read(value, path, problems)
            except Wrong:
                continue
        raise self.wrong(value)


class Word(Kind):
    """One word that stands for a value."""

    def __init__(self, word: str, meaning: object) -> None:
        self._word, self._meaning = word, meaning
        self.expected = f'"{word}"'
        self.schema: Schema = {"const": word}

    def read(self, value: object, path: Path, problems: Problems) -> object:
        """The value."""
        if value != self._word:
            raise self.wrong(value)
        return self._meaning


class Command(Kind):
    """A list of words, or a string that is split as a shell would split it; but what only a shell would understand is
    no word: `a_shell` says how one is had, `keys` which keys do what its commands would.
    """

    expected = "a command: a list of words, or a string, which is split as a shell would"

    def __init__(self, a_shell: str = '["/bin/sh", "-c", "..."]', keys: Mapping[str, str] | None = None) -> None:
        self._shell, self._keys = a_shell, keys or {}
        words = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        self.schema = {"anyOf": [{"type": "string", "pattern": r"\S"}, words]}

    def read(self, value: object, path: Path, problems: Problems) -> tuple[str, ...]:
        """The words."""
        words: tuple[str, ...] = ()
        if isinstance(value, str):
            try:
                words = tuple(shlex.split(value))
            except ValueError as error:
                raise Wrong(f"{shown(value)}: a shell could not split it: {str(error).lower()}") from None
            if found := shell.meant_for(value):
                raise Wrong(
                    f"{shown(value)}: {found} is for a shell, and none runs it: expected {self._instead(found)}"
                )
        elif isinstance(value, list) and all(isinstance(word, str) for word in value):
            words = tuple(value)
        if not words or not words[0] or any("\0" in word for word in words):
            raise self.wrong(value)
        return words

    def _instead(self, found: str) -> str:
        key = self._keys.get("=" if "=" in found else found)
        return f"{f'`{key}`, or ' if key else ''}{self._shell} (or quotes around what is to be a word)"


class Many(Kind):
    """One string, or a list of them."""

    expected = "a string, or a list of strings"

    def __init__(self) -> None:
        self.schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

    def read(self, value: object, path: Path, problems: Problems) -> tuple[str, ...]:
        """The list."""
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
            raise self.wrong(value)
        return tuple(words)


class Map(Kind):
    """A table whose keys are names that the user chooses."""

    def __init__(self, value: Kind, name: str, names: str, *, example: str, known: Iterable[str] = ()) -> None:
        """`name` is the pattern of a key, `names` says it for people; `known`: the keys that there are at all."""
        self.expected = f"a table, such as {example}"
        self._value = value
        self._name, self._names, self._known = re.compile(name), names, tuple(known)
        self.schema: Schema = {
            "type": "object",
            "propertyNames": {"enum": list(self._known)} if self._known else {"pattern": f"^(?:{name})$"},
            "additionalProperties": value.schema,
        }

    def read(self, value: object, path: Path, problems: Problems) -> dict[str, Any]:
        """What is right in it."""
        if not isinstance(value, dict):
            raise self.wrong(value)
        good: dict[str, Any] = {}
        for key, one in value.items():
            if not self._name.fullmatch(key) or (self._known and key not in self._known):
                problems.add((*path, key), f"expected {self._names}{nearest(key, self._known)}")
            read_into(good, (*path, key), self._value, one, problems)
        return good


class Key(NamedTuple):
    """A key of a table: the kind of its value, and what it means, for the schema."""

    kind: Kind
    text: str


class Table(Kind):
    """A table with keys that we know.

    example    of such a table, for who writes something else
    required   those that must be there
    elsewhere  those that another such table has, or another supervisor, and what to say of them here
    defaults   what a key that is missing means, for the schema
    """

    def __init__(
        self,
        keys: Mapping[str, Key],
        *,
        example: str = "",
        required: Iterable[str] = (),
        elsewhere: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
    ) -> None:
        self.expected = f"a table, such as {example}" if example else "a table"
        self.keys = dict(keys)
        self._required = tuple(required)
        self._elsewhere = elsewhere or {}
        properties = {name: {"description": key.text, **key.kind.schema} for name, key in self.keys.items()}
        for name, default in (defaults or {}).items():
            properties[name]["default"] = default
        self.schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if self._required:
            self.schema["required"] = list(self._required)

    def read(self, value: object, path: Path, problems: Problems) -> dict[str, Any]:
        """What is right in it, by key."""
        if not isinstance(value, dict):
            raise self.wrong(value)
        good: dict[str, Any] = {}
        for name, one in value.items():
            place = (*path, name)
            if name in self._elsewhere:
                problems.add(place, self._elsewhere[name])
            elif name not in self.keys:
                problems.add(place, f"there is no such key{self.meant(name, one)}")
            else:
                read_into(good, place, self.keys[name].kind, one, problems)
        for name in self._required:
            if name not in value:
                problems.add(path, f"{name} is missing: expected {self.keys[name].kind.expected}")
        return good

    def meant(self, name: str, value: object) -> str:
        """What was perhaps meant by a key that there is not."""
        return nearest(name, self.keys) or f" (expected one of {', '.join(self.keys)})"


def read_into(good: dict[str, Any], path: Path, kind: Kind, value: object, problems: Problems) -> None:
    """Read the value of a key into `good`, or tell what is wrong with it."""
    try:
        good[str(path[-1])] = kind.read(value, path, problems)
    except Wrong as error:
        problems.add(path, str(error))
