from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from sexton.supervise.positions import positions

WEIRD = (Path(__file__).parent / "weird.toml").read_text()


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Of everything in a document."""
    found = {path} if path else set()
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in below:
        found |= paths(one, (*path, name))
    return found


def test_every_key_is_found_and_no_other() -> None:
    assert set(positions(WEIRD)) == paths(tomllib.loads(WEIRD))


def test_each_is_on_its_line() -> None:
    lines = WEIRD.split("\n")
    found = positions(WEIRD)
    assert found["dotted", "key", "deep"] == 3
    assert lines[found["apps", "web", "command", 0] - 1].startswith('  "node"')
    assert lines[found["apps", "web", "command", 3, 1, 1] - 1] == "   3]],"
    assert lines[found["apps", "web", "env", "F"] - 1].endswith("F = [] }")
    assert lines[found["apps", "web", "number"] - 1].startswith("number")
    assert lines[found["apps", "web", 'quo"ted A'] - 1].endswith("= true")
    assert lines[found["apps", "Odd One"] - 1].startswith("[  apps")
    assert [lines[found[("many", number)] - 1] for number in range(3)] == ["[[many]]"] * 3
    assert lines[found["many", 1, "deeper", 0, "d"] - 1] == "d = 4"
    assert lines[found["many", 2, "sub", "c"] - 1] == "c = 5"


@pytest.mark.parametrize("text", ["", "\n", "# x", "a=1", "a=1\r\nb=2\r\n", "[a]\nb=[1,]", "a={}", "a=[\n]\n"])
def test_small_ones(text: str) -> None:
    assert set(positions(text)) == paths(tomllib.loads(text))


def test_lines_that_end_with_a_carriage_return() -> None:
    assert positions("a=1\r\n\r\n[b]\r\nc='x'\r\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}
