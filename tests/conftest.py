"""Fixtures of many tests: a directory for every user, and the monsters in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import monsters


@pytest.fixture(scope="session")
def public() -> Iterator[Path]:
    """A directory that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="sexton-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def monster(public: Path) -> Path:
    """The program of tests/support/monster.c, alone in its directory."""
    (public / "monster").mkdir()
    return monsters.build(public / "monster" / "monster")
