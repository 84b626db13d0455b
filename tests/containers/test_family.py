"""sexton-init put in front by the engine (podman run --init): the whole family is looked after."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from tests.containers.family import MONSTER, Ending, Starter, in_images
from tests.containers.podman import environ
from tests.support.monsters import double_forked, group_changer, join, orphan, setsid_daemon

pytestmark = in_images

TERM, HUP, QUIT, KILL = signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL

SCATTERED = [
    "as member fork polite",
    "times 3 as daemon " + double_forked(),
    "times 3 as daemon " + setsid_daemon(),
    "as daemon " + group_changer(),
    "as member " + orphan(),
]
MEMBERS = 10  # with the command itself
LONG = ["--env=SEXTON_GRACE=100"]  # longer than a test waits: nobody who is dead may be waited for


def scattered(*more: str) -> list[str]:
    """A family that has moved in every direction, and its command, which ends when it is told to."""
    return [*SCATTERED, *more, "as command polite"]


def assert_each_once(ending: Ending, count: int) -> None:
    """So many processes got SIGTERM, and each of them one."""
    received = ending.received(TERM)
    assert len(received) == count
    assert set(received.values()) == {1}


def test_it_is_pid_1_and_the_command_has_its_own_group(start: Starter) -> None:
    family = start("as command polite")
    family.await_note("ready")
    init, command = family.container.processes()
    assert (init.pid, init.ppid) == (1, 0)
    assert (command.comm, command.ppid, command.pgrp) == ("monster", 1, command.pid)


def test_orphans_are_reaped(start: Starter) -> None:
    family = start("times 50 fork fork exit 0", "as command polite")
    family.await_note("ready")
    family.await_events("reaped", 50)
    # The 50 middle processes are the command's own to reap, and it does not.
    left = family.container.zombies()
    assert len(left) == 50
    command = family.container.processes()[1]
    assert {each.ppid for each in left} == {command.pid}


def test_a_stop_reaches_everybody_once(start: Starter) -> None:
    family = start(*scattered(), options=LONG)
    family.await_note("ready", MEMBERS)
    ending = family.stop()
    assert ending.code == 0
    assert_each_once(ending, MEMBERS)
    assert not ending.of("killed")


def test_the_stubborn_are_killed_before_the_engine_kills(start: Starter) -> None:
    family = start(*scattered("times 3 as stubborn " + double_forked("stubborn")), options=["--env=SEXTON_GRACE=1"])
    family.await_note("ready", MEMBERS + 3)
    ending = family.stop()
    assert ending.code == 0  # not 137: it was not the engine
    assert_each_once(ending, MEMBERS + 3)
    assert len(ending.of("killed")) == 3
    assert ending.said.count("(monster)") == 3  # said by name


def test_a_stubborn_command_has_its_stop_timeout(start: Starter) -> None:
    options = ["--env=SEXTON_STOP_TIMEOUT=0.3", "--env=SEXTON_GRACE=1"]
    family = start("as daemon " + double_forked(), "as command stubborn", options=options)
    family.await_note("ready", 2)
    ending = family.stop()
    assert ending.code == 128 + KILL
    assert [event["why"] for event in ending.of("stopping")] == ["stop-timeout"]
    assert [event["signal"] for event in ending.of("exited")] == ["KILL"]


def test_the_end_of_the_command_stops_the_rest(start: Starter) -> None:
    family = start("times 5 as daemon " + double_forked(), "await 5", "exit 7")
    ending = family.end()
    assert ending.code == 7
    assert_each_once(ending, 5)


@pytest.mark.parametrize(
    ("scope", "reached"),
    [
        ("child", {"command": 1}),
        ("group", {"command": 1, "member": 2}),
        ("tree", {"command": 1, "member": 2, "daemon": 7}),
    ],
)
def test_kill_forwards_a_signal_to_the_scope(start: Starter, scope: str, reached: dict[str, int]) -> None:
    # HUP ends a polite monster, so who got it is told by the log; who did not is told TERM at the end.
    family = start(*scattered(), options=[f"--env=SEXTON_SIGNAL={scope}"])
    family.await_note("ready", MEMBERS)
    family.container.kill("HUP")
    ending = family.end()
    assert ending.got(HUP) == Counter(reached)
    assert ending.got(TERM).total() == MEMBERS - sum(reached.values())


def test_real_time_signals_pass(start: Starter) -> None:
    family = start("as command stubborn", options=["--env=SEXTON_STOP_TIMEOUT=0"])
    family.await_note("ready")
    family.container.kill("SIGRTMIN+3")
    assert [note.signal for note in family.await_note("got")] == [signal.SIGRTMIN + 3]


def test_settings_come_from_the_environment_and_stay_there(start: Starter) -> None:
    options = ["--env=SEXTON_MAP=TERM=QUIT,HUP=none", "--env=SEXTON_OK=143", "--env=OTHER=kept"]
    family = start("as command polite", options=options)
    family.await_note("ready")
    seen = environ(family.container.processes()[1].pid, family.container.proc)
    assert seen["OTHER"] == "kept"
    assert not [name for name in seen if name.startswith("SEXTON_")]
    family.container.kill("HUP")
    ending = family.stop()
    assert ending.got(QUIT) == {"command": 1}
    assert not ending.got(HUP)
    assert not ending.got(TERM)


@pytest.mark.parametrize(
    ("option", "value"), [("GRACE", "soon"), ("MAP", "TERM=NOISE"), ("SIGNAL", "all"), ("OK", "256"), ("QUIET", "yes")]
)
def test_a_bad_setting_is_named_and_nothing_starts(start: Starter, option: str, value: str) -> None:
    ended = start.podman.call(
        "run", "--rm", *start.with_init(), f"--env=SEXTON_{option}={value}", start.image, "sh", "-c", "echo started"
    )
    assert ended.code == 125
    assert f"SEXTON_{option}" in ended.err
    assert value in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("statement", "options", "code"),
    [
        ("exit 0", [], 0),
        ("exit 7", [], 7),
        ("exit 255", [], 255),
        ("die 9", [], 137),
        ("die 15", [], 143),
        ("die 15", ["--env=SEXTON_OK=143"], 0),
        ("plain", ["--env=SEXTON_TIMEOUT=0.2"], 124),
    ],
)
def test_exit_codes(start: Starter, statement: str, options: list[str], code: int) -> None:
    assert start(statement, options=options).end().code == code


@pytest.mark.parametrize(("command", "code", "why"), [("/nowhere", 127, "no such file"), ("/etc", 126, "denied")])
def test_a_command_that_cannot_be_executed(start: Starter, command: str, code: int, why: str) -> None:
    ended = start.podman.call("run", "--rm", *start.with_init(), start.image, command)
    assert ended.code == code
    assert "sexton-init" in ended.err
    assert command in ended.err
    assert why in ended.err.lower()


def test_what_exec_leaves_is_reaped_and_stopped(start: Starter) -> None:
    family = start("as command polite")
    family.await_note("ready")
    for _ in range(5):
        ended = family.container.exec(
            MONSTER, "/log", *join("times 2 fork exit 0", "as daemon " + double_forked(), "await 1")
        )
        assert ended.code == 0, ended.err
    family.await_note("ready", 5)
    # Of each exec: the two zombies that it left. (The middle of the double fork it waited for.)
    family.await_events("reaped", 10)
    assert not family.container.zombies()
    ending = family.stop()
    assert ending.code == 0
    assert_each_once(ending, 6)


def test_a_running_exec_is_told_once_too(start: Starter) -> None:
    """It is nobody's child in there: it entered the namespace from outside."""
    family = start("as command polite", options=LONG)
    family.await_note("ready")
    ended = family.container.exec(MONSTER, "/log", *join("as guest polite"), options=["--detach"])
    assert ended.code == 0, ended.err
    family.await_note("ready")
    guest = family.container.processes()[-1]
    assert guest.ppid == 0
    ending = family.stop()
    assert ending.code == 0
    assert ending.got(TERM) == {"command": 1, "guest": 1}


