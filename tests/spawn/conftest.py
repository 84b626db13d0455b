"""Fixtures of the library: the guard under test, troops of monsters, and the look whether a test left anybody."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import sexton
from sexton import proc
from sexton.errors import ContainmentError
from sexton.spawn import _rescue, _start
from sexton.spawn._processes import cmdline, marked
from tests.spawn.troop import Troop
from tests.support.processes import Handle


@pytest.fixture(autouse=True)
def guard(sexton_init: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes the binary under test, with nothing in the environment that is meant for another."""
    monkeypatch.setenv("SEXTON_INIT", str(sexton_init))


@pytest.fixture(autouse=True)
def nobody_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """No test leaves a process: each carries a mark of the test; who is left is ended, and fails it."""
    name, value = "SEXTON_TEST", uuid.uuid4().hex
    monkeypatch.setenv(name, value)
    mark = f"{name}={value}"
    yield mark
    await_guards(mark)
    left = [str(process) for process in marked(mark)]
    _rescue.end(mark)
    for given_up in _start._given_up:  # no zombie of this test is a child of the next one's
        given_up.wait(30)
    assert not left, f"the test left {left}"


def await_guards(mark: str) -> None:
    """Where an owner was killed its guard has still to end."""
    for process in marked(mark):
        if cmdline(process.pid)[:1] == ("sexton-init",):
            with contextlib.suppress(ProcessLookupError):
                handle = Handle(process.pid)
                handle.wait_dead()
                handle.close()


@pytest.fixture
def cgroups(nobody_left: str) -> Iterator[Path | None]:
    """Where cgroups can be made, none of which may be left; None where none can: then sexton must say so."""
    directory = own_cgroup()
    assert directory or not os.environ.get("TEST_CGROUPS")
    before = set(directory.glob("sexton-*")) if directory else set()
    if directory is None:
        with pytest.raises(ContainmentError, match="cgroup"):
            sexton.Tree(["true"], contain="cgroup")
    yield directory
    await_guards(nobody_left)
    assert directory is None or set(directory.glob("sexton-*")) <= before


def own_cgroup() -> Path | None:
    """The cgroup v2 directory of this process, if a cgroup of our own can be made below it."""
    mounts, memberships = proc.mounts(), proc.cgroups(os.getpid())
    assert not isinstance(mounts, proc.Missing)
    assert not isinstance(memberships, proc.Missing)
    path = next((each.path for each in memberships if each.hierarchy == 0), None)
    for mount in mounts:
        if mount.kind == "cgroup2" and path is not None and path.startswith(mount.root):
            directory = Path(mount.point + path.removeprefix(mount.root.rstrip("/")))
            trial = directory / f"sexton-test-{os.getpid()}"
            try:
                trial.mkdir()
            except OSError:
                continue
            can_kill = (trial / "cgroup.kill").exists()
            trial.rmdir()
            return directory if can_kill else None
    return None


@pytest.fixture
def troop(monster: Path) -> Iterator[Troop]:
    """Makes the command lines of monsters, and reads their log."""
    made = Troop(monster)
    yield made
    made.log.close()
