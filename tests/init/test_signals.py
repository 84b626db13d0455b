"""Forwarding: who gets which signal, how often, with what value, in each --signal scope."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections import Counter

import pytest

from tests.init.family import BESIDE, PID1, Ending, Family, Mode, Starter
from tests.init.test_stop import LONG
from tests.support import monsters
from tests.support.monsters import Note
from tests.support.processes import children
from tests.support.running import Place, Proc

NOT_FORWARDED = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, 32, 33}
FORWARDED = sorted(set(range(1, 65)) - NOT_FORWARDED)
SCOPES = ["child", "group", "tree"]
FAMILY_STATEMENTS = (
    "as member fork stubborn",
    "as mover fork group stubborn",
    "as daemon fork setsid stubborn",
    "as double daemon stubborn",
    "await 4",
    "as main stubborn",
)
REACHED = {
    "child": {"main"},
    "group": {"main", "member"},
    "tree": {"main", "member", "mover", "daemon", "double"},
}


def finish(family: Family) -> Ending:
    """Kill COMMAND, so that the family ends: everybody here is stubborn."""
    family.run.command.send(signal.SIGKILL)
    return family.end()


def labels(notes: list[Note], sig: int) -> Counter[str]:
    return Counter(note.label for note in notes if note.word == "got" and note.signal == sig)


def counted(family: Family, receivers: int, *signals: int) -> list[Note]:
    """Send each, then a marker: real-time signals queue in order, so with the marker's arrival the count is final."""
    for sig in (*signals, signal.SIGRTMAX):
        family.send(sig)
    while sum(labels(family.notes, signal.SIGRTMAX).values()) < receivers:
        family.await_note("got")
    return family.notes


@pytest.mark.parametrize("scope", SCOPES)
def test_a_forwarded_signal_reaches_its_scope_once(start: Starter, placed: Mode, scope: str) -> None:
    """Both to all of the scope and to nobody else; the real-time one queues, so that a second would show."""
    family = start(placed, f"--signal {scope} --grace 0", *FAMILY_STATEMENTS)
    family.await_note("ready", 5)
    counted(family, len(REACHED[scope]), signal.SIGUSR1, signal.SIGRTMIN + 5)
    end = finish(family)
    for sig in (signal.SIGUSR1, signal.SIGRTMIN + 5):
        assert labels(end.notes, sig) == Counter(REACHED[scope])
    assert end.left == []


@pytest.mark.parametrize("scope", ["child", "group"])
def test_scopes_hold_without_our_proc(start: Starter, mode: Mode, scope: str) -> None:
    family = start(mode, f"--signal {scope}", *FAMILY_STATEMENTS)
    family.await_note("ready", 5)
    notes = counted(family, len(REACHED[scope]), signal.SIGRTMIN + 5)
    assert labels(notes, signal.SIGRTMIN + 5) == Counter(REACHED[scope])


@pytest.mark.parametrize("proc", [Proc.NONE, Proc.FOREIGN], ids=str)
def test_tree_as_pid_1_reaches_all_without_proc(start: Starter, proc: Proc) -> None:
    family = start(Mode(Place.PID1, proc), "--signal tree", *FAMILY_STATEMENTS)
    family.await_note("ready", 5)
    notes = counted(family, 5, signal.SIGRTMIN + 5)
    assert labels(notes, signal.SIGRTMIN + 5) == Counter(REACHED["tree"])


@pytest.mark.parametrize("proc", [Proc.NONE, Proc.FOREIGN], ids=str)
def test_tree_beside_without_proc_reaches_the_group_once(start: Starter, proc: Proc) -> None:
    """Nobody can be found there: what there is no list of is told by its group."""
    family = start(Mode(Place.BESIDE, proc), "--signal tree", *FAMILY_STATEMENTS)
    family.await_note("ready", 5)
    notes = counted(family, 2, signal.SIGRTMIN + 5)
    assert labels(notes, signal.SIGRTMIN + 5) == Counter(REACHED["group"])


@pytest.mark.parametrize("scope", SCOPES)
def test_every_signal_that_can_be_forwarded_is(start: Starter, placed: Mode, scope: str) -> None:
    family = start(placed, f"--signal {scope} --grace 0", "as member fork stubborn", "await 1", "as main stubborn")
    family.await_note("ready", 2)
    receivers = 1 if scope == "child" else 2
    for sig in FORWARDED:
        family.send(sig)
        family.await_note("got", receivers)
    end = finish(family)
    for label in ["main", "member"][:receivers]:
        assert Counter(n.signal for n in end.notes if n.word == "got" and n.label == label) == Counter(FORWARDED)


