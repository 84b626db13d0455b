"""Who gets a signal that is sent to the init: the command, its group, or nobody, as under the peer."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.compat.troop import MARKER, Troop, await_state, muster
from tests.compat.twins import Outcome, Side, Twins
from tests.support.monsters import await_notes
from tests.support.running import Place

FAULTS = (
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGSEGV,
    signal.SIGSYS,
)
STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
ORDINARY = sorted(set(range(1, 32)) - set(FAULTS) - set(STOPS) - {signal.SIGKILL, signal.SIGSTOP})
REAL_TIME = range(signal.SIGRTMIN, signal.SIGRTMAX - 1)
EVERY = [*ORDINARY, *REAL_TIME]

INITS = [
    "tini -s --",
    "tini -sg --",
    "TINI_SUBREAPER= TINI_KILL_PROCESS_GROUP= tini",
    "docker-init -s --",
    "tini-static -s -g --",
    "dumb-init",
    "dumb-init -c",
    "DUMB_INIT_SETSID=0 dumb-init --",
    "dumb-init -r 15:2 -r 1:0 -r 28:10 -r 10:12 --",
    "dumb-init -c -r 15:0 -r 2:1 -r 1:2",
    "dumb-init -r 1:31 -r 31:1 --rewrite=3:3",
    "catatonit --",
    "catatonit -g --",
]
PLACES = [Place.PID1, Place.BESIDE]


def deliver(side: Side, init: str, place: Place, signals: list[int]) -> tuple[dict[str, list[int]], Outcome]:
    """Send the signals to the init of a new family: what each member got, and how it ended."""
    with ExitStack() as stack:
        troop = muster(side, init, place, stack)
        for sig in signals:
            troop.send(sig)
        troop.settle()
        return troop.got(), troop.end()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
@pytest.mark.parametrize("init", INITS)
def test_the_same_members_get_every_signal(twins: Twins, init: str, place: Place) -> None:
    peer, ours = (deliver(side, init, place, EVERY) for side in twins.sides)
    assert ours == peer
    assert len(ours[0]["main"]) > 40
    assert ours[1].code == 137


@pytest.mark.release_only("the sanitizers have handlers of their own for faults")
@pytest.mark.parametrize("init", ["dumb-init", "dumb-init -c", "dumb-init -r 11:6"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
def test_dumb_init_forwards_faults_too(twins: Twins, init: str, place: Place) -> None:
    peer, ours = (deliver(side, init, place, list(FAULTS)) for side in twins.sides)
    assert ours == peer
    assert len(ours[0]["main"]) > 5


@pytest.mark.release_only("the sanitizers have handlers of their own for faults")
@pytest.mark.parametrize("init", ["tini --", "tini -g --", "catatonit --"])
def test_as_pid_1_the_others_are_deaf_to_faults(twins: Twins, init: str) -> None:
    peer, ours = (deliver(side, init, Place.PID1, list(FAULTS)) for side in twins.sides)
    assert ours == peer
    assert not any(ours[0].values())


@pytest.mark.release_only("the sanitizers have handlers of their own for faults")
@pytest.mark.parametrize("init", ["tini -s --", "catatonit --"])
@pytest.mark.parametrize("sig", FAULTS)
def test_elsewhere_a_fault_ends_the_others(twins: Twins, init: str, sig: int) -> None:
    for side in twins.sides:
        with ExitStack() as stack:
            troop = muster(side, init, Place.BESIDE, stack)
            troop.send(sig)
            troop.wait()
            assert [note.rest for note in troop.notes if note.word == "killed"] == [(str(int(sig)),)]


@pytest.mark.parametrize("sig", STOPS)
@pytest.mark.parametrize("init", ["tini -s --", "tini -sg --", "catatonit --", "catatonit -g --"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
def test_a_terminal_stop_is_forwarded_or_swallowed(twins: Twins, init: str, sig: int, place: Place) -> None:
    peer, ours = (deliver(side, init, place, [sig]) for side in twins.sides)
    assert ours == peer


def stop_and_go(side: Side, init: str, sig: int, stopped: list[str], instead: int | None) -> dict[str, list[int]]:
    """Stop a dumb-init that is not PID 1, wait for what its members make of it, and continue: what they got."""
    with ExitStack() as stack:
        troop = muster(side, init, Place.BESIDE, stack)
        troop.send(sig)
        await_state(troop.init.pid, "T")
        for label in stopped:
            await_state(troop.members[label].pid, "T")
        if instead:  # CONT takes back a stop signal that waits
            troop.await_got("main", instead)
        troop.send(signal.SIGCONT)
        troop.settle()
        got = troop.got()
        assert troop.end().code == 137
        return got


TSTP, TTIN, TTOU = STOPS
BOTH = ["main", "kid"]


@pytest.mark.parametrize(
    ("init", "sig", "stopped", "instead"),
    [
        ("dumb-init", TSTP, BOTH, None),
        ("dumb-init", TTIN, BOTH, None),
        ("dumb-init", TTOU, BOTH, None),
        ("dumb-init -v", TSTP, BOTH, None),
        # The command gets the signal itself, and takes it.
        ("dumb-init -c", TSTP, [], TSTP),
        ("dumb-init -c", TTIN, [], TTIN),
        ("dumb-init -c", TTOU, [], TTOU),
        ("dumb-init -c -r 20:1", TSTP, [], signal.SIGHUP),
        ("DUMB_INIT_SETSID=0 dumb-init -r 20:1", TTIN, [], TTIN),
        # It stops itself though the command does not.
        ("dumb-init -r 20:15 -r 21:1 -r 22:0", TSTP, [], signal.SIGTERM),
        ("dumb-init -r 20:15 -r 21:1 -r 22:0", TTIN, [], signal.SIGHUP),
        ("dumb-init -r 20:15 -r 21:1 -r 22:0", TTOU, [], None),
    ],
)
def test_dumb_init_stops_itself_on_a_terminal_stop(  # a row of the table above is what it is
    twins: Twins, init: str, sig: int, stopped: list[str], instead: int | None
) -> None:
    peer, ours = (stop_and_go(side, init, sig, stopped, instead) for side in twins.sides)
    assert ours == peer


@pytest.mark.parametrize("sig", STOPS)
def test_as_pid_1_dumb_init_stops_its_children_only(twins: Twins, sig: int) -> None:
    for side in twins.sides:
        with ExitStack() as stack:
            troop = muster(side, "dumb-init", Place.PID1, stack)
            troop.send(sig)
            for label in ("main", "kid"):
                await_state(troop.members[label].pid, "T")
            # Its own STOP does nothing to a PID 1, but takes back a CONT that waits.
            await_state(troop.init.pid, "S")
            troop.send(signal.SIGCONT)
            troop.settle()
            assert troop.got() == {"main": [signal.SIGCONT], "kid": [signal.SIGCONT], "far": []}
            troop.end()


RECEIVED_SIGCHLD = "[DEBUG tini (PID)] Received SIGCHLD\n"


def own_end(side: Side, init: str, statement: str, sig: int, place: Place) -> Outcome:
    """Send a signal to the init over a command that ends of it."""
    with ExitStack() as stack:
        troop = muster(side, init, place, stack, statements=[f"as main {statement}"], ready=1)
        troop.send(sig)
        return troop.wait()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
@pytest.mark.parametrize("statement", ["plain", "polite"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize(
    "init",
    [
        "tini -s --",
        "tini -s -e 143 -e 130 --",
        "tini -svvv --",
        "tini -sgvvv --",
        "dumb-init",
        "dumb-init -c",
        "dumb-init -v",
        "dumb-init -vc",
        "dumb-init -v -r 15:2 -r 2:15 -r 1:3",
        "catatonit --",
        "catatonit -g --",
    ],
)
def test_a_stop_signal_ends_it_as_it_ends_the_peer(
    twins: Twins, init: str, statement: str, sig: int, place: Place
) -> None:
    peer, ours = (own_end(side, init, statement, sig, place) for side in twins.sides)
    if init.startswith("tini"):  # which buries at each signal, so that it may end before it takes the SIGCHLD
        peer, ours = (replace(each, out=each.out.replace(RECEIVED_SIGCHLD, "")) for each in (peer, ours))
    assert ours == peer


@pytest.mark.parametrize("sig", [1, 3, 10, 13, 14, 23, 25, 28, 29, 30, 34, 50, 62])
@pytest.mark.parametrize("init", ["tini -svvv --", "dumb-init -v", "dumb-init -vc -r 1:10", "dumb-init -v -r 10:0"])
def test_what_is_told_of_a_signal(twins: Twins, init: str, sig: int) -> None:
    peer, ours = (deliver(side, init, Place.PID1, [sig]) for side in twins.sides)
    assert ours == peer
    assert ours[1].out + ours[1].err


# ---- deliberate differences ----


def queue(side: Side, init: str) -> int | None:
    """Queue a value to the init: the one that COMMAND gets."""
    with ExitStack() as stack:
        troop = muster(side, init, Place.BESIDE, stack, statements=["as main stubborn"], ready=1)
        words = ["kill", "--queue", "42", "--signal", str(int(MARKER)), str(troop.init.pid)]
        subprocess.run(["/usr/bin/env", *words], check=True, timeout=30)
        note = await_notes(troop.log, "got")[-1]
        troop.end()
        return note.value


@pytest.mark.parametrize("init", ["tini -s --", "dumb-init -c", "catatonit --"])
def test_a_queued_value_is_kept_which_the_peers_lose(twins: Twins, init: str) -> None:
    assert queue(twins.peer, init) is None
    assert queue(twins.ours, init) == 42


def forbidden(side: Side, init: str, stack: ExitStack) -> Troop:
    """An init without CAP_KILL over a command of another user, sent a TERM."""
    without = ("setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
    words = f"{init} setpriv --reuid=65534 --clear-groups --"
    troop = muster(side, words, Place.PID1, stack, statements=["as main stubborn"], ready=1, before=without)
    troop.send(signal.SIGTERM)
    return troop


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a command as another user")
def test_a_signal_that_may_not_be_delivered_kills_tini_and_not_us(twins: Twins, stack: ExitStack) -> None:
    peer = forbidden(twins.peer, "tini --", stack).wait()
    assert peer.code == 1
    assert "FATAL" in peer.err
    troop = forbidden(twins.ours, "tini --", stack)
    assert troop.run.err
    line = troop.run.err.line()
    assert line is not None
    assert "[WARN  tini (1)] Unexpected error when forwarding signal: 'Operation not permitted'" in line
    assert troop.end().code == 137


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a command as another user")
@pytest.mark.parametrize("init", ["dumb-init -c", "catatonit --"])
def test_a_signal_that_may_not_be_delivered_is_told(twins: Twins, stack: ExitStack, init: str) -> None:
    troop = forbidden(twins.ours, init, stack)
    assert troop.run.err
    line = troop.run.err.line()
    assert line is not None
    assert "Operation not permitted" in line
    assert troop.end().code == 137
