"""What escapes the libraries' ways to stop a process, each by its name; and does not escape a tree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import sexton
from sexton.spawn import _processes, _rescue
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE, until
from tests.support.monsters import double_forked, setsid_daemon
from tests.support.processes import Handle


def popen_kill(process: subprocess.Popen[bytes]) -> None:
    """And asyncio, trio and anyio: each signals the child alone."""
    process.kill()


def killpg(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def psutil_recipe(process: subprocess.Popen[bytes]) -> None:
    """kill_proc_tree() of psutil's documentation: a snapshot by parent, then SIGKILL for each."""
    parent = psutil.Process(process.pid)
    for each in [*parent.children(recursive=True), parent]:
        each.kill()


def environment_marker(_process: subprocess.Popen[bytes]) -> None:
    """As Jenkins' and GitHub's runners: everybody whose environment has the build's mark."""
    mark = f"SEXTON_TEST={os.environ['SEXTON_TEST']}"
    for each in _processes.marked(mark):
        os.kill(each.pid, signal.SIGKILL)


CLEARED = "fork exec env -i MONSTER LOG stubborn"
ROWS: list[tuple[Callable[[subprocess.Popen[bytes]], None], str]] = [
    (popen_kill, "fork stubborn"),
    (killpg, setsid_daemon("stubborn")),
    (psutil_recipe, double_forked("stubborn")),
    (environment_marker, CLEARED),
]


@pytest.mark.parametrize(("kill", "escape"), ROWS, ids=[row[0].__name__ for row in ROWS])
def test_it_escapes_there_and_not_here(
    troop: Troop, kill: Callable[[subprocess.Popen[bytes]], None], escape: str
) -> None:
    escape = escape.replace("MONSTER", str(troop.monster)).replace("LOG", str(troop.log.write_fd))
    words = troop.words(escape, "stubborn")
    with subprocess.Popen(words, **troop.handed, process_group=0) as process:
        [escaped] = {note.pid for note in troop.ready(2)} - {process.pid}
        handle = Handle(escaped)
        kill(process)
        process.wait(DEADLINE)
        assert handle.alive()
        handle.kill()
        handle.wait_dead()
        handle.close()

    with sexton.Tree(words, **troop.handed, grace=0.1) as tree:
        [escaped] = {note.pid for note in troop.ready(2)} - {tree.pid}
        handle = Handle(escaped)
        receipt = tree.stop()
        assert not handle.alive()
        handle.close()
    assert receipt.empty
    assert {entry.pid: entry.code for entry in receipt.entries}[escaped] == -9
    troop.end()


def test_a_pipe_that_a_grandchild_holds_ends_with_the_command(troop: Troop) -> None:
    """There communicate() waits for the daemon, as asyncio's wait() does (cpython #119710)."""
    words = troop.words(double_forked("stubborn"), "await 1", "exit 0")
    process = subprocess.Popen(words, **troop.handed, stdout=subprocess.PIPE)
    [daemon] = troop.ready()
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.2)
    handle = Handle(daemon.pid)
    handle.kill()
    handle.close()
    process.communicate(timeout=DEADLINE)
    assert sexton.run(words, **troop.handed, stdout=sexton.PIPE, grace=0.1, timeout=DEADLINE).stdout == b""
    troop.end()


HEADLESS = """
import ctypes, os, threading
begun, begin = os.pipe()
threading.Thread(target=lambda: (os.write(begin, b"x"), os.read(begun, 1), os.read(begun, 1))).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # exit, of this thread alone
"""


def test_who_has_ended_its_first_thread_does_not_escape_the_mark() -> None:
    """It looks like a zombie."""
    with subprocess.Popen([sys.executable, "-c", HEADLESS]) as process:
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z", "the end of its first thread")
        mark = f"SEXTON_TEST={os.environ['SEXTON_TEST']}"
        assert [each.pid for each in _processes.marked(mark)] == [process.pid]
        assert _rescue.told(_processes.marked(mark)).startswith(f"{process.pid} (python")
        assert _rescue.end(mark) == []
        assert process.wait(DEADLINE) == -signal.SIGKILL
        assert _processes.marked(mark) == []
