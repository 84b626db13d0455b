"""The fixture of the replays."""

from __future__ import annotations

from pathlib import Path

import pytest

from incidents.replaying import RELEASE


@pytest.fixture(scope="session")
def sexton_init(request: pytest.FixtureRequest) -> Path:
    """The sexton-init under test: the first that the tests' option --sexton-init names."""
    named: list[Path] = request.config.getoption("sexton_init", default=None) or [RELEASE]
    path = named[0].absolute()
    assert path.is_file(), f"{path} is not there: run `make build`"
    return path
