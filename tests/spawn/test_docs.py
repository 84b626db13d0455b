"""The examples of docs/spawn are run."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sexton.spawn
from sexton.spawn.pages import pages
from tests.support.lines import DEADLINE

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted((CHECKOUT / "docs" / "spawn").glob("*.md"))
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_STATE", str(tmp_path))
    words = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr


def test_the_reference_is_current() -> None:
    """And each name is where the page says it is, with everything that can be asked of it on the page."""
    directory = CHECKOUT / "docs" / "reference"
    made = pages()
    assert {page.name for page in directory.iterdir()} == set(made)
    for name, text in made.items():
        assert (directory / name).read_text() == text, f"run `python -m sexton.spawn.pages docs/reference` for {name}"
    named = set(re.findall(r"^## (sexton[.\w]*)\.(\w+)$", "\n".join(made.values()), re.MULTILINE))
    for where, name in named:
        assert hasattr(importlib.import_module(where), name), f"{where}.{name}"
    known = {name for where, name in named if where in {"sexton", "sexton.spawn"}}
    assert set(sexton.spawn.__all__) == known | {"DEVNULL", "PIPE", "STDOUT"}


@pytest.mark.parametrize("name", ["run", "sweep"])
def test_the_manual_page_names_every_option(name: str) -> None:
    page = (CHECKOUT / "man" / f"sexton-{name}.1").read_text()
    command = importlib.import_module(f"sexton.cli.{name}").__dict__[name]
    options = {option for one in command.params for option in one.opts if option.startswith("--")}
    assert {option for option in options if f".It Fl {option[1:]}" not in page} == set()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10
