"""A cgroup of the kernel's for a test, below our own. With TEST_CGROUPS=all (see tests/guest) it must be had."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sexton.supervise import limits
from sexton.supervise.config import Limits

# One that limits nothing here, and goes the same way: where cgroup v2 has no other.
STAND_IN = limits.Wish("limits.processes", "hugetlb", "hugetlb.2MB.max", 1 << 21)
CONTROLLERS = ("memory", "pids", "hugetlb")


@dataclass(frozen=True)
class Room:
    """An empty cgroup, and which controllers it has."""

    path: Path
    controllers: tuple[str, ...]

    @property
    def limits(self) -> bool:
        """Memory and processes can be limited: the real thing."""
        return {"memory", "pids"} <= set(self.controllers)

    def cells(self) -> list[Path]:
        return sorted(each for each in self.path.glob("sexton-*") if each.name != limits.OURS)


@contextlib.contextmanager
def room() -> Iterator[Room | None]:
    """One, taken away afterwards; None: this machine lets us have none."""
    own = limits._own(limits.PROC)
    found = tuple(name for name in CONTROLLERS if own and name in limits._words(own / "cgroup.controllers"))
    enabled = own is not None and bool(found) and _enable(own, "+", found)
    had = {"memory", "pids"} <= set(found) and enabled
    assert had or not os.environ.get("TEST_CGROUPS"), "there is no cgroup v2 with memory and pids for us"
    if own is None or not enabled:
        yield None
        return
    made = own / f"sexton-test-{uuid.uuid4().hex[:8]}"
    made.mkdir()
    try:
        yield Room(made, found)
    finally:
        for below in [*made.glob("*/"), made]:
            below.rmdir()
        _enable(own, "-", found)


def _enable(own: Path, sign: str, names: tuple[str, ...]) -> bool:
    try:
        (own / "cgroup.subtree_control").write_text(" ".join(sign + name for name in names))
    except OSError:  # not writable, or others are in it
        return False
    return True


@contextlib.contextmanager
def inside(room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """We are in it, and whom we start; no cell may be left."""
    if not room.limits:
        monkeypatch.setattr(limits, "_wishes", lambda wanted: [] if wanted == Limits() else [STAND_IN])
    before = room.path.parent / "cgroup.procs"
    (room.path / "cgroup.procs").write_text("0")
    try:
        yield room
    finally:
        for each in (room.path, room.path / limits.OURS):
            for pid in limits._pids(each):
                with contextlib.suppress(ProcessLookupError):
                    before.write_text(str(pid))
        assert room.cells() == []
