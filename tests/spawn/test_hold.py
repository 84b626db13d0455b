"""A held tree: its lease rests while the owner lives, and its exit status waits until it is dismissed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sexton
from sexton import events
from sexton.errors import SextonError
from tests.support.lines import DEADLINE

# An owner that starts a held tree whose command reads its input, says where the guard listens, and dies by SIGKILL.
OWNER = """
import os, signal, sys, sexton
lease = {"lease": 25, "on_owner_lost": "lease"}
tree = sexton.Tree(["sh", "-c", "read word; exit 7"], stdin=0, stdout=-3, listen=sys.argv[1], **lease)
tree.hold()
print(tree.mark, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def socket(tmp_path: Path) -> str:
    return str(tmp_path / "guard")


def orphan(socket: str, input_end: int) -> str:
    """The mark of a held tree whose owner is dead."""
    done = subprocess.run([sys.executable, "-c", OWNER, socket], stdin=input_end, stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    return done.stdout.decode().strip()


def status_of(tree: sexton.Tree) -> events.Status:
    status = tree.status()
    assert status
    return status


def test_the_lease_rests_while_the_owner_is_there(socket: str) -> None:
    with sexton.Tree(["sleep", "1000"], listen=socket, lease=20, on_owner_lost="lease") as tree:
        assert status_of(tree).lease
        tree.hold()
        assert status_of(tree).lease is None
        tree.renew(9)
        assert (status_of(tree).lease or 0) in (8, 9)


def test_the_exit_status_outlives_one_owner_after_the_other(socket: str) -> None:
    reading, writing = os.pipe()
    mark = orphan(socket, reading)
    os.close(reading)
    first = sexton.Tree.adopt(socket, mark, ["sh"], hold=True)
    assert first.pid
    os.close(writing)
    assert first.wait_command(DEADLINE) == 7
    assert any(isinstance(event, events.Empty) for event in until_empty(first))
    assert first.poll() is None  # the guard waits
    first.close()
    second = sexton.Tree.adopt(socket, mark, ["sh"], hold=True)
    assert second.wait_command(DEADLINE) == 7
    second.dismiss()
    assert second.wait(DEADLINE) == 7
    assert not Path(socket).exists()


def until_empty(tree: sexton.Tree) -> list[events.Event]:
    found = []
    for event in tree.events(DEADLINE):
        found.append(event)
        if isinstance(event, events.Empty):
            break
    return found


def test_who_adopts_an_ended_tree_without_holding_it_ends_the_guard(socket: str) -> None:
    reading, writing = os.pipe()
    mark = orphan(socket, reading)
    os.close(reading)
    first = sexton.Tree.adopt(socket, mark, ["sh"], hold=True)
    os.close(writing)
    until_empty(first)
    first.close()
    assert sexton.Tree.adopt(socket, mark, ["sh"]).wait(DEADLINE) == 7


def test_what_nobody_keeps_is_refused() -> None:
    with sexton.Tree(["sleep", "1000"]) as tree, pytest.raises(SextonError, match="only with --listen"):
        tree.hold()


def test_what_was_written_into_a_fifo_waits_while_the_guard_does(tmp_path: Path, socket: str) -> None:
    os.mkfifo(tmp_path / "out")
    fifo = os.open(tmp_path / "out", os.O_RDWR | os.O_CLOEXEC)
    tree = sexton.Tree(
        ["sh", "-c", "read word; echo out; echo err >&2"],
        stdin=sexton.PIPE,
        stdout=fifo,
        stderr=fifo,
        listen=socket,
        lease=20,
        on_owner_lost="lease",
    )
    os.close(fifo)
    tree.hold()
    assert tree.stdin
    tree.stdin.close()
    until_empty(tree)
    assert tree.poll() is None
    late = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([late], [], [], DEADLINE)[0]
    assert os.read(late, 100) == b"out\nerr\n"
    os.close(late)
    tree.dismiss()
    assert tree.wait(DEADLINE) == 0
