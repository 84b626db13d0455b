"""On a terminal: who is in its foreground, whose session it is, and what the keys do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.compat.troop import await_state, await_that
from tests.compat.twins import Side, Twins
from tests.support.processes import Stat, children, stat
from tests.support.terminal import CTRL_C, CTRL_Z, Terminal

INITS = ["tini -s --", "tini -sg --", "dumb-init", "dumb-init -c", "catatonit --", "catatonit -g --"]
# A shell without job control leaves the program that it starts in its own group.
AS_JOB = ["bash", "--norc", "--noprofile", "-i"]


@contextmanager
def terminal(side: Side, words: list[str]) -> Iterator[Terminal]:
    with Terminal(words, env={"PATH": side.path(), "LC_ALL": "C"}) as found:
        yield found


def standing(process: Stat, init: Stat) -> dict[str, bool]:
    """How a process stands to its terminal, without pids."""
    return {
        "has a terminal": process.tty != 0,
        "is in the foreground": process.tpgid == process.pgrp,
        "leads its group": process.pgrp == process.pid,
        "leads its session": process.session == process.pid,
        "in the init's session": process.session == init.session,
        "init has a terminal": init.tty != 0,
    }


def look(init: int) -> dict[str, bool]:
    [command] = children(init)
    return standing(stat(command), stat(init))


@pytest.mark.parametrize("init", INITS)
def test_as_session_leader_the_command_gets_the_terminal(twins: Twins, init: str) -> None:
    found = []
    for side in twins.sides:
        with terminal(side, [*init.split(), "sh", "-c", "echo ready; read x; exit 5"]) as term:
            term.expect("ready")
            found.append(look(term.leader.pid))
            term.keys("go\n")
            assert term.wait() == 5
    assert found[1] == found[0]
    assert found[1]["is in the foreground"]


@pytest.mark.parametrize("init", INITS)
def test_as_a_job_the_command_gets_the_foreground(twins: Twins, init: str) -> None:
    found = []
    for side in twins.sides:
        with terminal(side, AS_JOB) as term:
            term.expect(r"\$ ")
            term.keys(f"{init} sh -c 'echo rea''dy; read x; exit 5'\n")
            term.expect("^ready")
            found.append(look(children(term.leader.pid)[0]))
            term.keys("go\n")
            term.keys("echo code $?\n")
            term.expect("^code 5")
    assert found[1] == found[0]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("leader", [True, False], ids=["leader", "job"])
def test_ctrl_c_reaches_the_command_and_its_code_comes_back(twins: Twins, init: str, leader: bool) -> None:
    command = "trap 'echo got INT; exit 7' INT; echo rea''dy; while :; do read x; done"
    for side in twins.sides:
        if leader:
            with terminal(side, [*init.split(), "sh", "-c", command]) as term:
                term.expect("ready")
                term.keys(CTRL_C)
                term.expect("got INT")
                assert term.wait() == 7
            continue
        with terminal(side, AS_JOB) as term:
            term.expect(r"\$ ")
            term.keys(f'{init} sh -c "{command}"\n')
            term.expect("^ready")
            term.keys(CTRL_C)
            term.expect("got INT")
            term.keys("\necho code $?\n")
            term.expect("^code (7|130)")


@pytest.mark.parametrize("init", ["dumb-init -c", "tini -s --", "dumb-init"])
def test_three_ctrl_c_do_not_kill_a_command_that_lives_on(twins: Twins, init: str) -> None:
    """A REPL; sexton-init's own impatience is for those who asked for a stop."""
    for side in twins.sides:
        with terminal(
            side, [*init.split(), "sh", "-c", "trap 'echo got' INT; echo ready; while :; do read x; done"]
        ) as term:
            term.expect("ready")
            for _ in range(5):
                term.keys(CTRL_C)
                term.expect("got")
            term.leader.send(signal.SIGQUIT)
            assert term.wait() == 131


@pytest.mark.parametrize("init", ["tini -s --", "catatonit --"])
def test_a_hangup_is_forwarded(twins: Twins, init: str) -> None:
    for side in twins.sides:
        command = "trap 'exit 9' HUP; echo ready; while :; do read x; done"
        with terminal(side, [*init.split(), "sh", "-c", command]) as term:
            term.expect("ready")
            term.leader.send(signal.SIGHUP)
            assert term.wait() == 9


