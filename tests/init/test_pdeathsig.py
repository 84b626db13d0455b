"""--pdeathsig: when the parent dies, the signal comes, to sexton-init, and so by the usual way to the tree."""

from __future__ import annotations

import signal

import pytest

from tests.init.family import BESIDE, PID1, Family, Starter
from tests.init.test_stop import nothing_left
from tests.support.processes import Handle, children

PARENT = ["sh", "-c", 'sh -c "\\"\\$@\\" & read line" sh "$@" ; cat >&2', "sh"]
"""A parent that dies when it has read a line, and one above it that stays until its stdin ends."""


def the_guard(family: Family) -> Handle:
    """sexton-init is the child of the parent that will die."""
    (parent,) = children(family.run.init.pid)
    (guard,) = children(parent)
    return family.run.handle(guard)


@pytest.mark.parametrize("how", ["option", "variable"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, 39])
def test_the_parents_death_stops_the_tree(start: Starter, how: str, sig: int) -> None:
    options, env = (f"--pdeathsig {sig}", None) if how == "option" else ("", {"SEXTON_PDEATHSIG": str(sig)})
    family = start(BESIDE, options, "daemon polite", "await 1", "polite", before=PARENT, env=env, stdin=-1)
    family.await_note("ready", 2)
    guard = the_guard(family)
    family.run.tell()
    guard.wait_dead()
    assert family.run.popen.stdin
    family.run.popen.stdin.close()
    end = family.end()
    assert end.left == []
    assert next(iter(end.got(sig).values())) == 1
    name = "RTMIN+5" if sig == 39 else signal.Signals(sig).name[3:]
    assert [event["signal"] for event in end.of("signalled") if event["scope"] != "stop"] == [name]
    nothing_left(end, 1)


def test_without_it_the_tree_lives_on(start: Starter) -> None:
    family = start(BESIDE, "", "polite", before=PARENT, stdin=-1)
    family.await_note("ready")
    family.run.tell()
    assert family.run.popen.stdin
    family.run.popen.stdin.close()
    assert len(family.end().left) == 2


def test_kill_as_pdeathsig_kills_the_guard(start: Starter) -> None:
    family = start(BESIDE, "--pdeathsig KILL", "polite", before=PARENT, stdin=-1)
    family.await_note("ready")
    guard = the_guard(family)
    family.run.tell()
    guard.wait_dead()


def test_as_pid_1_when_the_parent_outside_dies(start: Starter) -> None:
    """unshare itself asks for SIGKILL with --kill-child; sexton-init asks for the gentler one in its place."""
    family = start(PID1, "--pdeathsig TERM --grace 600", "daemon polite", "await 1", "polite")
    family.await_note("ready", 2)
    init = family.run.init
    family.run.popen.kill()
    init.wait_dead()
    end = family.end()
    assert list(end.got(signal.SIGTERM).values()) == [1, 1]
    nothing_left(end, 1)


def test_the_command_does_not_inherit_it(start: Starter) -> None:
    """COMMAND's own parent is sexton-init: killed, it takes nobody with it."""
    family = start(BESIDE, "--pdeathsig TERM", "polite")
    family.await_note("ready")
    family.send(signal.SIGKILL)
    assert len(family.end().left) == 1
