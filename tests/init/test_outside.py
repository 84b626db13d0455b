"""--contain pidns: the process outside passes signals in and the status out, keeps nothing, and buries its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.init.family import PID1, Starter
from tests.support.lines import DEADLINE, Pipe, until
from tests.support.monsters import await_notes, join
from tests.support.processes import children
from tests.support.terminal import CTRL_C, Terminal


def test_what_the_group_is_sent_reaches_the_command_once(start: Starter) -> None:
    """The guard is in that group as well. A signal that queues: one that does not shows no second one for certain."""
    log = Pipe("the monsters' log")
    start.stack.callback(log.close)
    words = ["--contain", "pidns", "--", str(start.monster), str(log.write_fd), "stubborn"]
    running = start.plain(*words, before=["setsid"], pipes=[log])
    await_notes(log, "ready")
    os.killpg(running.popen.pid, signal.SIGRTMIN)
    assert await_notes(log, "got")[0].signal == signal.SIGRTMIN
    running.send(signal.SIGRTMAX)
    assert await_notes(log, "got")[0].signal == signal.SIGRTMAX


def test_what_the_command_closes_is_closed(start: Starter) -> None:
    """Its reader sees the end, and who writes to it that nobody reads any more."""
    pipe = Pipe("a pipe that it inherits")
    start.stack.callback(pipe.close)
    command = f"exec <&-; exec {pipe.write_fd}>&-; exec >&-; exec sleep 1000"
    running = start.plain("--contain", "pidns", "bash", "-c", command, pipes=[pipe], stdin=subprocess.PIPE)
    assert running.out
    assert running.out.rest() == []
    assert pipe.rest() == []
    with pytest.raises(BrokenPipeError):
        running.tell()
    assert running.popen.poll() is None
    running.send(signal.SIGTERM)
    assert running.wait().code == 143


def test_a_script_gets_the_terminal_back(sexton_init: Path) -> None:
    script = '"$I" --contain pidns sed -u s/^/got:/; echo between; read line; echo read:$line'
    with Terminal(["sh", "-c", script], env={"I": str(sexton_init)}) as terminal:
        terminal.keys("one\n")
        terminal.expect("got:one")
        terminal.keys("\4")
        terminal.expect("between")
        terminal.keys("two\n")
        terminal.expect("read:two")
        assert terminal.wait() == 0


@pytest.mark.parametrize("options", [[], ["--same-group"]], ids=["", "same-group"])
def test_ctrl_c_reaches_the_command_once(sexton_init: Path, monster: Path, options: list[str]) -> None:
    """In one group it reaches all three of them."""
    log = Pipe("the monsters' log")
    words = [str(sexton_init), *options, "--contain", "pidns", "--", str(monster), str(log.write_fd), "stubborn"]
    with contextlib.closing(log), Terminal(words, pipes=[log]) as terminal:
        await_notes(log, "ready")
        terminal.keys(CTRL_C)
        assert await_notes(log, "got")[0].signal == signal.SIGINT
        terminal.popen.send_signal(signal.SIGRTMAX)
        assert await_notes(log, "got")[0].signal == signal.SIGRTMAX


@pytest.mark.usefixtures("root")
def test_as_pid_1_it_buries_the_orphans_outside(start: Starter) -> None:
    """They are not the guard's: who enters the namespace is not in the one inside it."""
    family = start(PID1, "--contain pidns", "polite")
    family.await_note("ready")
    outside = family.run.init.pid
    guard = children(outside)
    words = ["nsenter", "--target", str(outside), "--pid", "--", str(start.monster), "2"]
    subprocess.run([*words, *join("times 20 fork fork exit 0", "wait", "exit 0")], check=True, timeout=DEADLINE)
    until(lambda: children(outside) == guard, "all orphans are buried")
    family.send(signal.SIGTERM)
    assert family.end().code == 0
