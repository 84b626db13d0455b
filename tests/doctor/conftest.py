"""What the scenes need besides processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sexton import proc


@pytest.fixture
def cgroup(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new version 1 cgroup of the controller that the test names, removed when its processes have gone."""
    mounts = proc.mounts()
    assert not isinstance(mounts, proc.Missing)
    (top,) = [m.point for m in mounts if m.kind == "cgroup" and request.param in m.options]
    path = Path(top) / f"sexton-test-{os.getpid()}"
    path.mkdir()
    yield path
    for place in (*(each for each in path.iterdir() if each.is_dir()), path):
        while (place / "cgroup.procs").read_text():
            os.sched_yield()  # its processes have been killed, and leave when they are reaped
        place.rmdir()
