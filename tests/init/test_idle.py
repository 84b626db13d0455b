"""Nothing happens: nothing wakes up."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

from tests.init.family import Mode, Starter
from tests.support.processes import status

CLOCK_MONOTONIC = 1


def a_second() -> None:
    """Read a timer of one second: here time itself is what is measured."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(CLOCK_MONOTONIC, 0)
    assert fd >= 0
    libc.timerfd_settime(fd, 0, struct.pack("qqqq", 0, 0, 1, 0), None)
    assert os.read(fd, 8) == struct.pack("Q", 1)
    os.close(fd)


def wakeups(pid: int) -> tuple[int, int]:
    fields = status(pid)
    return int(fields["voluntary_ctxt_switches"]), int(fields["nonvoluntary_ctxt_switches"])


def sleeps(pid: int) -> None:
    """Not woken once in a second, after one in which what happened before is over."""
    a_second()
    before = wakeups(pid)
    a_second()
    assert wakeups(pid) == before


def test_no_wakeups_while_idle(start: Starter, mode: Mode) -> None:
    """With every deadline set that does not run yet, and with those that run far away."""
    options = "--timeout 600 --stop-timeout 600 --drain 600 --grace 600"
    family = start(mode, options, "daemon stubborn", "await 1", "stubborn")
    family.await_note("ready", 2)
    family.send(signal.SIGUSR1)
    family.await_note("got")
    family.await_event("signalled")
    sleeps(family.run.init.pid)


def test_no_wakeups_while_a_stop_waits(start: Starter, mode: Mode) -> None:
    family = start(mode, "--grace 600", "fork stubborn", "await 1", "exit 3")
    family.await_note("ready")
    family.await_note("got")
    sleeps(family.run.init.pid)
