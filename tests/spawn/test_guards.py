"""A guard that is killed, that is stopped, that cannot end its tree; and orders from a signal handler."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sexton
from sexton import proc
from sexton.errors import LeftoversError
from sexton.spawn import _processes, _start
from tests.spawn.troop import Troop, await_reader
from tests.support.lines import DEADLINE, Pipe
from tests.support.processes import Handle

KILLS = "setsid sleep 1000 & kill -KILL $PPID; sleep 1000"
STOPS = "kill -STOP $PPID; sleep 1000"


def test_run_with_a_guard_that_is_killed() -> None:
    done = sexton.run(["sh", "-c", KILLS], timeout=DEADLINE)
    assert done.returncode == -9
    assert done.receipt
    assert done.receipt.guard_lost
    assert not done.receipt.empty  # of those without the mark nobody knows
    assert "who had its mark" in str(done.receipt)


def test_a_guard_that_is_killed_at_the_start() -> None:
    for _ in range(20):  # before or after it has said that the command runs
        with sexton.Tree(["sh", "-c", KILLS]) as tree:
            assert tree.wait(DEADLINE) == -9
            assert tree.receipt.guard_lost


def test_who_has_no_variables_is_not_taken_for_one_in_the_midst_of_an_exec() -> None:
    """Neither a thread of the kernel nor a program without an environment makes a search unclear for ever."""
    with sexton.Tree(["env", "-i", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
        assert tree.stdin
        assert tree.stdout
        tree.stdin.write(b"up\n")
        tree.stdin.flush()
        assert tree.stdout.readline() == b"up\n"
        assert proc.environ(tree.pid) == {}
        assert not all(_processes.search(_processes.mark_of(tree.mark))[1] for _ in range(1000))


def test_a_start_that_is_lost_on_its_way_ends(troop: Troop) -> None:
    """A signal handler may raise between the start of a guard and the tree that would have held it."""
    started = _start.start(troop.words("polite"), _start.Options(), "subreaper", troop.handed)
    troop.ready()
    assert started.popen
    guard = started.popen
    with pytest.warns(ResourceWarning, match="unclosed"):
        del started
    troop.end()
    assert guard.wait(DEADLINE) == 0


@pytest.mark.parametrize("how", ["stop", "kill", "leave", "signal"])
def test_a_guard_that_is_stopped(how: str) -> None:
    with sexton.Tree(["sh", "-c", f"read word; {STOPS}"], stdin=subprocess.PIPE, grace=0.2) as tree:
        assert tree.stdin
        tree.stdin.close()
        assert os.waitid(os.P_PID, tree.guard, os.WSTOPPED | os.WNOWAIT)
        if how == "stop":
            tree.stop()
        elif how == "kill":
            tree.kill()
        elif how == "signal":
            tree.send_signal("KILL", "tree")
            assert tree.wait(DEADLINE) == -9
    assert tree.receipt.empty
    assert tree.returncode == (-9 if how in {"kill", "signal"} else -15)


def test_a_guard_that_is_stopped_at_the_start() -> None:
    for _ in range(5):  # before or after it has said that the command runs
        with sexton.Tree(["sh", "-c", STOPS], grace=0.2) as tree:
            tree.kill()
            assert tree.receipt.empty


def test_a_timeout_with_a_guard_that_is_stopped() -> None:
    with pytest.raises(sexton.TimeoutExpired) as expired:
        sexton.run(["sh", "-c", STOPS], timeout=0.2, grace=0.2)
    assert expired.value.receipt
    assert expired.value.receipt.empty


ABOVE = """
import signal, sys, sexton
tree = sexton.Tree(["sleep", "1000"], grace=0.2)
def handler(*_):
    order()
    print("ordered", flush=True)
order = {"terminate": tree.terminate, "ask": tree.ask_to_stop, "stop": tree.stop, "kill": tree.kill,
    "signal": lambda: tree.send_signal("TERM", "tree")}[sys.argv[1]]
signal.signal(signal.SIGUSR1, handler)
print("waits", flush=True)
print(tree.wait(), tree.receipt.empty, flush=True)
"""


@pytest.mark.parametrize("order", ["terminate", "ask", "stop", "kill", "signal"])
def test_from_a_signal_handler_above_a_frame_that_waits(order: str) -> None:
    words = [sys.executable, "-c", ABOVE, order]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "waits\n"
        await_reader(program.pid)
        program.send_signal(signal.SIGUSR1)
        out, _ = program.communicate(timeout=DEADLINE)
    assert out == f"ordered\n{-9 if order == 'kill' else -15} True\n"


UNKILLABLE = """
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>
int main(void)
{
	if (setresuid(0, 0, 0) != 0 || printf("%d\\n", getpid()) < 0 || fflush(stdout) != 0)
		return 1;
	for (;;)
		pause();
}
"""


def test_who_may_not_be_killed_is_named(public: Path, sexton_init: Path) -> None:
    """A program that became root, as sudo's do, outlives a guard that is nobody: never is it called gone."""
    program, guard = public / "became-root", public / "guard-of-nobody"
    subprocess.run(["cc", "-x", "c", "-", "-o", program], input=UNKILLABLE, text=True, check=True)
    program.chmod(0o4755)
    shutil.copy(sexton_init, guard)
    told = Pipe("what the owner tells")
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.environ["SEXTON_INIT"] = str(guard)
            tree = sexton.Tree([str(program)], stdout=subprocess.PIPE, grace=0.1)
            assert tree.stdout
            os.write(told.write_fd, tree.stdout.readline())  # it is root now
            with pytest.raises(LeftoversError) as left:
                tree.stop()
            os.write(told.write_fd, f"{left.value}; {tree.receipt.empty} {tree.receipt.guard_lost}\n".encode())
        finally:
            os._exit(0)
    told.close_writer()
    member = Handle(int(told.line() or 0))
    said = told.line() or ""
    assert member.alive()
    member.kill()
    member.wait_dead()
    member.close()
    told.close()
    assert os.waitpid(child, 0) == (child, 0)
    assert f"{member.pid} (became-root)" in said
    assert said.endswith("False False")
