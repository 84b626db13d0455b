"""At a terminal, under a shell with job control: the command is in our process group, and keys reach both."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from tests.support.lines import until
from tests.support.processes import stat
from tests.support.terminal import CTRL_C, CTRL_Z, Terminal

LIBRARY = f"{sys.executable} -c 'import sexton, sys; sys.exit(sexton.run(sys.argv[1:]).returncode)'"
THREAD = f"""{sys.executable} -c '
import queue, sexton, sys, threading
done = queue.SimpleQueue()
threading.Thread(target=lambda: done.put(sexton.run(sys.argv[1:]).returncode)).start()
while True:
    try:
        sys.exit(done.get())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
'"""
AIO = f"""{sys.executable} -c '
import asyncio, sys
from sexton import aio
sys.exit(asyncio.run(aio.run(sys.argv[1:])).returncode)
'"""
HOSTS = {"library": LIBRARY, "thread": THREAD, "aio": AIO, "sexton run": f"{sys.executable} -m sexton run --"}
ECHO = """sh -c 'echo "pids $$ $PPID"; while read line; do echo "got:$line"; done; exit 6'"""


@pytest.fixture
def shell() -> Iterator[Terminal]:
    env = {"SEXTON_INIT": os.environ["SEXTON_INIT"], "SEXTON_TEST": os.environ["SEXTON_TEST"]}
    with Terminal(["bash", "--norc", "--noprofile", "-i"], env=env) as terminal:
        terminal.expect(r"\$ ")
        yield terminal
        terminal.keys("exit 0\n")
        terminal.wait()


@pytest.mark.parametrize("host", HOSTS)
def test_ctrl_z_stops_the_job_and_fg_continues_it(shell: Terminal, host: str) -> None:
    """But for the guard: stopped, it would not see its owner die."""
    shell.keys(f"{HOSTS[host]} {ECHO}\n")
    command, guard = map(int, shell.expect(r"^pids (\d+) (\d+)").groups())
    owner = stat(guard).ppid
    assert stat(command).pgrp == stat(owner).pgrp == shell.foreground()
    for word in ("two", "three"):
        shell.keys(CTRL_Z)
        shell.expect("Stopped")
        until(lambda: stat(command).state == stat(owner).state == "T", "owner and command stop")
        until(lambda: stat(guard).state == "S", "the guard sleeps, and is not stopped")
        shell.keys("fg\n")
        shell.keys(f"{word}\n")
        shell.expect(f"^got:{word}")
    shell.keys("\x04")
    shell.expect(r"\$ ")
    shell.keys("echo status $?\n")
    shell.expect(r"^status 6")


def test_ctrl_c_reaches_what_a_thread_runs(shell: Terminal) -> None:
    shell.keys(f"{THREAD} sh -c 'trap \"exit 3\" INT; echo ready $((40+2)); while :; do read line; done'\n")
    shell.expect("^ready 42")
    shell.keys(CTRL_C)
    shell.expect("interrupted")
    shell.expect(r"\$ ")
    shell.keys("echo status $?\n")
    shell.expect("^status 3")
