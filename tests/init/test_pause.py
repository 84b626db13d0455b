"""--pause: no COMMAND; reaps what is orphaned in the namespace; TERM and INT end it with 0."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.init.family import PID1, Mode, Starter
from tests.init.test_stop_extremes import read_log, visitors
from tests.support.lines import DEADLINE
from tests.support.monsters import join
from tests.support.processes import children

OTHERS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP, 40]
WHEN_UP = [f"block {sig}" for sig in (signal.SIGTERM, signal.SIGINT, *OTHERS)]
"""Before sexton-init is executed: what is sent from then on stays pending until it takes it."""


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_stop_signal_ends_it_with_0(start: Starter, mode: Mode, sig: int, how: str) -> None:
    options, env = ("--pause", None) if how == "option" else ("", {"SEXTON_PAUSE": "1"})
    family = start(mode, options, env=env, before=["MONSTER", "LOG", *join(*WHEN_UP, "say up", "exec")])
    family.await_note("up")
    family.send(sig)
    end = family.end()
    assert (end.code, end.out, end.err) == (0, "", "")
    assert end.events[-1:] == [] or end.events[-1]["event"] == "empty"


def test_other_signals_do_nothing(start: Starter, placed: Mode) -> None:
    family = start(placed, "--pause", before=["MONSTER", "LOG", *join(*WHEN_UP, "fork stubborn", "await 1", "exec")])
    family.await_note("ready")
    for sig in OTHERS:
        family.send(sig)
    assert family.run.init.alive()
    family.run.handle(children(family.run.init.pid)[0]).send(signal.SIGUSR2)
    assert family.await_note("got")[0].signal == signal.SIGUSR2
    family.send(signal.SIGTERM)
    family.run.handle(children(family.run.init.pid)[0]).kill()
    assert family.end().code == 0


@pytest.mark.usefixtures("root")
def test_orphans_of_the_pod_are_reaped(start: Starter) -> None:
    family = start(PID1, "--pause", before=["MONSTER", "LOG", *join(*WHEN_UP, "say up", "exec")])
    family.await_note("up")
    words = ["nsenter", "--target", str(family.run.init.pid), "--pid", "--", str(start.monster), "2"]
    subprocess.run([*words, *join("times 100 fork fork exit 0", "wait", "exit 0")], check=True, timeout=DEADLINE)
    for _ in range(100):
        assert family.await_event("reaped")["adopted"] is True
    assert children(family.run.init.pid) == []
    family.send(signal.SIGTERM)
    assert family.end().code == 0


@pytest.mark.usefixtures("root")
def test_the_pods_leftovers_are_stopped(start: Starter, tmp_path_factory: pytest.TempPathFactory) -> None:
    log_file = str(tmp_path_factory.mktemp("pause") / "log")
    family = start(PID1, "--pause --grace 600", before=["MONSTER", "LOG", *join(*WHEN_UP, "say up", "exec")])
    family.await_note("up")
    visit = visitors(start, family, log_file, "fork fork polite", "await 1", "exit 0")
    assert visit.end() == 0
    family.send(signal.SIGTERM)
    assert family.end().code == 0
    assert [note.signal for note in read_log(log_file) if note.word == "got"] == [signal.SIGTERM]


def test_the_timeout_ends_it_too(start: Starter) -> None:
    assert start.plain("--pause", "--timeout", "0.05").wait().code == 124
