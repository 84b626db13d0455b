"""A held tree: its lease rests while there is an owner, and how it ended waits until it is dismissed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal, TypedDict

import anyio
import pytest

import sexton
from sexton import aio, events
from sexton.errors import SextonError, UsageError
from tests.support.lines import DEADLINE, Pipe

# An owner that starts a held tree, says its mark, and dies by SIGKILL; it waits for nothing, the start, or the end.
OWNER = """
import os, signal, sys, sexton
listen, how, log, *command = sys.argv[1:]
settings = {"listen": listen, "lease": 60, "on_owner_lost": "hold", "stdin": 0, "stdout": -3, "pass_fds": [int(log)]}
tree = sexton.Tree.unawaited(command, settings) if how == "unawaited" else sexton.Tree(command, **settings)
if how == "ended":
    tree.wait()
os.write(1, tree.mark.encode())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def socket(tmp_path: Path) -> str:
    return str(tmp_path / "guard")


def orphan(socket: str, how: str, *command: str, stdin: int | None = None, log: int = 1) -> str:
    """The mark of a held tree whose owner is dead."""
    words = [sys.executable, "-c", OWNER, socket, how, str(log), *command]
    with subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, pass_fds=[log]) as owner:
        assert owner.stdout
        mark = os.read(owner.stdout.fileno(), 100)
        assert owner.wait(DEADLINE) == -signal.SIGKILL
    return mark.decode()


class Held(TypedDict):
    """The keywords of a held tree."""

    listen: str
    lease: float
    on_owner_lost: Literal["hold"]


def held(socket: str) -> Held:
    return {"listen": socket, "lease": 60, "on_owner_lost": "hold"}


def until_held(tree: sexton.Tree) -> list[events.Event]:
    return list(tree.events(DEADLINE))


def test_the_lease_rests_while_the_owner_is_there(socket: str) -> None:
    with sexton.Tree(["sleep", "1000"], **held(socket)) as tree:
        status = tree.status()
        assert status
        assert status.lease is None
        with pytest.raises(SextonError, match="rests"):
            tree.renew(9)


def test_who_asks_for_the_end_need_not_dismiss(socket: str) -> None:
    with sexton.Tree(["sleep", "1000"], **held(socket)) as tree:
        pass
    assert tree.over
    assert tree.receipt.empty
    done = sexton.run(["sh", "-c", "echo out; exit 3"], capture_output=True, **held(socket))
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert sexton.run(["sh", "-c", "exit 4"], **held(socket)).returncode == 4


def test_a_held_tree_for_asyncio(socket: str) -> None:
    async def main() -> None:
        async with await aio.Tree.start(["sh", "-c", "exit 3"], **held(socket)) as tree:
            assert await tree.wait() == 3
            assert [event async for event in tree.events()][-1].name == "empty"
        assert tree.returncode == 3

    anyio.run(main)
    assert not Path(socket).exists()


@pytest.mark.parametrize("how", ["unawaited", "awaited", "ended"])
def test_a_command_that_ends_at_once_while_its_owner_is_killed(socket: str, how: str) -> None:
    log = Pipe("the tree")
    mark = orphan(socket, how, "sh", "-c", "exit 7", log=log.write_fd)
    log.close_writer()
    assert log.rest() == []  # the guard has let go of what is its command's, and that has ended
    log.close()
    tree = sexton.Tree.adopt(socket, mark, ["sh"])
    assert tree.wait(DEADLINE) == 7
    tree.stop()
    assert tree.over


def test_the_exit_status_outlives_one_owner_after_the_other(socket: str) -> None:
    reading, writing = os.pipe()
    mark = orphan(socket, "awaited", "sh", "-c", "read word; exit 7", stdin=reading)
    os.close(reading)
    first = sexton.Tree.adopt(socket, mark, ["sh"])
    assert first.pid
    assert first.poll() is None
    os.close(writing)
    assert first.wait_command(DEADLINE) == 7
    assert first.wait(DEADLINE) == first.poll() == 7
    assert (first.held, first.over) == (True, False)  # the guard waits
    first.close()
    second = sexton.Tree.adopt(socket, mark, ["sh"])
    assert second.held
    assert second.wait(DEADLINE) == 7
    second.dismiss()
    assert [event.name for event in second.events(DEADLINE)] == ["hello", "exited"]
    assert second.stop().empty
    assert second.over
    assert not Path(socket).exists()


def test_what_nobody_keeps_is_refused(socket: str) -> None:
    with pytest.raises(UsageError, match="needs listen"):
        sexton.Tree(["true"], on_owner_lost="hold", lease=5)
    with pytest.raises(UsageError, match="needs a lease"):
        sexton.Tree(["true"], on_owner_lost="hold", listen=socket)
    with pytest.raises(UsageError, match=r"on_owner_lost='hang': expected one of stop, keep, lease, hold"):
        sexton.Tree(["true"], on_owner_lost="hang")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"contain='docker': expected one of subreaper, pidns, cgroup"):
        sexton.run(["true"], contain="docker")  # type: ignore[arg-type]


def test_what_was_written_into_a_fifo_waits_while_the_guard_does(tmp_path: Path, socket: str) -> None:
    os.mkfifo(tmp_path / "out")
    fifo = os.open(tmp_path / "out", os.O_RDWR | os.O_CLOEXEC)
    command = ["sh", "-c", "read word; echo out; echo err >&2"]
    with sexton.Tree(command, stdin=sexton.PIPE, stdout=fifo, stderr=fifo, **held(socket)) as tree:
        os.close(fifo)
        assert tree.stdin
        tree.stdin.close()
        assert tree.wait(DEADLINE) == 0
        assert tree.held
        late = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
        assert select.select([late], [], [], DEADLINE)[0]
        assert os.read(late, 100) == b"out\nerr\n"
        os.close(late)
