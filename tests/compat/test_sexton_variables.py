"""SEXTON_ variables under the other names: they ask for what the peers cannot do, and nothing else changes."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from tests.compat.troop import muster
from tests.compat.twins import Case, Twins
from tests.support.running import Place

INITS = ["tini -s --", "docker-init --", "dumb-init", "catatonit --"]


@pytest.mark.parametrize("init", INITS)
def test_they_are_not_the_commands(twins: Twins, init: str) -> None:
    said = twins.ours.run(
        Case(f"SEXTON_GRACE=1 SEXTON_ON_EXIT=stop OTHER=x {init} sh -c 'env | grep -E ^SEXTON_ && exit 3; echo $OTHER'")
    )
    assert (said.code, said.out) == (0, "x\n")


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    "variable", ["SEXTON_GRACE=x", "SEXTON_ON_EXIT=perhaps", "SEXTON_MAP=TERM", "SEXTON_OK=256", "SEXTON_SIGNAL=all"]
)
def test_a_bad_value_is_an_error_that_names_it(twins: Twins, init: str, variable: str) -> None:
    said = twins.ours.run(Case(f"{variable} {init} echo started"))
    assert said.code == 125
    assert variable.split("=", maxsplit=1)[0] in said.err
    assert "started" not in said.out


@pytest.mark.parametrize("init", INITS)
def test_ok_remaps(twins: Twins, init: str) -> None:
    assert twins.ours.run(Case(f"SEXTON_OK=3 {init} sh -c 'exit 3'")).code == 0
    assert twins.ours.run(Case(f"SEXTON_OK=3 {init} sh -c 'exit 4'")).code == 4


@pytest.mark.parametrize("init", INITS)
def test_who_has_a_command_does_not_pause(twins: Twins, init: str) -> None:
    assert twins.ours.run(Case(f"SEXTON_PAUSE=1 {init} sh -c 'exit 7'")).code == 7


@pytest.mark.parametrize("init", INITS)
def test_timeout_stops_the_tree(twins: Twins, init: str) -> None:
    assert twins.ours.run(Case(f"SEXTON_TIMEOUT=0.05 {init} sleep 1000")).code == 124


@pytest.mark.parametrize("init", INITS)
def test_map_rewrites(twins: Twins, init: str) -> None:
    with ExitStack() as stack:
        troop = muster(twins.ours, f"SEXTON_MAP=TERM=QUIT,HUP=none {init}", Place.PID1, stack)
        for sig in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            troop.send(sig)
        troop.settle()
        assert troop.got()["main"] == [signal.SIGQUIT, signal.SIGUSR1]
        troop.end()


@pytest.mark.parametrize(
    ("scope", "who"), [("child", ["main"]), ("group", ["kid", "main"]), ("tree", ["far", "kid", "main"])]
)
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("place", [Place.PID1, Place.BESIDE], ids=lambda place: place.value)
def test_signal_chooses_who_gets_it(twins: Twins, init: str, scope: str, who: list[str], place: Place) -> None:
    with ExitStack() as stack:
        troop = muster(twins.ours, f"SEXTON_SIGNAL={scope} {init}", place, stack)
        troop.send(signal.SIGUSR1)
        troop.settle()
        assert sorted(label for label, got in troop.got().items() if got) == who
        troop.end()


@pytest.mark.parametrize("init", ["tini --", "dumb-init"])
def test_who_asks_for_the_tree_gets_a_subreaper(twins: Twins, init: str) -> None:
    """Without one the tree could not be found; and tini need not warn."""
    with ExitStack() as stack:
        statements = ("as far fork fork stubborn", "await 1", "as main stubborn")
        init = f"SEXTON_ON_EXIT=stop SEXTON_GRACE=0 {init}"
        troop = muster(twins.ours, init, Place.BESIDE, stack, statements=statements, ready=2)
        said = troop.end()
        assert troop.left == 0
        assert "zombie reaping won't work" not in said.err


@pytest.mark.parametrize(
    "line", ["SEXTON_VERBOSE=0 tini -vvv true", "SEXTON_QUIET=1 tini true", "SEXTON_QUIET=1 dumb-init -v true"]
)
def test_verbosity_is_overruled(twins: Twins, line: str) -> None:
    said = twins.ours.run(Case(line, Place.PID1))
    assert (said.code, said.out, said.err) == (0, "", "")
