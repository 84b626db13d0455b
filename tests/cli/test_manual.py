"""Each command has a manual page, which tells of every option of it and of no other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from sexton.cli import COMMANDS
from sexton.cli._group import LazyGroup
from tests.support.lines import DEADLINE

MANUAL = Path(__file__).parents[2] / "man"
PAGES = sorted(page for page in MANUAL.glob("sexton-*.1") if not page.is_symlink())


def names(page: Path) -> list[str]:
    """The commands that a page is about."""
    return re.findall(r"^\.Nm sexton-(\w+)", page.read_text().partition(".Nd")[0], re.MULTILINE)


def options(name: str) -> set[str]:
    """The long ones of a command, but for --help."""
    group = LazyGroup()
    command = group.get_command(click.Context(group), name)
    assert command
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    said = [opt for one in shown for opt in one.secondary_opts or one.opts]  # of --a and --no-a the latter
    return {opt.removeprefix("--") for opt in said if opt.startswith("--")}


def told(page: Path) -> set[str]:
    """The long options that a page tells of."""
    return set(re.findall(r"(?:Fl|,) -([a-z][a-z-]+)", page.read_text()))


def test_every_command_has_a_page() -> None:
    assert sorted(name for page in PAGES for name in names(page)) == sorted(COMMANDS)


def test_man_finds_it_by_its_name() -> None:
    found = {name: (MANUAL / f"sexton-{name}.1").resolve() for name in COMMANDS}
    assert {name for name, page in found.items() if page in PAGES and name in names(page)} == set(COMMANDS)
    assert {page.stem for page in MANUAL.glob("sexton-*.1")} == {f"sexton-{name}" for name in COMMANDS}


def test_the_first_page_names_them_all() -> None:
    assert set(re.findall(r"Xr sexton-(\w+) 1", (MANUAL / "sexton.1").read_text())) == set(COMMANDS)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "sexton-init"], ids=lambda page: page.stem)
def test_it_tells_of_every_option(page: Path) -> None:
    assert told(page) == {option for name in names(page) for option in options(name)}


def test_so_does_that_of_sexton_init(sexton_init: Path) -> None:
    done = subprocess.run([sexton_init, "--help"], capture_output=True, text=True, timeout=DEADLINE, check=True)
    (page,) = (page for page in PAGES if page.stem == "sexton-init")
    assert told(page) == set(re.findall(r"--([a-z][a-z-]+)", done.stdout))