@pytest.mark.parametrize("sig", [signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU])
def test_chld_and_the_terminals_stops_are_not_forwarded(start: Starter, placed: Mode, sig: int) -> None:
    family = start(placed, "--grace 0", "stubborn")
    family.await_note("ready")
    family.send(sig)
    family.send(signal.SIGUSR1)
    assert [note.signal for note in family.await_note("got")] == [signal.SIGUSR1]
    finish(family)


def test_a_stopped_init_goes_on_with_what_came_meanwhile(start: Starter) -> None:
    """SIGSTOP cannot be caught; what was sent while it stood still is forwarded afterwards."""
    family = start(BESIDE, "--grace 0", "stubborn")
    family.await_note("ready")
    family.send(signal.SIGSTOP)
    for sig in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 1, signal.SIGRTMIN + 1):
        family.send(sig)
    family.send(signal.SIGCONT)
    got = Counter(note.signal for note in family.await_note("got", 5))
    assert got == {signal.SIGUSR1: 1, signal.SIGUSR2: 1, signal.SIGRTMIN + 1: 2, signal.SIGCONT: 1}
    finish(family)


@pytest.mark.parametrize(
    ("rule", "sent", "received"),
    [
        ("TERM=INT", "TERM", signal.SIGINT),
        ("SIGTERM=SIGQUIT", "TERM", signal.SIGQUIT),
        ("hup=Usr2", "HUP", signal.SIGUSR2),
        ("1=10", "HUP", signal.SIGUSR1),
        ("USR1=RTMIN+3", "USR1", 37),
        ("USR1=RTMAX-1", "USR1", 63),
        ("USR1=40", "USR1", 40),
        ("POLL=USR1", "IO", signal.SIGUSR1),
        ("USR1=TTIN", "USR1", signal.SIGTTIN),
    ],
)
def test_map_rewrites_a_signal(start: Starter, placed: Mode, rule: str, sent: str, received: int) -> None:
    family = start(placed, f"--map {rule} --grace 0", "stubborn")
    family.await_note("ready")
    family.send(signal.Signals[f"SIG{sent}"])
    assert family.await_note("got")[0].signal == received
    end = finish(family)
    assert len(end.of("signalled")) == 1


def test_rtmin_is_34_whatever_the_c_library_keeps_for_itself(start: Starter) -> None:
    """systemd's SIGRTMIN+3 is 37: musl's own SIGRTMIN is 35."""
    family = start(PID1, "--map RTMIN+3=TERM --map TERM=RTMIN+3 --grace 0", "stubborn")
    family.await_note("ready")
    family.send(37)
    family.send(signal.SIGTERM)
    assert sorted(note.signal for note in family.await_note("got", 2)) == [signal.SIGTERM, 37]
    finish(family)


def test_map_to_none_drops_a_signal(start: Starter, placed: Mode) -> None:
    family = start(placed, "--map HUP=none --map USR2=none --grace 0", "stubborn")
    family.await_note("ready")
    for sig in (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1):
        family.send(sig)
    assert [note.signal for note in family.await_note("got")] == [signal.SIGUSR1]
    end = finish(family)
    assert [event["signal"] for event in end.of("signalled")] == ["USR1"]


def test_map_is_applied_once_and_is_no_chain(start: Starter) -> None:
    family = start(PID1, "--map USR1=USR2 --map USR2=USR1 --grace 0", "stubborn")
    family.await_note("ready")
    family.send(signal.SIGUSR1)
    assert family.await_note("got")[0].signal == signal.SIGUSR2
    finish(family)


