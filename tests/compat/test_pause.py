"""pause, and catatonit -P: no command; the first reaps and waits for TERM or INT."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack

import pytest

from tests.compat.troop import await_state
from tests.compat.twins import Case, Outcome, Side, Twins
from tests.support.lines import Lines, until
from tests.support.processes import children, stat
from tests.support.running import Place, Running

ENDING = [signal.SIGTERM, signal.SIGINT]
OTHERS = [sig for sig in (*range(1, 32), 34, 64) if sig not in {2, 4, 5, 6, 7, 8, 9, 11, 15, 19, 31}]


def await_waiting(run: Running) -> None:
    """Wait until it sleeps, which it does nowhere but in its wait for signals."""
    if run.place is not Place.HERE:
        until(lambda: bool(children(run.popen.pid)), "the namespace has a process")
    until(lambda: stat(run.init.pid).comm in {"catatonit", "pause"}, "it has been executed")
    await_state(run.init.pid, "S")


def paused(side: Side, line: str, place: Place, signals: list[int]) -> Outcome:
    """Send the signals, then wait for the end."""
    with ExitStack() as stack:
        run = side.start(Case(line, place), stack)
        await_waiting(run)
        for sig in signals:
            run.send(sig)
        result = run.wait()
        return Outcome.of(result.code, result.out, result.err)


@pytest.mark.parametrize("sig", ENDING)
@pytest.mark.parametrize("place", [Place.PID1, Place.HERE], ids=lambda place: place.value)
@pytest.mark.parametrize("line", ["catatonit -P", "catatonit -gP", "catatonit -P --", "catatonit -P no command"])
def test_catatonit_pauses_as_its_peer(twins: Twins, line: str, place: Place, sig: int) -> None:
    peer, ours = (paused(side, line, place, [sig]) for side in twins.sides)
    assert ours == peer == Outcome(0, "", "")


@pytest.mark.parametrize("place", [Place.PID1, Place.HERE], ids=lambda place: place.value)
def test_no_other_signal_ends_catatonits_pause(twins: Twins, place: Place) -> None:
    peer, ours = (paused(side, "catatonit -P", place, [*OTHERS, signal.SIGTERM]) for side in twins.sides)
    assert ours == peer == Outcome(0, "", "")


@pytest.mark.parametrize(("sig", "word"), [(signal.SIGTERM, "Terminated"), (signal.SIGINT, "Interrupt")])
@pytest.mark.parametrize("line", ["pause", "pause whatever -x", "pause --version", "SEXTON_PAUSE=0 pause"])
def test_pause_says_why_it_ends(twins: Twins, line: str, sig: int, word: str) -> None:
    said = paused(twins.ours, line, Place.PID1, [sig])
    assert said == Outcome(0, "", f"Shutting down, got signal: {word}\n")


def test_as_pid_1_no_other_signal_ends_pause(twins: Twins) -> None:
    said = paused(twins.ours, "pause", Place.PID1, [*OTHERS, signal.SIGTERM])
    assert said == Outcome(0, "", "Shutting down, got signal: Terminated\n")


def test_elsewhere_pause_warns(twins: Twins) -> None:
    said = paused(twins.ours, "pause", Place.HERE, [signal.SIGINT])
    warning = "Warning: pause should be the first process\n"
    assert said == Outcome(0, "", warning + "Shutting down, got signal: Interrupt\n")


@pytest.mark.parametrize("line", ["pause -v", "pause -V", "pause x y -v"])
def test_pause_tells_its_version(twins: Twins, line: str) -> None:
    said = twins.ours.run(Case(line))
    assert said.code == 0
    assert re.fullmatch(r"pause\.c v\d+\.\d+-sexton-init-[\d.]+\n", said.out)
    assert not said.err


@pytest.mark.parametrize("line", ["pause", "catatonit -P"])
def test_a_pause_buries_what_comes_to_it(twins: Twins, line: str) -> None:
    """As in a pod: the others' orphans are its."""
    with ExitStack() as stack:
        # exec keeps the children: these are the pause process's from the start.
        before = ("sh", "-c", 'sleep 1000 & echo $!; (exit 3) & exec "$@"', "sh")
        run = twins.ours.start(Case(line, Place.PID1, before), stack)
        assert isinstance(run.out, Lines)
        assert run.out.line() == "2"
        await_waiting(run)
        until(lambda: len(children(run.init.pid)) == 1, "the dead one is buried")
        sleeper = run.handle(children(run.init.pid)[0])
        sleeper.kill()
        until(lambda: not children(run.init.pid), "nobody is left")
        run.send(signal.SIGTERM)
        assert run.wait().code == 0
