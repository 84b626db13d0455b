"""A stop: the stop signal to everybody once, the grace time, SIGKILL, until nothing is left."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.init.family import BESIDE, PID1, Ending, Family, Mode, Starter
from tests.support import monsters
from tests.support.lines import until
from tests.support.processes import children, stat
from tests.support.running import Place, Proc

QUEUED = 39
"""RTMIN+5 as a stop signal: it queues, so that a process which got it twice shows it."""

PLACES = {
    "child": lambda action: f"fork {action}",
    "orphan": monsters.orphan,
    "setsid": monsters.setsid_daemon,
    "double-forked": monsters.double_forked,
    "group": monsters.group_changer,
    "thread": monsters.thread_child,
}
LONG = "--grace 600"
"""Never over in a test: who ends, ends by the stop signal."""


def nothing_left(end: Ending, dead: int) -> None:
    """Everybody was reaped before sexton-init ended: `dead` leftovers beside COMMAND."""
    assert end.left == []
    assert end.events[-1]["event"] == "empty"
    assert len(end.of("reaped")) == dead + 1
    assert len({event["pid"] for event in end.of("reaped")}) == dead + 1
    assert not end.of("lost")


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("sig", [signal.SIGTERM, QUEUED])
def test_20_leftovers_are_stopped_wherever_they_went(start: Starter, placed: Mode, kind: str, sig: int) -> None:
    """COMMAND ends; each of the 20 gets the stop signal exactly once and ends by itself."""
    statement = f"times 20 {PLACES[kind]('polite')}"
    settle = ["mourn"] if kind == "orphan" else []  # until their short-lived parents are dead
    end = start(placed, f"{LONG} --stop-signal {sig}", statement, "await 20", *settle, "exit 3").end()
    assert end.code == 3
    assert len(end.got(sig)) == 20
    assert set(end.got(sig).values()) == {1}
    assert end.of("killed") == []
    assert [(event["why"], event["left"]) for event in end.of("stopping")] == [("exit", 20)]
    assert len([event for event in end.of("reaped") if event["pid"] in end.got(sig)]) == 20
    assert end.left == []


@pytest.mark.parametrize("kind", PLACES)
def test_20_stubborn_leftovers_are_killed_after_the_grace_time(start: Starter, placed: Mode, kind: str) -> None:
    begin = time.monotonic()
    statement = f"times 20 {PLACES[kind]('stubborn')}"
    end = start(placed, "--grace 0.15", statement, "await 20", "exit 3").end()
    assert time.monotonic() - begin >= 0.15
    assert end.code == 3
    ready = {note.pid for note in end.notes if note.word == "ready"}
    assert set(end.got(signal.SIGTERM).values()) <= {1}
    assert {event["pid"] for event in end.of("killed")} == ready
    assert all(event["signal"] == "KILL" for event in end.of("reaped") if event["pid"] in ready)
    assert end.left == []


@pytest.mark.parametrize("action", ["ignore", "stubborn"])
@pytest.mark.parametrize("proc", [Proc.NONE, Proc.FOREIGN], ids=str)
def test_as_pid_1_leftovers_are_killed_without_proc(start: Starter, action: str, proc: Proc) -> None:
    end = start(Mode(Place.PID1, proc), "--grace 0.15", f"times 20 daemon {action}", "await 20", "exit 3").end()
    assert end.code == 3
    nothing_left(end, 20)
    assert len([event for event in end.of("reaped") if event.get("signal") == "KILL"]) == 20
    assert set(end.got(signal.SIGTERM).values()) <= {1}


@pytest.mark.parametrize("proc", [Proc.NONE, Proc.FOREIGN], ids=str)
def test_as_pid_1_leftovers_are_stopped_without_proc(start: Starter, proc: Proc) -> None:
    statements = ["times 20 daemon polite", "times 20 fork setsid polite", "await 40", "exit 3"]
    end = start(Mode(Place.PID1, proc), LONG, *statements).end()
    assert end.code == 3
    nothing_left(end, 40)
    assert list(end.got(signal.SIGTERM).values()) == [1] * 40


@pytest.mark.parametrize("proc", [Proc.NONE, Proc.FOREIGN], ids=str)
def test_beside_without_proc_the_group_is_stopped(start: Starter, proc: Proc) -> None:
    end = start(Mode(Place.BESIDE, proc), "--grace 600", "times 20 fork polite", "await 20", "exit 3").end()
    assert end.code == 3
    assert list(end.got(signal.SIGTERM).values()) == [1] * 20
    assert end.left == []


def test_20_stopped_leftovers_are_continued_to_hear_the_stop_signal(start: Starter, placed: Mode) -> None:
    statements = ["times 20 fork setsid stopped", "await 20", "as main hold", "exit 3"]
    family = start(placed, LONG, *statements, stdin=-1)
    family.await_note("ready", 20)
    leftovers = children(family.run.command.pid)
    until(lambda: all(stat(pid).state == "T" for pid in leftovers), "all have stopped")
    family.run.tell()
    end = family.end()
    assert end.code == 3
    assert list(end.got(signal.SIGTERM).values()) == [1] * 20
    assert end.of("killed") == []
    assert end.left == []


@pytest.mark.parametrize("kind", ["child", "setsid"])
def test_a_stopped_and_stubborn_leftover_is_killed(start: Starter, placed: Mode, kind: str) -> None:
    statements = ["times 20 " + PLACES[kind]("ignore"), "times 20 " + PLACES[kind]("stopped"), "await 40", "exit 3"]
    end = start(placed, "--grace 0", *statements).end()
    assert end.code == 3
    nothing_left(end, 40)


def count_and_kill(family: Family, leftovers: int) -> Ending:
    """Mark each leftover with a signal that queues behind all that it was sent; then kill them, and so end the stop."""
    marker = signal.SIGRTMAX
    init = family.run.init.pid
    until(lambda: len(children(init)) == leftovers, "all are the init's own children")
    for child in children(init):
        family.run.handle(child).send(marker)
    while sum(note.word == "got" and note.signal == marker for note in family.notes) < leftovers:
        family.await_note("got")
    for child in children(init):
        family.run.handle(child).kill()
    return family.end()


@pytest.mark.parametrize("scope", ["child", "group", "tree"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, QUEUED])
def test_nobody_gets_the_stop_signal_twice(start: Starter, placed: Mode, scope: str, sig: int) -> None:
    """It is first forwarded to the scope; then COMMAND ends, and only those who had not got it get it."""
    family = start(
        placed,
        f"--signal {scope} {LONG} --stop-signal {sig}",
        "as member times 5 fork stubborn",
        "as mover times 5 fork group stubborn",
        "as daemon times 5 fork setsid stubborn",
        "as orphan times 5 daemon stubborn",
        "await 20",
        "as main polite",
    )
    family.await_note("ready", 21)
    family.send(sig)
    family.await_event("stopping")
    while len({note.pid for note in family.notes if note.word == "got"}) < 21:
        family.await_note("got")
    end = count_and_kill(family, 20)
    assert end.code == 0
    assert len(end.got(sig)) == 21
    assert set(end.got(sig).values()) == {1}
    assert not end.got(signal.SIGCONT), "only the stopped are continued"
    nothing_left(end, 20)


def test_another_stop_signal_than_the_forwarded_one_is_sent(start: Starter, placed: Mode) -> None:
    """INT was forwarded (Ctrl-C in the logs); the leftovers' stop signal is TERM: they get each once."""
    family = start(placed, LONG, "as member fork stubborn", "await 1", "as main polite")
    family.await_note("ready", 2)
    family.send(signal.SIGINT)
    family.await_note("got", 3)
    member = next(note.pid for note in family.notes if note.label == "member")
    end_of_member = [note.signal for note in family.notes if note.word == "got" and note.pid == member]
    assert end_of_member == [signal.SIGINT, signal.SIGTERM]


