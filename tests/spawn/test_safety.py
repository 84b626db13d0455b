"""Beside everything: threads, forks, other reapers, and the deaths of owner and guard."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import sexton
from sexton.errors import NotOwner
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE, Pipe
from tests.support.monsters import double_forked, join, setsid_daemon
from tests.support.processes import Handle


def test_no_thread_no_handler() -> None:
    threads, handler = threading.active_count(), signal.getsignal(signal.SIGCHLD)
    with sexton.Tree(["sleep", "100"]):
        assert threading.active_count() == threads
        assert signal.getsignal(signal.SIGCHLD) == handler


def test_from_many_threads() -> None:
    def one(number: int) -> int:
        return sexton.run(["sh", "-c", f"sleep 100 & exit {number}"], capture_output=True).returncode

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == list(range(40))


def test_many_threads_wait_for_one_tree(troop: Troop) -> None:
    with sexton.Tree(troop.words("polite"), **troop.handed) as tree, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(tree.wait, DEADLINE) for _ in range(6)]
        reading = pool.submit(lambda: [event.name for event in tree.events(DEADLINE)])
        troop.ready()
        for _ in range(3):
            assert tree.status()
        tree.stop()
        assert [wait.result(DEADLINE) for wait in waiting] == [0] * 6
        assert reading.result(DEADLINE)[-1] == "empty"


def test_a_program_that_reaps_everybody_takes_no_status() -> None:
    with sexton.Tree(["sh", "-c", "read word; exit 6"], stdin=sexton.PIPE) as tree:
        assert tree.stdin
        tree.stdin.close()
        assert os.waitpid(-1, 0)[0] == tree.guard
        assert tree.wait(DEADLINE) == 6


def test_a_program_that_ignores_its_children() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert sexton.run(["sh", "-c", "sleep 100 & exit 6"]).returncode == 6
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def forked(reader: int) -> Iterator[tuple[int, list[bytes]]]:
    """Fork: in the parent gives the child's pid and, afterwards, what it wrote; the child gets 0, and ends."""
    pid = os.fork()
    said: list[bytes] = []
    if pid == 0:
        try:
            yield 0, said
        finally:
            os._exit(0)
    yield pid, said
    assert os.waitpid(pid, 0)[0] == pid
    said.append(os.read(reader, 1000))


def test_the_end_of_a_forked_child_stops_nothing(troop: Troop) -> None:
    reader, writer = os.pipe()
    with sexton.Tree(troop.words("polite"), **troop.handed) as tree:
        troop.ready()
        with forked(reader) as (pid, said):
            if pid == 0:
                try:
                    tree.poll()
                except NotOwner as error:
                    os.write(writer, str(error).encode())
                del tree
                gc.collect()
        assert b"belongs to the process that forked this one" in said[0]
        assert tree.poll() is None
        assert tree.status()
    os.close(reader)
    os.close(writer)


OWNER = """
import os, sys, signal, subprocess
import sexton
tree = sexton.Tree(sys.argv[2:], pass_fds=[int(sys.argv[1])])
{more}
print(os.getpid(), flush=True)
signal.pause()
"""


def own(troop: Troop, *statements: str, more: str = "") -> subprocess.Popen[bytes]:
    """A program that owns a tree of monsters."""
    words = [sys.executable, "-c", OWNER.format(more=more), str(troop.log.write_fd), *troop.words(*statements)]
    return subprocess.Popen(words, **troop.handed, stdout=subprocess.PIPE)


def test_nothing_survives_an_owner_that_is_killed(troop: Troop) -> None:
    with own(troop, double_forked("stubborn"), setsid_daemon(), "polite", more="tree.status()") as owner:
        troop.ready(3)
        owner.kill()
        assert troop.end()


def test_a_forked_child_does_not_keep_the_tree_of_a_dead_owner(troop: Troop) -> None:
    more = """
child = os.fork()
if child == 0: signal.pause()
print(child, flush=True)
"""
    with own(troop, double_forked(), "polite", more=more) as owner:
        troop.ready(2)
        assert owner.stdout
        child = Handle(int(owner.stdout.readline()))
        owner.kill()
        # The fork has the log too, so the log does not end with the tree: the monsters say what they got.
        notes = troop.log.until(lambda line: line.startswith("got "), 2)
        assert child.alive()
        child.kill()
        child.wait_dead()
        child.close()
    assert len(notes) >= 2


def test_an_owner_that_dies_while_it_starts_trees(troop: Troop) -> None:
    code = """
import sys, sexton
trees = []
while True:
    trees.append(sexton.Tree(sys.argv[2:], pass_fds=[int(sys.argv[1])]))
"""
    for number in range(1, 6):
        log = Pipe("the log of one round")
        words = [str(troop.monster), str(log.write_fd), *join("fork setsid polite", "polite")]
        owner = subprocess.Popen([sys.executable, "-c", code, str(log.write_fd), *words], pass_fds=[log.write_fd])
        log.close_writer()
        log.until(lambda line: line.startswith("ready "), number)
        owner.kill()
        owner.wait(DEADLINE)
        log.rest()  # ends when the last of them is dead
        log.close()


def test_keep_lets_the_tree_go_on(troop: Troop) -> None:
    with sexton.Tree(troop.words("polite"), **troop.handed, on_owner_lost="keep") as tree:
        [note] = troop.ready()
        member, guard = Handle(note.pid), Handle(tree.guard)
        tree.close()
        assert member.alive()
        guard.send(signal.SIGTERM)
        for handle in (guard, member):
            handle.wait_dead()
            handle.close()
        with pytest.raises(NotOwner, match="given up"):
            tree.poll()


def test_a_forgotten_tree_is_told_of_and_ended(troop: Troop) -> None:
    tree = sexton.Tree(troop.words("polite"), **troop.handed)
    troop.ready()
    guard = tree.guard
    with pytest.warns(ResourceWarning, match="still running"):
        del tree
    troop.end()
    handle = Handle(guard)
    handle.wait_dead()
    handle.close()
    assert sexton.run(["true"]).returncode == 0
    with pytest.raises(ChildProcessError):  # buried on that occasion
        os.waitpid(guard, 0)


def test_when_the_guard_is_killed(troop: Troop) -> None:
    """Its tree has the mark in its environment, and is found by it."""
    with sexton.Tree(troop.words(double_forked("stubborn"), setsid_daemon(), "polite"), **troop.handed) as tree:
        troop.ready(3)
        Handle(tree.guard).kill()
        assert tree.wait(DEADLINE) == -9
        assert tree.receipt.guard_lost
        assert tree.returncode == -9
    troop.end()


def test_a_stranger_is_never_signalled(troop: Troop) -> None:
    """One that is beside the tree: same parent, same session, even the same program."""
    outside = Troop(troop.monster)
    with subprocess.Popen(outside.words("stubborn"), **outside.handed, stdin=subprocess.PIPE) as stranger:
        outside.ready()
        with sexton.Tree(troop.words(double_forked(), "polite"), **troop.handed) as tree:
            troop.ready(2)
            tree.send_signal("USR1", "tree")
        stranger.kill()
        assert [note for note in outside.end() if note.word == "got"] == []
    outside.log.close()


def test_commands_from_the_environment_are_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's PID 1 is configured by it, and every process of the container has it."""
    for name, value in (("USER", "no-such-user"), ("PAUSE", "1"), ("ON_EXIT", "leave"), ("OK", "7")):
        monkeypatch.setenv(f"SEXTON_{name}", value)
    assert sexton.run(["sh", "-c", "sleep 100 & exit 7"]).returncode == 7