def test_map_to_kill_kills_the_scope(start: Starter, placed: Mode) -> None:
    family = start(placed, "--map TERM=KILL", "as member fork stubborn", "await 1", "stubborn")
    family.await_note("ready", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 137
    assert end.left == []


def sigqueue(pid: int, sig: int, value: int) -> None:
    """sigqueue(3) with an int for its value."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigqueue(pid, sig, ctypes.c_void_p(value)) != 0:
        raise OSError(ctypes.get_errno(), "sigqueue")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("sig", [signal.SIGUSR1, signal.SIGRTMIN + 2])
def test_a_queued_value_is_kept(start: Starter, placed: Mode, scope: str, sig: int) -> None:
    family = start(placed, f"--signal {scope} --grace 0", *FAMILY_STATEMENTS)
    family.await_note("ready", 5)
    sigqueue(family.run.init.pid, sig, 4711)
    notes = family.await_note("got", len(REACHED[scope]))
    end = finish(family)
    assert labels(end.notes, sig) == Counter(REACHED[scope])
    assert [note.value for note in notes] == [4711] * len(notes)


def test_a_queued_value_is_kept_without_proc(start: Starter, mode: Mode) -> None:
    family = start(mode, "--signal child --grace 0", "stubborn")
    family.await_note("ready")
    sigqueue(family.run.init.pid, signal.SIGRTMIN + 2, 4711)
    assert family.await_note("got")[0].value == 4711
    finish(family)


def test_a_queued_signal_reaches_each_of_the_group_once_without_proc(start: Starter, mode: Mode) -> None:
    family = start(mode, "--grace 0", "as member fork stubborn", "await 1", "as main stubborn")
    family.await_note("ready", 2)
    sigqueue(family.run.init.pid, signal.SIGRTMIN + 2, 4711)
    assert labels(counted(family, 2), signal.SIGRTMIN + 2) == {"main": 1, "member": 1}


def test_queued_signals_keep_their_number_and_order(start: Starter, placed: Mode) -> None:
    family = start(placed, "--signal child --grace 0", "stubborn")
    family.await_note("ready")
    for value in range(50):
        sigqueue(family.run.init.pid, signal.SIGRTMIN + 2, value)
    assert [note.value for note in family.await_note("got", 50)] == list(range(50))
    finish(family)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("scope", SCOPES)
def test_a_signal_that_may_not_be_delivered_is_reported_and_survived(start: Starter, placed: Mode, scope: str) -> None:
    """sexton-init without CAP_KILL over a COMMAND of another user."""
    family = start(
        placed,
        f"--signal {scope} --user 65534:65534 --grace 0",
        "fork fork stubborn",
        "await 1",
        "stubborn",
        before=["setpriv", "--bounding-set", "-kill"],
    )
    family.await_note("ready", 2)
    for _ in range(2):
        family.send(signal.SIGUSR1)
        assert family.run.err
        message = family.run.err.line()
        assert message is not None
        assert "USR1" in message
        assert "ermitted" in message or "may not" in message
        assert str(family.notes[-1].pid) in message or str(family.notes[0].pid) in message
    for child in children(family.run.init.pid):
        family.run.handle(child).send(signal.SIGKILL)
    end = family.end()
    assert end.code == 137
    assert not [note for note in end.notes if note.word == "got"]


def test_the_signal_is_forwarded_while_a_drain_waits(start: Starter) -> None:
    """--drain holds stop signals alone: USR1 (reopen your logs) is not for waiting."""
    family = start(PID1, "--drain 30 --grace 0", "stubborn")
    family.await_note("ready")
    family.send(signal.SIGTERM)
    family.send(signal.SIGUSR1)
    assert family.await_note("got")[0].signal == signal.SIGUSR1
    finish(family)


def test_a_signal_before_the_command_has_started_is_not_lost(start: Starter, placed: Mode) -> None:
    """It is pending, blocked, when sexton-init is executed: whoever sent it knows one process only."""
    before = ["MONSTER", "LOG", *monsters.join("block 10", "block 36", "raise 10", "raise 36", "exec")]
    family = start(placed, "--grace 0", "stubborn", before=before)
    assert {note.signal for note in family.await_note("got", 2)} == {10, 36}
    finish(family)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_command_that_left_its_group_still_gets_what_is_forwarded(start: Starter, placed: Mode, scope: str) -> None:
    """It joined the group of a child of its; its own is empty."""
    family = start(placed, f"--signal {scope} {LONG}", "as son fork group polite", "await 1", "as main join polite")
    family.await_note("ready", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert labels(end.notes, signal.SIGTERM) == {"main": 1, "son": 1}


def test_a_command_that_left_its_group_and_a_member_that_stayed(start: Starter, placed: Mode) -> None:
    """The member is told as one of the group, and COMMAND because it is COMMAND; nobody is told twice."""
    statements = ["as member fork polite", "as son fork group polite", "await 2", "as main join polite"]
    family = start(placed, LONG, *statements)
    family.await_note("ready", 3)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert labels(end.notes, signal.SIGTERM) == {"main": 1, "member": 1, "son": 1}


def test_without_room_for_queued_signals(start: Starter, placed: Mode) -> None:
    """RLIMIT_SIGPENDING of 0: plain signals still pass, and a stop works."""
    before = ["prlimit", "--sigpending=0:0"]
    family = start(placed, "--grace 600", "fork setsid polite", "await 1", "polite", before=before)
    family.await_note("ready", 2)
    for sig in (signal.SIGUSR1, signal.SIGTERM):
        family.send(sig)
        family.await_note("got")
    assert family.end().code == 0


def test_the_command_may_signal_its_init(start: Starter, placed: Mode) -> None:
    """As PID 1 too, where a signal without a handler would be dropped."""
    script = 'trap "exit 9" USR1; kill -USR1 $PPID; while :; do read line || exit 3; done'
    assert start(placed, "", command=["sh", "-c", script], stdin=subprocess.PIPE).end().code == 9
