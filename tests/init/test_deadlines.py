"""--drain, --stop-timeout and --timeout. Lower bounds are the behaviour; nothing here asserts how quick it is."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

import pytest

from tests.init.family import PID1, Mode, Starter
from tests.init.test_stop import LONG, nothing_left
from tests.support.lines import DEADLINE

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]


def test_timeout_stops_the_whole_tree_and_gives_124(start: Starter, placed: Mode) -> None:
    begin = time.monotonic()
    end = start(placed, f"--timeout 1 {LONG}", "times 3 daemon polite", "fork polite", "await 4", "polite").end()
    assert time.monotonic() - begin >= 1
    assert end.code == 124
    assert list(end.got(signal.SIGTERM).values()) == [1] * 5
    assert [(event["why"], event["left"]) for event in end.of("stopping")] == [("timeout", 5)]
    nothing_left(end, 4)


def test_timeout_without_our_proc(start: Starter, mode: Mode) -> None:
    end = start(mode, "--timeout 0.5 --grace 0.5", "fork stubborn", "await 1", "stubborn").end()
    assert end.code == 124
    assert set(end.got(signal.SIGTERM).values()) == {1}
    assert end.left == []


def test_timeout_kills_after_the_grace_time(start: Starter, placed: Mode) -> None:
    end = start(placed, "--timeout 1 --grace 0.2", "times 3 daemon stubborn", "await 3", "stubborn").end()
    assert end.code == 124
    assert max(end.got(signal.SIGTERM).values(), default=1) == 1
    assert len(end.of("killed")) == 4
    nothing_left(end, 3)


def test_a_command_that_ends_in_time_keeps_its_code(start: Starter, placed: Mode) -> None:
    assert start(placed, "--timeout 600", "exit 3").end().code == 3


def test_timeout_while_leftovers_are_awaited(start: Starter, placed: Mode) -> None:
    end = start(placed, f"--timeout 1 --on-exit wait {LONG}", "times 3 daemon polite", "await 3", "exit 3").end()
    assert end.code == 124
    assert list(end.got(signal.SIGTERM).values()) == [1] * 3
    nothing_left(end, 3)


def test_timeout_0_is_over_at_once(start: Starter, placed: Mode) -> None:
    assert start(placed, f"--timeout 0 {LONG}", "polite").end().code == 124


@pytest.mark.parametrize("sig", STOP_SIGNALS)
def test_stop_timeout_kills_the_tree_that_does_not_stop(start: Starter, placed: Mode, sig: int) -> None:
    statements = ["times 3 daemon polite", "fork stubborn", "await 4", "stubborn"]
    family = start(placed, "--stop-timeout 0.2", *statements)
    family.await_note("ready", 5)
    begin = time.monotonic()
    family.send(sig)
    end = family.end()
    assert time.monotonic() - begin >= 0.2
    assert end.code == 137
    assert [event["why"] for event in end.of("stopping")] == ["stop-timeout"]
    assert len(end.of("killed")) == 5
    nothing_left(end, 4)


def test_stop_timeout_without_our_proc(start: Starter, mode: Mode) -> None:
    family = start(mode, "--stop-timeout 0.2", "fork stubborn", "await 1", "stubborn")
    family.await_note("ready", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 137
    assert end.left == []


def test_stop_timeout_runs_from_the_first_stop_signal(start: Starter, placed: Mode) -> None:
    """A second TERM does not start it again: it would never be over for one who is impatient."""
    family = start(placed, "--stop-timeout 1.5", "stubborn")
    family.await_note("ready")
    begin = time.monotonic()
    family.send(signal.SIGTERM)
    family.await_note("got")
    while time.monotonic() - begin < 1.2:  # not a wait: impatience, and it ends before the timeout does
        select.select([], [], [], 0.05)  # as a person would; a flood would fill the pipe of the events
        family.send(signal.SIGTERM)
        family.await_note("got")
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 137
    killed = end.of("stopping")[0]["time"] - end.of("signalled")[0]["time"]
    assert 1.5 <= killed < end.of("stopping")[0]["time"] - end.of("signalled")[-1]["time"] + 1.5


def test_stop_timeout_counts_the_signal_as_it_is_forwarded(start: Starter, placed: Mode) -> None:
    """USR1 mapped to TERM is a stop signal; TERM mapped to USR1 (rotate the logs) is none."""
    family = start(placed, "--stop-timeout 0.2 --map USR1=TERM --map TERM=USR1", "stubborn")
    family.await_note("ready")
    family.send(signal.SIGTERM)
    assert family.await_note("got")[0].signal == signal.SIGUSR1
    family.send(signal.SIGUSR1)
    end = family.end()
    assert end.code == 137
    assert [event["why"] for event in end.of("stopping")] == ["stop-timeout"]


@pytest.mark.parametrize("sig", [signal.SIGUSR1, signal.SIGCONT, signal.SIGWINCH, 40])
def test_stop_timeout_does_not_run_for_other_signals(start: Starter, sig: int) -> None:
    family = start(PID1, "--stop-timeout 0", "stubborn")
    family.await_note("ready")
    family.send(sig)
    family.send(signal.SIGRTMAX)
    family.await_note("got", 2)
    assert family.run.popen.poll() is None
    family.send(signal.SIGTERM)
    assert family.end().code == 137


def test_a_command_that_stops_in_time_leaves_the_normal_stop(start: Starter, placed: Mode) -> None:
    family = start(placed, f"--stop-timeout 600 {LONG}", "times 3 daemon polite", "await 3", "polite")
    family.await_note("ready", 4)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert [event["why"] for event in end.of("stopping")] == ["exit"]
    nothing_left(end, 3)


@pytest.mark.parametrize("sig", STOP_SIGNALS)
def test_drain_holds_a_stop_signal_back(start: Starter, placed: Mode, sig: int) -> None:
    family = start(placed, "--drain 0.3", "polite")
    family.await_note("ready")
    begin = time.monotonic()
    family.send(sig)
    assert family.await_note("got")[0].signal == sig
    assert time.monotonic() - begin >= 0.3
    end = family.end()
    assert end.code == 0
    assert list(end.got(sig).values()) == [1]


def test_a_second_stop_signal_ends_the_drain(start: Starter, placed: Mode) -> None:
    family = start(placed, f"--drain 600 {LONG}", "polite")
    family.await_note("ready")
    family.send(signal.SIGTERM)
    family.send(signal.SIGCONT)  # passes, so that the held one, of a lower number, has been taken before
    assert family.await_note("got")[0].signal == signal.SIGCONT
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert list(end.got(signal.SIGTERM).values()) == [1]


def test_after_the_drain_further_signals_pass(start: Starter, placed: Mode) -> None:
    family = start(placed, "--drain 600 --grace 0", "stubborn")
    family.await_note("ready")
    family.send(signal.SIGTERM)
    for sig in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        family.send(signal.SIGCONT)  # passes, so that the held one has been taken before
        assert family.await_note("got")[0].signal == signal.SIGCONT
        family.send(sig)
        assert family.await_note("got")[0].signal == sig
    family.run.command.send(signal.SIGKILL)
    family.end()


def test_drain_applies_to_the_signal_as_it_is_forwarded(start: Starter, placed: Mode) -> None:
    family = start(placed, "--drain 600 --map TERM=USR2 --map USR1=TERM", "polite")
    family.await_note("ready")
    family.send(signal.SIGTERM)
    assert family.await_note("got")[0].signal == signal.SIGUSR2
    family.send(signal.SIGUSR1)
    family.send(signal.SIGCONT)
    assert family.await_note("got")[0].signal == signal.SIGCONT
    family.send(signal.SIGUSR1)
    end = family.end()
    assert end.code == 0
    assert len(end.got(signal.SIGTERM)) == 1


def test_a_command_that_ends_during_the_drain_ends_it(start: Starter, placed: Mode) -> None:
    family = start(placed, f"--drain 600 {LONG}", "times 2 daemon polite", "await 2", "polite")
    family.await_note("ready", 3)
    family.send(signal.SIGTERM)
    family.run.command.send(signal.SIGKILL)
    end = family.end()
    assert end.code == 137
    assert list(end.got(signal.SIGTERM).values()) == [1, 1]
    nothing_left(end, 2)


def test_stop_timeout_runs_from_when_the_command_is_told(start: Starter, placed: Mode) -> None:
    """The drain is the load balancers' time, not COMMAND's."""
    family = start(placed, "--drain 0.3 --stop-timeout 0.3", "stubborn")
    family.await_note("ready")
    begin = time.monotonic()
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 137
    assert time.monotonic() - begin >= 0.6
    assert list(end.got(signal.SIGTERM).values()) == [1]


def test_the_timeout_is_not_held_up_by_a_drain(start: Starter, placed: Mode) -> None:
    family = start(placed, f"--drain 600 --timeout 1 {LONG}", "fork polite", "await 1", "polite")
    family.await_note("ready", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 124
    assert list(end.got(signal.SIGTERM).values()) == [1, 1]


def test_what_interrupts_the_guard_puts_no_deadline_off(start: Starter) -> None:
    """A tracer that looks in, or a freezer, ends a wait with EINTR; the next one must not be a whole wait again."""
    guard = start.plain("--timeout", "1", "--events", "1", "sleep", "600")
    assert guard.out
    assert guard.out.line()
    assert look_in(guard.init.pid), "strace and its like cannot look in here"
    until = time.monotonic() + DEADLINE
    while not select.select([guard.init.fd], [], [], 0.3)[0]:  # not a wait: again within each whole second
        assert time.monotonic() < until, "the timeout never comes"
        look_in(guard.init.pid)
    assert guard.wait().code == 124


def look_in(pid: int) -> bool:
    """Interrupt a child of ours as a tracer, and let it go on; False where that is refused, or it has ended."""
    seize, interrupt, detach = 0x4206, 0x4207, 17
    ptrace = ctypes.CDLL(None).ptrace
    ptrace.argtypes, ptrace.restype = [ctypes.c_long] * 4, ctypes.c_long
    if ptrace(seize, pid, 0, 0) or ptrace(interrupt, pid, 0, 0):
        return False
    os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    return bool(ptrace(detach, pid, 0, 0) == 0)


FLOOD = """
import os, signal
signal.signal(40, signal.SIG_IGN)
guard = os.getppid()
os.fork()
while True:
    os.kill(guard, 40)
"""


def test_signals_without_end_put_no_deadline_off(start: Starter) -> None:
    """They queue up faster than they are passed on: the guard never finds none."""
    options = "--timeout 1 --grace 0 --signal child --events /dev/null"
    assert start(PID1, options, command=[sys.executable, "-c", FLOOD], report=False).end().code == 124
