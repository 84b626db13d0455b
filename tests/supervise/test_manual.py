"""sexton.toml(5) tells of every key, of no other, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sexton.supervise import shape
from sexton.supervise.load import load
from sexton.supervise.values import Table

MAN = Path(__file__).parents[2] / "man"
PAGE = (MAN / "sexton.toml.5").read_text()
EXAMPLES = re.findall(r"\.Bd -literal[^\n]*\n(.*?)\.Ed", PAGE, re.DOTALL)
TABLES = {
    ".Sh THE WHOLE": {key for key, one in shape.FILE.keys.items() if key not in {"api", "defaults", "apps"}},
    ".Ss [api]": set(shape.API.keys),
    ".Sh APPS": {key for key, one in shape.APP.keys.items() if not isinstance(one.kind, Table)},
    ".Ss [apps.NAME.ready] and [apps.NAME.live]": {*shape.READY.keys, *shape.LIVE.keys},
    ".Ss [apps.NAME.restart]": set(shape.RESTART.keys),
    ".Ss [apps.NAME.stop]": set(shape.STOP.keys),
    ".Ss [apps.NAME.orphans]": set(shape.ORPHANS.keys),
    ".Ss [apps.NAME.limits]": set(shape.LIMITS.keys),
    ".Ss [apps.NAME.log]": set(shape.LOG.keys),
}


@pytest.mark.parametrize("title", TABLES)
def test_every_key_is_there(title: str) -> None:
    section = re.split(r"^\.S[sh] ", PAGE.split(f"\n{title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    assert set(re.findall(r"^\.It Ic (\w+)", section, re.MULTILINE)) == TABLES[title]


def test_every_table_is_there() -> None:
    tables = {key for key, one in shape.APP.keys.items() if isinstance(one.kind, Table)}
    assert {name for title in TABLES for name in re.findall(r"apps\.NAME\.(\w+)", title)} == tables


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_load(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_STATE", "/run/s")
    (tmp_path / ".env").write_text("A=1\n")
    (tmp_path / "sexton.toml").write_text(text)
    assert len(load(tmp_path / "sexton.toml").apps) == 2


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2
