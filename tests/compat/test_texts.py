"""What they say of themselves: the form is the peer's where it is read by machines, the words are our own."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.compat.twins import Case, Side, Twins
from tests.support.lines import DEADLINE


@pytest.mark.parametrize(
    ("line", "stream"),
    [
        ("tini -h", "out"),
        ("docker-init -h", "out"),
        ("tini -sh", "out"),
        ("tini", "err"),
        ("tini -x", "err"),
        ("dumb-init -h", "err"),
        ("dumb-init --help", "err"),
        ("dumb-init --he", "err"),
        ("catatonit -h", "err"),
        ("tini -l", "out"),
        ("catatonit -L", "out"),
    ],
)
def test_a_text_goes_where_the_peers_goes(twins: Twins, line: str, stream: str) -> None:
    peer, ours = (side.run(Case(line)) for side in twins.sides)
    for outcome in (peer, ours):
        said = {"out": outcome.out, "err": outcome.err}
        assert said.pop(stream)
        assert not any(said.values())
    assert ours.code == peer.code


OPTIONS = {
    "tini -h": "-h -s -p -v -w -g -e -l --version TINI_SUBREAPER TINI_VERBOSITY TINI_KILL_PROCESS_GROUP",
    "dumb-init -h": "-c --single-child -r --rewrite -v --verbose -h --help -V --version",
    "catatonit -h": "-g -h -L -P -V --version",
}


def whole(side: Side, line: str) -> str:
    """What it says to the line, unchanged: the twins shorten tini's usage, which ends other messages too."""
    words = line.split()
    path = side.folder / words[0]
    found = subprocess.run(words, executable=path, capture_output=True, text=True, check=False, timeout=DEADLINE)
    return found.stdout + found.stderr


@pytest.mark.parametrize("line", OPTIONS)
def test_the_help_names_every_option(twins: Twins, line: str) -> None:
    for side in twins.sides:
        text = whole(side, line)
        for word in OPTIONS[line].split():
            assert re.search(rf"(?m)^ +(?:-\w, )?{re.escape(word)}\b", text), word


@pytest.mark.parametrize(
    "needle", ["supervision of a valid init process", "more verbose", "tini version 0.19.0", "Usage: tini"]
)
def test_what_scripts_match_in_tinis_help_is_there(twins: Twins, needle: str) -> None:
    assert needle in whole(twins.ours, "tini -h")


def test_what_scripts_match_in_tinis_warning_is_there(twins: Twins) -> None:
    text = whole(twins.ours, "tini true")
    assert re.match(r"\[WARN  tini \(\d+\)\] Tini is not running as PID 1 ", text)
    assert "zombie reaping won't work" in text
    assert "-s" in text
    assert "TINI_SUBREAPER" in text


def parse_init_version(text: str) -> tuple[str, str]:
    """The version and the commit, as the Docker engine reads them from `docker-init --version`."""
    before, _, after = text.partition(" - ")
    assert before.strip().startswith("tini version ")
    commit = after.strip()
    assert not commit or commit.startswith("git.")
    return before.strip().removeprefix("tini version "), commit.removeprefix("git.")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("docker-init --version", r"0\.19\.0"),
        ("tini --version", r"0\.19\.0"),
        ("catatonit --version", r"\d+\.\d+\.\d+_catatonit"),
        ("catatonit -V", r"\d+\.\d+\.\d+_catatonit"),
    ],
)
def test_the_engine_can_read_the_version(twins: Twins, line: str, version: str) -> None:
    assert re.fullmatch(version, parse_init_version(whole(twins.ours, line))[0])


@pytest.mark.parametrize("line", ["tini -h", "dumb-init -h", "catatonit -h", "tini -l", "catatonit -L", "pause -v"])
def test_ours_says_who_it_really_is(twins: Twins, line: str) -> None:
    assert "sexton-init" in whole(twins.ours, line)
