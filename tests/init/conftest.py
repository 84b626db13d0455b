"""Fixtures of the native behaviour: the modes, and families of processes under sexton-init."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.init.family import ALL_MODES, PLACED_MODES, Mode, Starter


@pytest.fixture
def anyones_init(sexton_init: Path, public: Path) -> Path:
    """A copy of the binary under test that every user may execute."""
    copy = public / sexton_init.name
    if not copy.exists():
        shutil.copy(sexton_init, copy)
        copy.chmod(0o755)
    return copy


@pytest.fixture(params=ALL_MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """As PID 1 or not; with /proc, without, with another namespace's."""
    found: Mode = request.param
    return found


@pytest.fixture(params=PLACED_MODES, ids=str)
def placed(request: pytest.FixtureRequest) -> Mode:
    """As PID 1 or not, with /proc."""
    found: Mode = request.param
    return found


@pytest.fixture
def root() -> None:
    """For tests that need more than one user, or to mount: a user namespace of our own maps one user only."""
    if os.geteuid() != 0:
        pytest.skip("needs root: more than one user")


@pytest.fixture
def start(sexton_init: Path, monster: Path) -> Iterator[Starter]:
    """Starts families; the end of the test ends them all."""
    with contextlib.ExitStack() as stack:
        yield Starter(sexton_init, monster, stack)
