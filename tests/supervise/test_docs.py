"""What docs/supervise.md says is so: its files load, its program runs, its tables are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sexton.cli import COMMANDS
from sexton.supervise import openapi
from sexton.supervise.client import Client
from sexton.supervise.load import load
from tests.supervise.fake import serving
from tests.support.lines import DEADLINE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "supervise.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_its_files_load(tmp_path: Path) -> None:
    first, api = blocks("toml")
    (tmp_path / "sexton.toml").write_text(first + api)
    config = load(tmp_path / "sexton.toml")
    assert set(config.apps) == {"db", "web"}
    assert config.api


def test_its_program_runs(tmp_path: Path) -> None:
    (program,) = blocks("python")
    (tmp_path / "run").mkdir()
    with serving(tmp_path / "run" / "api.sock") as served:
        served.do(lambda: served.fake.events.tell("stopping", instance="web.0"))
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "web.0 ready {'http': 40000}" in done.stdout
        assert served.fake.asked == [("restart", ["web"])]


def test_its_commands_are_there() -> None:
    said = set(re.findall(r"^\$ sexton (\w+)", PAGE, re.MULTILINE))
    assert {"up", "down", "status"} <= said <= set(COMMANDS)


def test_its_tables_are_complete(tmp_path: Path) -> None:
    for one in openapi.OPERATIONS:
        assert one.path in PAGE or f"`{one.name}`" in PAGE, one.path
    with serving(tmp_path / "api.sock") as served:
        text = Client(served.path).metrics()
    told = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) - {"sexton_info"}
    assert told == set(re.findall(r"^\| `(sexton_\w+)` \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", ["up", "down", "reload", "status", "ports", "events", "start", "stop", "restart",
                                  "signal", "scale"])  # fmt: skip
def test_each_command_has_a_man_page(name: str) -> None:
    pages = [path.read_text() for path in (ROOT / "man").glob("*.1")]
    assert any(re.search(rf"^\.Nm sexton-{name}( ,)?$", page, re.MULTILINE) for page in pages)
