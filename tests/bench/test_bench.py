"""`make bench` measures every row. What comes out is the machine's business: no figure is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ROWS = {
    "start": ["start"],
    "idle": ["rss-pid1", "rss-beside", "private", "wakeups"],
    "orphans": ["orphans", "growth"],
    "signals": ["signal-p50", "signal-p99"],
    "leftovers": ["daemon", "stubborn", "untold"],
    "tree": ["tree-pid1", "tree-beside"],
    "size": ["size"],
}


def bench(sexton_init: Path, *options: str) -> str:
    command = [sys.executable, "-m", "bench.init", "--quick", "--sexton-init", str(sexton_init), *options]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.release_only("a sanitizer build's size and speed say nothing")
def test_every_row_is_measured(sexton_init: Path) -> None:
    measured = json.loads(bench(sexton_init, "--json"))
    assert [row["key"] for row in measured["rows"]] == [key for keys in ROWS.values() for key in keys]
    for row in measured["rows"]:
        assert list(row["figures"]) == ["sexton", "tini", "dumb-init", "catatonit"]
        assert row["ok"] is not None or not row["bar"]
        if row["key"] in {"orphans", "signal-p50", "rss-pid1", "tree-beside", "size"}:
            assert all(figure["value"] > 0 for figure in row["figures"].values())


@pytest.mark.release_only("a sanitizer build's size and speed say nothing")
@pytest.mark.parametrize("form", ["--markdown", None])
def test_the_tables_have_a_line_for_each_row(sexton_init: Path, form: str | None) -> None:
    lines = bench(sexton_init, "--only", "size", "--only", "signals", *([form] if form else [])).splitlines()
    for title in ("binary" if form is None else "size of the binary", "signal"):
        assert any(title in line for line in lines), lines
    assert form or max(map(len, lines[2:-1])) <= 80


def test_a_missing_binary_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.init", "--quick", "--sexton-init", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "make build" in done.stderr