def test_a_second_term_while_stopping_does_not_start_over(start: Starter, placed: Mode) -> None:
    family = start(placed, "--grace 1", "as a times 3 fork setsid stubborn", "await 3", "exit 3")
    family.await_event("stopping")
    family.await_note("got", 3)
    for _ in range(5):
        family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 3
    assert list(end.got(signal.SIGTERM).values()) == [1, 1, 1]
    assert len(end.of("stopping")) == 1
    assert len(end.of("killed")) == 3
    nothing_left(end, 3)


def test_stop_signal_names_the_signal_of_the_leftovers(start: Starter, placed: Mode) -> None:
    end = start(placed, f"{LONG} --stop-signal QUIT", "times 3 daemon polite", "await 3", "exit 3").end()
    assert list(end.got(signal.SIGQUIT).values()) == [1, 1, 1]
    assert not end.got(signal.SIGTERM)
    assert end.left == []


def test_grace_0_kills_at_once(start: Starter, placed: Mode) -> None:
    end = start(placed, "--grace 0", "times 3 daemon stubborn", "times 3 fork polite", "await 6", "exit 3").end()
    assert end.code == 3
    assert not [note for note in end.notes if note.word == "got"]
    nothing_left(end, 6)


def test_a_stop_without_leftovers_is_none(start: Starter, mode: Mode) -> None:
    end = start(mode, LONG, "exit 3").end()
    assert end.code == 3
    assert [event["event"] for event in end.events] == ["started", "reaped", "exited", "empty"]