def test_wait_waits_for_a_running_exec_and_no_longer(start: Starter) -> None:
    go = start.folder / "go"
    os.mkfifo(go)
    family = start("exec cat /go", options=["--env=SEXTON_ON_EXIT=wait", f"--volume={go}:/go"])
    ended = family.container.exec(MONSTER, "/log", *join("as guest polite"), options=["--detach"])
    assert ended.code == 0, ended.err
    guest = family.await_note("ready")[0].pid
    go.write_text("")
    family.await_events("exited")
    assert [each.pid for each in family.container.processes()] == [1, guest]
    family.container.exec("sh", "-c", f"kill -HUP {guest}")
    ending = family.end()
    assert ending.code == 0
    assert ending.got(HUP) == {"guest": 1}
    assert not ending.of("stopping")


def test_health_checks_leave_nothing(start: Starter) -> None:
    check = f"{MONSTER} /log " + " ".join(join("times 3 fork exit 0", "exit 0"))
    family = start("as command polite", options=[f"--health-cmd={check}", "--health-interval=disable"])
    family.await_note("ready")
    for _ in range(5):
        start.podman.do("healthcheck", "run", family.container.id)
    family.await_events("reaped", 15)
    assert not family.container.zombies()
    assert family.stop().code == 0


def test_restart(start: Starter) -> None:
    family = start(*scattered())
    with family.log.path.open("wb"), family.stream.path.open("wb"):  # or the first life's end would be theirs
        for _ in range(2):
            family.await_note("ready", MEMBERS)
            start.podman.do("restart", "--time=30", family.container.id)
        family.await_note("ready", MEMBERS)
    ending = family.stop()
    assert ending.code == 0
    assert ending.got(TERM).total() == 3 * MEMBERS
    assert [event["code"] for event in ending.of("exited")] == [0, 0, 0]
