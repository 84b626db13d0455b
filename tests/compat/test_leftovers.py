"""Orphans, zombies, and what is left when COMMAND has ended: undone by default where the peer leaves it undone."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack

import pytest

from tests.compat.troop import PATIENT, Troop, await_state, muster
from tests.compat.twins import Side, Twins
from tests.support.lines import Lines
from tests.support.processes import children, stat
from tests.support.running import Place

INITS = [
    "tini --",
    "tini -s --",
    "tini -sg --",
    "dumb-init",
    "dumb-init -c",
    "dumb-init -r 15:10",
    "dumb-init -r 15:0",
    "dumb-init -c -r 15:10",
    "catatonit --",
    "catatonit -g --",
]


def outlived(side: Side, init: str, stack: ExitStack) -> Troop:
    """A family whose COMMAND, and then the init, has ended, seen by a plain init that stays."""
    troop = muster(side, init, Place.BESIDE, stack, host=PATIENT, stdin=subprocess.PIPE)
    troop.members.pop("main").kill()
    assert isinstance(troop.run.out, Lines)
    assert troop.run.out.until(lambda line: line.startswith("over "))[-1] == "over 137"
    return troop


@pytest.mark.parametrize("init", INITS)
def test_the_same_is_left_and_told(twins: Twins, init: str) -> None:
    found = []
    for side in twins.sides:
        with ExitStack() as stack:
            troop = outlived(side, init, stack)
            alive = sorted(label for label, member in troop.members.items() if member.alive())
            troop.settle(marker=False)
            found.append((alive, troop.got()))
    assert found[1] == found[0]
    assert found[1][0] == ["far", "kid"]


@pytest.mark.parametrize("init", ["tini --", "tini -s --", "dumb-init", "dumb-init -c", "catatonit --"])
@pytest.mark.parametrize("ask", ["SEXTON_ON_EXIT=stop SEXTON_GRACE=0", "SEXTON_ON_EXIT=stop SEXTON_GRACE=0.01"])
def test_a_sexton_variable_leaves_nobody(twins: Twins, stack: ExitStack, init: str, ask: str) -> None:
    troop = outlived(twins.ours, f"{ask} {init}", stack)
    for member in troop.members.values():
        member.wait_dead()


@pytest.mark.parametrize("init", ["tini -s --", "dumb-init", "catatonit --"])
def test_a_stop_tells_each_once(twins: Twins, stack: ExitStack, init: str) -> None:
    """dumb-init's own TERM to the group counts."""
    statements = ("as kid fork polite", "as far fork setsid polite", "await 2", "as main stubborn")
    troop = muster(twins.ours, f"SEXTON_ON_EXIT=stop {init}", Place.BESIDE, stack, statements=statements)
    assert troop.end().code == 137
    told = [(note.label, note.signal) for note in troop.notes if note.word == "got"]
    assert sorted(told) == [("far", signal.SIGTERM), ("kid", signal.SIGTERM)]
    assert troop.left == 0


@pytest.mark.parametrize("init", INITS)
def test_an_orphan_comes_to_the_same_parent(twins: Twins, init: str) -> None:
    adopted: list[str] = []
    for side in twins.sides:
        with ExitStack() as stack:
            statements = ("as far fork fork stubborn", "await 1", "as main stubborn")
            troop = muster(side, init, Place.BESIDE, stack, statements=statements, ready=2)
            init_pid = troop.init.pid
            near = {*children(init_pid), *children(stat(init_pid).ppid)}
            [orphan] = near - {init_pid, troop.members["main"].pid}
            adopted.append("init" if stat(orphan).ppid == init_pid else "host")
            troop.end()
    assert adopted[1] == adopted[0]


@pytest.mark.parametrize("place", [Place.PID1, Place.BESIDE], ids=lambda place: place.value)
@pytest.mark.parametrize(
    "init", ["tini -sw --", "tini -swv --", "TINI_VERBOSITY=0 tini -sw --", "dumb-init", "catatonit --"]
)
def test_zombies_are_buried_and_told_of_as_by_the_peer(twins: Twins, init: str, place: Place) -> None:
    """COMMAND leaves three zombies: its end hands them to the init, which buries them before it goes."""
    outcomes = []
    for side in twins.sides:
        with ExitStack() as stack:
            statements = ("times 3 fork exit 1", "as main polite")
            troop = muster(side, init, place, stack, statements=statements, ready=1)
            for pid in children(troop.members["main"].pid):
                await_state(pid, "Z")
            troop.members["main"].send(signal.SIGTERM)
            outcomes.append(troop.wait())
            assert troop.left == 0 or place is not Place.BESIDE or "tini" not in init
    assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize("init", ["tini -sw --", "tini -w --", "dumb-init -v", "CATATONIT_DEBUG=1 catatonit --"])
def test_an_adopted_orphan_is_buried_at_once(twins: Twins, init: str) -> None:
    for side in twins.sides:
        with ExitStack() as stack:
            statements = ("as far fork fork stubborn", "await 1", "as main stubborn")
            troop = muster(side, init, Place.PID1, stack, statements=statements, ready=2)
            main = troop.members["main"].pid
            [orphan] = set(children(troop.init.pid)) - {main}
            handle = troop.run.handle(orphan)
            handle.kill()
            handle.wait_dead()
            stream = troop.run.out if "tini" in init and "v" in init else troop.run.err
            assert stream is not None
            said = stream.until(lambda line: "Reaped zombie" in line or "child process" in line or "A child" in line)[
                -1
            ]
            assert "9" in said or "Reaped zombie process with pid=" in said
            troop.end()