def test_zombies_are_no_leftovers(start: Starter, placed: Mode) -> None:
    end = start(placed, LONG, "times 20 fork exit 0", "mourn", "exit 3").end()
    assert end.code == 3
    nothing_left(end, 20)
    assert end.of("stopping") == []


def test_a_zombie_whose_parent_is_stubborn_waits_for_it(start: Starter, placed: Mode) -> None:
    end = start(placed, "--grace 0.1", "fork chain 2 stubborn", "fork setsid stubborn", "await 3", "exit 3").end()
    assert end.code == 3
    nothing_left(end, 3)


def test_what_is_born_while_stopping_is_taken_too(start: Starter, placed: Mode) -> None:
    """A trap that starts another process: left to finish within the grace time, and killed after it."""
    script = 'trap "sleep 600 & wait" TERM; echo up; while :; do wait; sleep 600 & wait; done'
    family = start(placed, "--grace 0.3", command=["sh", "-c", f"setsid sh -c '{script}' & read line"], stdin=-1)
    assert family.run.out
    assert family.run.out.line() == "up"
    family.run.tell()
    end = family.end()
    assert end.left == []
    assert end.events[-1]["event"] == "empty"


@pytest.mark.parametrize("value", ["tree", "group"])
def test_on_exit_leave_leaves_the_leftovers_alone(start: Starter, value: str) -> None:
    family = start(
        BESIDE, f"--on-exit leave --signal {value}", "times 5 daemon polite", "fork polite", "await 6", "exit 3"
    )
    end = family.end()
    assert end.code == 3
    assert len(end.left) == 6
    assert not [note for note in end.notes if note.word == "got"]
    assert not end.of("stopping")


def test_on_exit_wait_waits_and_signals_nobody(start: Starter, mode: Mode) -> None:
    family = start(mode, "--on-exit wait", "as left times 3 daemon polite", "await 3", "exit 3")
    family.await_note("ready", 3)
    family.await_event("exited")
    init = family.run.init
    for child in children(init.pid):
        family.run.handle(child).send(signal.SIGHUP)
    end = family.end()
    assert end.code == 3
    assert list(end.got(signal.SIGHUP).values()) == [1, 1, 1]
    assert not end.got(signal.SIGTERM)
    assert not end.of("stopping")
    nothing_left(end, 3)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_wait(start: Starter, placed: Mode, sig: int) -> None:
    family = start(placed, f"--on-exit wait {LONG}", "times 3 daemon polite", "await 3", "exit 3")
    family.await_event("exited")
    family.send(sig)
    end = family.end()
    assert end.code == 3
    assert list(end.got(signal.SIGTERM).values()) == [1, 1, 1]
    assert [event["why"] for event in end.of("stopping")] == ["signal"]
    nothing_left(end, 3)


def test_on_exit_wait_after_a_stop_signal_stops_the_leftovers(start: Starter, placed: Mode) -> None:
    """`docker stop` is meant for all: COMMAND ended because of it, so the rest is not waited for without end."""
    family = start(placed, f"--on-exit wait {LONG}", "times 3 daemon polite", "await 3", "polite")
    family.await_note("ready", 4)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert list(end.got(signal.SIGTERM).values()) == [1, 1, 1, 1]
    nothing_left(end, 3)


