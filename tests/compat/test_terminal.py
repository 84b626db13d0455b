"""On a terminal: who is in its foreground, whose session it is, and what the keys do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.compat.twins import Side, Twins
from tests.support.processes import Handle, Stat, children, stat
from tests.support.terminal import CTRL_C, CTRL_Z, Terminal

INITS = ["tini -s --", "tini -sg --", "dumb-init", "dumb-init -c", "catatonit --", "catatonit -g --"]
# A shell without job control leaves the program that it starts in its own group.
AS_JOB = ["bash", "--noediting", "--norc", "--noprofile", "-i"]


PROMPT = r"\$ \Z"  # nothing is typed before it: what a shell finds typed ahead depends on the moment


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


def end(pid: int) -> None:
    """Kill a command that may stand where the end of its terminal does not reach it."""
    handle = Handle(pid)
    handle.kill()
    handle.wait_dead()
    handle.close()


def look(init: int) -> dict[str, bool]:
    [command] = children(init)
    return standing(stat(command), stat(init))


@pytest.mark.parametrize("init", INITS)
def test_as_session_leader_the_command_gets_the_terminal(twins: Twins, init: str) -> None:
    found = []
    for side in twins.sides:
        with terminal(side, [*init.split(), "sh", "-c", "echo ready; read x; exit 5"]) as term:
            term.expect("ready")
            found.append(look(term.popen.pid))
            term.keys("go\n")
            assert term.wait() == 5
    assert found[1] == found[0]
    assert found[1]["is in the foreground"]


@pytest.mark.parametrize("init", INITS)
def test_as_a_job_the_command_gets_the_foreground(twins: Twins, init: str) -> None:
    found = []
    for side in twins.sides:
        with terminal(side, AS_JOB) as term:
            term.expect(PROMPT)
            term.keys(f"{init} sh -c 'echo rea''dy; read x; exit 5'\n")
            term.expect("^ready")
            found.append(look(children(term.popen.pid)[0]))
            term.keys("go\n")
            term.expect(PROMPT)
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
            term.expect(PROMPT)
            term.keys(f'{init} sh -c "{command}"\n')
            term.expect("^ready")
            term.keys(CTRL_C)
            term.expect("got INT")
            term.expect(PROMPT)
            term.keys("echo code $?\n")
            term.expect("^code 7")


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
            term.popen.send_signal(signal.SIGQUIT)
            assert term.wait() == 131


@pytest.mark.parametrize("init", ["tini -s --", "catatonit --"])
def test_a_hangup_is_forwarded(twins: Twins, init: str) -> None:
    for side in twins.sides:
        command = "trap 'exit 9' HUP; echo ready; while :; do read x; done"
        with terminal(side, [*init.split(), "sh", "-c", command]) as term:
            term.expect("ready")
            term.popen.send_signal(signal.SIGHUP)
            assert term.wait() == 9


def test_dumb_init_keeps_the_handover_from_the_command(twins: Twins) -> None:
    """As session leader it gives the terminal up, and is sent HUP and CONT for that; only later ones count."""
    texts = []
    for side in twins.sides:
        with terminal(side, ["dumb-init", "-v", "monster", "/dev/tty", "stubborn"]) as term:
            for line in ("^ready", "Ignoring tty hand-off signal 18", "setsid complete"):
                term.expect(f"(?s)(?=.*{line})")  # in any order
            for sig in (signal.SIGHUP, signal.SIGCONT, signal.SIGHUP):
                term.popen.send_signal(sig)
                term.expect(rf"^got \d+ - {int(sig)} -")
            end(children(term.popen.pid)[0])
            assert term.wait() == 137
            lines = [line.strip() for line in term.seen.splitlines() if "[dumb-init]" in line]
            texts.append(sorted(line for line in lines if "PID" not in line))
            assert term.seen.count("got ") == 3
    assert texts[1] == texts[0]
    assert texts[1].count("[dumb-init] Forwarded signal 1 to children.") == 2


def test_dumb_init_ctrl_z_and_fg(twins: Twins) -> None:
    """Under a shell, without a session of its own, it stops and goes on with its command."""
    script = "set -m; dumb-init -c sh -c 'echo ready; read x; echo got $x; exit 5'; echo stopped; fg; echo code $?"
    for side in twins.sides:
        with terminal(side, ["bash", "-c", script]) as term:
            term.expect("^ready")
            term.keys(CTRL_Z)
            term.expect("^stopped")
            term.keys("word\n")
            term.expect("^got word")
            term.expect("^code 5")
            assert term.wait() == 0


def closed(side: Side, redirection: str, init: str) -> dict[str, bool]:
    """How the command stands when some of its descriptors do not lead to the terminal."""
    with terminal(side, AS_JOB) as term:
        term.expect(PROMPT)
        term.keys(f"{init} sh -c 'echo rea''dy >/dev/tty; exec sleep 1000' {redirection}\n")
        term.expect("^ready|cannot open|No such")
        init_pid = children(term.popen.pid)[0]
        found = look(init_pid)
        end(children(init_pid)[0])
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


@pytest.mark.parametrize("init", ["tini -s --", "catatonit --"])
def test_a_backgrounded_one_steals_no_terminal(twins: Twins, init: str) -> None:
    stolen = []
    for side in twins.sides:
        with terminal(side, ["bash", "-c", f"set -m; {init} monster /dev/tty stubborn & wait; exit 5"]) as term:
            term.expect("^ready")
            [init_pid] = children(term.popen.pid)
            [command] = children(init_pid)
            stolen.append(term.foreground() == stat(command).pgrp)
            end(command)
            assert term.wait() == 5
    assert stolen == [True, False]