def test_dumb_init_keeps_the_handover_from_the_command(twins: Twins) -> None:
    """As session leader it gives the terminal up, and is sent HUP and CONT for that; only later ones count."""
    texts = []
    for side in twins.sides:
        command = "trap 'echo HUP' HUP; trap 'echo CONT' CONT; echo ready; read x; echo end; read x"
        with terminal(side, ["dumb-init", "-v", "bash", "-c", command]) as term:
            term.expect("(?s)(?=.*ready)(?=.*Ignoring tty hand-off signal 18)")
            for sig, word in ((signal.SIGHUP, "HUP"), (signal.SIGCONT, "CONT")):
                term.leader.send(sig)
                term.expect(f"^{word}")
            term.keys("go\ngo\n")
            assert term.wait() == 0
            lines = [line.strip() for line in term.seen.splitlines() if "[dumb-init]" in line]
            texts.append(sorted(line for line in lines if "PID" not in line))
    assert texts[1] == texts[0]
    assert texts[1].count("[dumb-init] Forwarded signal 1 to children.") == 1


def test_dumb_init_ctrl_z_and_fg(twins: Twins) -> None:
    """Under a shell, without a session of its own, it stops and goes on with its command."""
    for side in twins.sides:
        with terminal(side, AS_JOB) as term:
            term.expect(r"\$ ")
            term.keys("dumb-init -c sh -c 'echo rea''dy; read x; echo got $x'\n")
            term.expect("^ready")
            term.keys(CTRL_Z)
            term.expect(r"(?s)Stopped.*\$ ")
            term.keys("fg\n")
            term.expect("^dumb-init")
            term.keys("word\n")
            term.expect("^got word")


def closed(side: Side, redirection: str, init: str) -> dict[str, bool]:
    """How the command stands when some of its descriptors do not lead to the terminal."""
    with terminal(side, AS_JOB) as term:
        term.expect(r"\$ ")
        term.keys(f"{init} sh -c 'echo rea''dy >/dev/tty; exec sleep 1000' {redirection}\n")
        term.expect("^ready|cannot open|No such")
        init_pid = children(term.leader.pid)[0]
        found = look(init_pid)
        term.leader.kill()
        return found


@pytest.mark.parametrize("init", ["catatonit --", "dumb-init -c"])
@pytest.mark.parametrize("redirection", ["</dev/null", "</dev/null >/dev/null 2>&1"])
def test_with_stdin_elsewhere(twins: Twins, init: str, redirection: str) -> None:
    assert closed(twins.ours, redirection, init) == closed(twins.peer, redirection, init)


# ---- deliberate differences ----


def test_tini_looks_for_the_terminal_at_stdin_alone(twins: Twins) -> None:
    """With stdin elsewhere its command is in the background, and is stopped when it reads the terminal."""
    assert not closed(twins.peer, "</dev/null", "tini -s --")["is in the foreground"]
    assert closed(twins.ours, "</dev/null", "tini -s --")["is in the foreground"]


def await_sleep(init: int) -> None:
    """Wait until the init has a child and that is sleep(1)."""
    await_that("the command runs", lambda: [stat(pid).comm for pid in children(init)] == ["sleep"])


@pytest.mark.parametrize("init", ["tini -s --", "catatonit --"])
def test_a_backgrounded_one_steals_no_terminal(twins: Twins, init: str) -> None:
    stolen = []
    for side in twins.sides:
        with ExitStack() as stack:
            term = stack.enter_context(terminal(side, AS_JOB))
            term.expect(r"\$ ")
            term.keys(f"{init} sleep 1000 &\n")
            term.expect(r"\[1\] (\d+)")
            [init_pid] = children(term.leader.pid)
            await_sleep(init_pid)
            [command] = children(init_pid)
            await_state(command, "S")
            stolen.append(term.foreground() == stat(command).pgrp)
            term.leader.kill()
    assert stolen == [True, False]