def test_the_stop_goes_on_when_the_init_is_stopped_and_continued(start: Starter) -> None:
    family = start(PID1, LONG, "times 3 daemon polite", "await 3", "polite")
    family.await_note("ready", 4)
    family.send(signal.SIGSTOP)
    family.send(signal.SIGTERM)
    family.send(signal.SIGCONT)
    end = family.end()
    assert list(end.got(signal.SIGTERM).values()) == [1, 1, 1, 1]


def test_a_process_whose_first_thread_has_ended_is_alive(start: Starter, placed: Mode) -> None:
    """/proc shows it as a zombie; the others of its threads live on, and so does its child."""
    statements = ["times 3 fork setsid leaderless", "await 3", "exit 3"]
    end = start(placed, "--grace 1", *statements).end()
    assert end.code == 3
    assert [(event["why"], event["left"]) for event in end.of("stopping")] == [("exit", 3)]
    assert list(end.got(signal.SIGTERM).values()) == [1, 1, 1]
    nothing_left(end, 3)


@pytest.mark.usefixtures("root")
def test_who_may_not_be_killed_is_named(start: Starter, anyones_init: Path, public: Path) -> None:
    """An init without rights, a leftover that became root: after all has been tried, it says who is left, and ends."""
    statements = ["as left fork setsid become 0 stubborn", "await 1", "exit 3"]
    family = under_nobody(start, anyones_init, public, "--grace 0.1", statements)
    result = family.run.wait()
    assert result.code == 3
    left = [note for note in monsters.rest_of(family.log) if note.word == "left"]
    assert len(left) == 1
    last = [line for line in result.err.splitlines() if line.startswith("sexton-init: ")][-1]
    assert f"{left[0].rest[0]} (setuid-monster" in last


@pytest.mark.usefixtures("root")
def test_a_command_that_may_not_be_killed_has_no_status(start: Starter, anyones_init: Path, public: Path) -> None:
    """0 would say that it has done its work."""
    family = under_nobody(start, anyones_init, public, "--stop-timeout 0.1", ["become 0 stubborn"])
    assert family.run.err
    family.run.err.until(lambda line: line.startswith("ready "))
    family.send(signal.SIGTERM)
    result = family.run.wait()
    assert result.code == 125
    assert "(setuid-monster" in [line for line in result.err.splitlines() if line.startswith("sexton-init: ")][-1]


def under_nobody(start: Starter, init: Path, public: Path, options: str, statements: list[str]) -> Family:
    """A guard without rights, and monsters that may become root; their log is stderr."""
    setuid = public / "setuid-monster"
    if not setuid.exists():
        shutil.copy(start.monster, setuid)
        setuid.chmod(0o4755)
    before = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    return start(BESIDE, options, command=[setuid, "2", *monsters.join(*statements)], before=before, init=init)


def test_a_stopped_command_hears_the_stop_signal_of_the_timeout(start: Starter, placed: Mode) -> None:
    end = start(placed, f"--timeout 0.2 {LONG}", "stopped").end()
    assert end.code == 124
    assert list(end.got(signal.SIGTERM).values()) == [1]


def test_a_mapped_stop_signal_is_not_delivered_beside_the_stop(start: Starter, placed: Mode) -> None:
    """COMMAND has been asked; USR1 as TERM would ask it a second time, while other signals pass."""
    before = ["MONSTER", "LOG", *monsters.join("block 15", "exec")]  # TERM waits until COMMAND takes it
    family = start(placed, "--timeout 0 --grace 600 --map USR1=TERM", "stubborn", before=before)
    assert family.await_note("got")[0].signal == signal.SIGTERM
    family.send(signal.SIGUSR1)
    family.send(signal.SIGUSR2)
    assert family.await_note("got")[0].signal == signal.SIGUSR2
    family.run.command.send(signal.SIGKILL)
    end = family.end()
    assert end.code == 124
    assert list(end.got(signal.SIGTERM).values()) == [1]
