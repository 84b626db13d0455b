"""Every child and every adopted orphan is buried, however SIGCHLD coalesces, and COMMAND's status is never lost."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.init.family import PID1, Mode, Starter
from tests.support.processes import children, descriptors, stat, status

BURST = 3000


def zombies(parent: int) -> list[int]:
    return [pid for pid in children(parent) if stat(pid).state == "Z"]


def test_orphans_are_adopted_and_reaped(start: Starter, mode: Mode) -> None:
    """50 grandchildren whose parents are gone; COMMAND ends only after they did, with nobody left."""
    family = start(mode, "--on-exit wait", "times 50 fork fork exit 0", "wait", "exit 7")
    end = family.end()
    assert end.code == 7
    assert end.left == []
    reaped = end.of("reaped")
    assert sum(event["adopted"] for event in reaped) == 50
    assert len(reaped) == 51


def test_it_becomes_a_subreaper_silently(start: Starter, placed: Mode) -> None:
    end = start(placed, "", "fork fork exit 0", "wait", "exit 7").end()
    assert (end.code, end.err) == (7, "")


def test_thousands_of_orphans_in_a_burst(start: Starter, placed: Mode) -> None:
    """They all wait on one lock and end together: SIGCHLD coalesces, and not one zombie stays."""
    family = start(
        placed,
        "--on-exit wait",
        f"times {BURST} fork fork exit 0",
        "wait",
        "say forked",
        "as late fork polite",
        "as main polite",
    )
    family.await_note("forked")
    family.await_note("ready", 2)
    reaped = 0
    while reaped < BURST:
        reaped += family.await_event("reaped")["adopted"]
    init = family.run.init
    assert zombies(init.pid) == []
    init.send(15)
    assert family.end().code == 0


@pytest.mark.parametrize("code", [0, 33])
def test_the_exit_code_is_right_when_everybody_dies_together(start: Starter, mode: Mode, code: int) -> None:
    end = start(mode, "", "times 200 fork fork exit 9", "times 100 fork exit 8", f"exit {code}").end()
    assert end.code == code
    assert end.left == []


def test_many_families_that_die_together(start: Starter) -> None:
    """The race again and again: COMMAND among its dying orphans, its status taken from the right pid."""
    for number in range(40):
        end = start(PID1, "", f"times {number} daemon exit 9", "times 7 fork exit 8", "die 9").end()
        assert end.code == 137


def test_no_descriptor_leaks(start: Starter, placed: Mode) -> None:
    held = []
    for orphans in (0, 500):
        family = start(placed, "--verbose", f"times {orphans} fork fork exit 0", "wait", "stubborn")
        family.await_note("ready")
        for _ in range(orphans):
            family.await_event("reaped")
        family.send(signal.SIGUSR1)
        family.await_event("signalled")  # so it has come to its loop, and has closed what is COMMAND's alone
        held.append(len(descriptors(family.run.init.pid)))
    assert held[0] == held[1]


def test_memory_stays_as_it_is(start: Starter, placed: Mode) -> None:
    """Not a page more of writable memory after a thousand orphans than after one."""
    sizes = []
    for count in (1, 1000):
        family = start(placed, "", f"times {count} fork fork exit 0", "wait", "stubborn")
        family.await_note("ready")
        for _ in range(count):
            family.await_event("reaped")
        fields = status(family.run.init.pid)
        sizes.append((fields["VmData"], fields["VmStk"]))
    assert sizes[0] == sizes[1]


def test_reaping_goes_on_while_stopping(start: Starter, placed: Mode) -> None:
    """A leftover that makes orphans in its grace time: they are buried at once, none is kept for the end."""
    family = start(placed, "--grace 30", "fork stubborn", "await 1", "exit 0")
    family.await_event("stopping")
    family.await_note("got")
    init = family.run.init
    child = next(pid for pid in children(init.pid))
    assert zombies(init.pid) == []
    family.run.handle(child).send(9)
    assert family.end().code == 0


def test_a_child_that_a_clone_made_without_sigchld_is_reaped(start: Starter, placed: Mode) -> None:
    """waitpid(-1) alone does not see a child whose exit signal is not SIGCHLD; an orphan's becomes SIGCHLD."""
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    script = (
        "import ctypes, os\n"
        f"def clone(): return ctypes.CDLL(None).syscall({clone}, 0, 0, 0, 0, 0)\n"
        "if clone() == 0:\n"
        "    clone()\n"
        "    os._exit(0)\n"
        "os._exit(5)\n"
    )
    end = start(placed, "", command=[sys.executable, "-S", "-c", script]).end()
    assert end.code == 5
    assert end.left == []
