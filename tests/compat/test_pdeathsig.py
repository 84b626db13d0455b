"""tini -p: be signalled when the parent dies."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from subprocess import PIPE
from typing import Any

import pytest

from tests.compat.troop import PATIENT, muster
from tests.compat.twins import Twins
from tests.support.processes import stat
from tests.support.running import Place

# Between the plain init and tini: the parent that dies.
PARENT = ("sh", "-c", '"$@"; true', "sh")


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGHUP", "SIGWINCH"])
@pytest.mark.parametrize("init", ["tini -s -p", "tini -sg -p"])
def test_the_command_gets_it_when_tinis_parent_dies(twins: Twins, init: str, name: str) -> None:
    got = []
    for side in twins.sides:
        with ExitStack() as stack:
            # The plain init stays when its own child, the parent, is gone.
            troop = muster(
                side, f"{init} {name} --", Place.BESIDE, stack, before=PARENT, host=PATIENT, deeper=1, stdin=PIPE
            )
            parent = troop.run.handle(stat(troop.init.pid).ppid)
            assert stat(parent.pid).comm == "sh"
            parent.kill()
            troop.await_got("main", getattr(signal, name))
            troop.settle()
            got.append(troop.got())
    assert got[1] == got[0]


@pytest.mark.parametrize("command", ["plain", "stubborn"])
def test_sigkill_ends_tini_itself(twins: Twins, command: str) -> None:
    for side in twins.sides:
        with ExitStack() as stack:
            how: dict[str, Any] = {"before": PARENT, "deeper": 1, "host": PATIENT, "stdin": PIPE}
            statements = [f"as main {command}"]
            troop = muster(side, "tini -s -p SIGKILL --", Place.BESIDE, stack, statements=statements, ready=1, **how)
            troop.run.handle(stat(troop.init.pid).ppid).kill()
            troop.init.wait_dead()
            assert troop.members["main"].alive()
