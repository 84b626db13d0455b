"""Fixtures of the library: the guard under test, troops of monsters, and the look whether a test left anybody."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sexton.spawn import _rescue, _start
from sexton.spawn._processes import cmdline, marked
from tests.spawn.troop import Troop
from tests.support.processes import Handle


@pytest.fixture(autouse=True)
def guard(sexton_init: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes the binary under test, with nothing in the environment that is meant for another."""
    monkeypatch.setenv("SEXTON_INIT", str(sexton_init))


@pytest.fixture(autouse=True)
def nobody_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves a process: each carries a mark of the test; who is left is ended, and fails it."""
    name, value = "SEXTON_TEST", uuid.uuid4().hex
    monkeypatch.setenv(name, value)
    yield
    mark = f"{name}={value}"
    for process in marked(mark):
        if cmdline(process.pid)[:1] == ("sexton-init",):  # an owner was killed: its guard has still to end
            with contextlib.suppress(ProcessLookupError):
                handle = Handle(process.pid)
                handle.wait_dead()
                handle.close()
    left = [str(process) for process in marked(mark)]
    _rescue.end(mark)
    for given_up in _start._given_up:  # no zombie of this test is a child of the next one's
        given_up.wait(30)
    assert not left, f"the test left {left}"


@pytest.fixture
def troop(monster: Path) -> Iterator[Troop]:
    """Makes the command lines of monsters, and reads their log."""
    made = Troop(monster)
    yield made
    made.log.close()
