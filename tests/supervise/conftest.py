"""What the tests of the supervisor share: the guard under test, the look whether a test left anybody, a served API."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.spawn.conftest import guard, nobody_left
from tests.supervise.fake import Serving, serving

__all__ = ["guard", "nobody_left"]


@pytest.fixture
def served(tmp_path: Path) -> Generator[Serving]:
    """The control API of a supervisor that runs nothing."""
    with serving(tmp_path / "api.sock") as found:
        yield found
