"""Where sexton-init is looked for, and what is said of each place that will not do."""

from __future__ import annotations

import os
import struct
import sys
import sysconfig
from pathlib import Path

import pytest

from sexton import _binary
from sexton.errors import BinaryNotFound

HERE = os.uname().machine
E_MACHINE = {name: number for number, name in _binary.MACHINES.items()}
OTHER = next(name for name in E_MACHINE if name != HERE)


def program(directory: Path, machine: str = HERE, mode: int = 0o755) -> Path:
    """What looks like a sexton-init for that machine: the first 20 bytes are all that is read."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "sexton-init"
    path.write_bytes(b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 2, E_MACHINE[machine]))
    path.chmod(mode)
    return path


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every place that is looked in is an empty directory below this one."""
    monkeypatch.delenv("SEXTON_INIT", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path1'}:{tmp_path / 'path2'}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "interpreter" / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _, scheme="scripts": str(tmp_path / scheme))
    monkeypatch.setattr(sysconfig, "get_preferred_scheme", lambda key: key)
    monkeypatch.setattr(_binary, "__file__", str(tmp_path / "lib" / "sexton" / "_binary.py"))
    return tmp_path


PLACES = ["interpreter", "scripts", "user", "lib/bin", "build", "path1", "path2"]


@pytest.mark.parametrize("place", PLACES)
def test_each_place_will_do(nowhere: Path, place: str) -> None:
    there = program(nowhere / place)
    assert _binary.find() == there


def test_the_places_have_an_order(nowhere: Path) -> None:
    there = [program(nowhere / place) for place in PLACES]
    for path in there:
        assert _binary.find() == path
        path.unlink()


def test_one_that_is_named_is_taken_or_refused_and_no_other(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(nowhere / "interpreter")
    named = program(nowhere / "named")
    monkeypatch.setenv("SEXTON_INIT", str(named))
    assert _binary.find() == named
    named.unlink()
    with pytest.raises(BinaryNotFound, match="named/sexton-init: No such file or directory"):
        _binary.find()


def test_the_error_lists_each_place_and_what_was_wrong_there(nowhere: Path) -> None:
    program(nowhere / "interpreter", machine=OTHER)
    program(nowhere / "scripts", mode=0o644)
    (nowhere / "user").mkdir()
    (nowhere / "user" / "sexton-init").write_text("#!/bin/sh\n")
    (nowhere / "path1" / "sexton-init").mkdir(parents=True)
    with pytest.raises(BinaryNotFound) as caught:
        _binary.find()
    assert str(caught.value).splitlines()[1:-1] == [
        f"  {nowhere}/interpreter/sexton-init: built for {OTHER}, this machine is {HERE}",
        f"  {nowhere}/scripts/sexton-init: not executable",
        f"  {nowhere}/user/sexton-init: not an ELF program",
        f"  {nowhere}/lib/bin/sexton-init: No such file or directory",
        f"  {nowhere}/build/sexton-init: No such file or directory",
        f"  {nowhere}/path1/sexton-init: Is a directory",
        f"  {nowhere}/path2/sexton-init: No such file or directory",
    ]


def test_one_that_will_not_do_does_not_hide_one_that_does(nowhere: Path) -> None:
    program(nowhere / "interpreter", machine=OTHER)
    there = program(nowhere / "path2")
    assert _binary.find() == there
