"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lines import DEADLINE

LEAKING = """
import os, signal, subprocess, sys, warnings
import pytest

@pytest.fixture(scope="session")
def server():
    process = subprocess.Popen(["sleep", "1000"])
    yield
    process.kill()
    process.wait()

def test_clean(tree):
    first = tree(["sh", "-c", "setsid sleep 1001 & sleep 1002"])
    assert tree(["sleep", "1003"]).poll() is None
    assert subprocess.run(["sh", "-c", "sleep 0 &"]).returncode == 0

def test_served(server):
    pass

def test_daemon():
    subprocess.run(["sh", "-c", "setsid sleep 1004 >/dev/null 2>&1 & echo $! >&2"])

def test_zombie():
    global process
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

def test_after_it():
    process.wait()
"""


FAILING = """
import subprocess
import pytest

@pytest.fixture
def broken():
    yield
    raise OSError("in the teardown")

@pytest.fixture
def failed():
    yield
    pytest.fail("in the other", pytrace=False)

def test_daemon(broken):
    subprocess.run(["sh", "-c", "setsid sleep 1004 >/dev/null 2>&1 &"])

def test_other_daemon(failed):
    subprocess.run(["sh", "-c", "setsid sleep 1005 >/dev/null 2>&1 &"])

def test_after_it():
    pass
"""


def run(tmp_path: Path, *options: str, code: str = LEAKING) -> list[str]:
    (tmp_path / "test_it.py").write_text(code)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"]
    kill = f'"$@"; echo $? >{tmp_path}/code'  # inside a tree of its own, so that what it leaks ends with it
    done = subprocess.run(
        [sys.executable, "-m", "sexton", "run", "sh", "-c", kill, "sh", *words, *options, str(tmp_path)],
        capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=tmp_path,
    )  # fmt: skip
    return [(tmp_path / "code").read_text().strip(), *done.stdout.splitlines()]


@pytest.mark.parametrize("mode", ["fail", "warn", "off"])
def test_leaks(tmp_path: Path, mode: str) -> None:
    code, *lines = run(tmp_path, f"--sexton-leaks={mode}")
    out = "\n".join(lines)
    assert code == ("1" if mode == "fail" else "0"), out
    left = [line for line in lines if "left 1 behind" in line]
    assert {line.split(" left ")[0].split("::")[-1] for line in left} == (
        set() if mode == "off" else {"test_daemon", "test_zombie"}
    )
    assert ("sleep 1004" in out) == (mode != "off")  # perhaps still the shell that is about to execute it
    assert ("(true): a zombie, never waited for" in out) == (mode != "off")
    assert "5 passed" in out
    assert ("2 errors" in out) == (mode == "fail")


@pytest.mark.parametrize("mode", ["fail", "warn"])
def test_leaks_beside_a_teardown_that_fails(tmp_path: Path, mode: str) -> None:
    """The failure is told as it was, and with it who was left: the next test is not to blame."""
    code, *lines = run(tmp_path, f"--sexton-leaks={mode}", code=FAILING)
    out = "\n".join(lines)
    assert code == "1", out
    assert {line.split(" left ")[0].split("::")[-1] for line in lines if "left 1 behind" in line} == {
        "test_daemon",
        "test_other_daemon",
    }
    assert "3 passed, 2 errors" in out
    assert "OSError: in the teardown" in out
    assert "in the other" in out


def test_off_is_the_default(tmp_path: Path) -> None:
    code, *lines = run(tmp_path)
    assert code == "0"
    assert "left" not in "\n".join(lines)
