"""On a terminal, under an interactive shell: Ctrl-Z, fg, bg and Ctrl-C do what they do without sexton-init."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.lines import Pipe, until
from tests.support.monsters import Note, await_notes, rest_of
from tests.support.processes import children, kill, stat
from tests.support.running import namespace
from tests.support.terminal import CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z, Terminal

ECHO = "sed -u s/^/got:/"
"""A COMMAND that answers each line that it can read from the terminal."""
SHELLS = {"bash": ["bash", "--norc", "--noprofile", "--noediting", "-i"], "dash": ["dash", "-i"]}


class Shell:
    """An interactive shell that leads a session, in a PID namespace of its own beside a plain init."""

    def __init__(self, terminal: Terminal, log: Pipe) -> None:
        self.terminal = terminal
        self.log = log
        self.expect, self.keys = terminal.expect, terminal.keys
        self.prompt()
        (host,) = children(terminal.popen.pid)
        (self.pid,) = children(host)

    def prompt(self) -> None:
        self.expect(r"\$ ")

    def run(self, line: str) -> None:
        """Type a line, and skip its echo."""
        self.keys(line + "\n")
        self.expect(r"\n")

    def says(self, line: str, pattern: str) -> None:
        """The line's output, and the prompt after it."""
        self.run(line)
        self.expect(pattern)
        self.prompt()

    def foreground(self) -> int:
        return self.terminal.foreground()

    def job(self) -> tuple[int, int]:
        """sexton-init and its COMMAND, the one job of the shell; as pids out here."""
        (init,) = children(self.pid)
        (command,) = children(init)
        return init, command


@pytest.fixture
def log() -> Iterator[Pipe]:
    pipe = Pipe("the monsters' log")
    yield pipe
    pipe.close()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, sexton_init: Path, monster: Path, log: Pipe) -> Iterator[Shell]:
    """$I is sexton-init, $M the monsters."""
    fd = str(log.write_fd)
    inner = ["setsid", "--ctty", *SHELLS[request.param]]
    env = {"I": str(sexton_init), "M": f"{monster} {fd}"}
    with Terminal([*namespace(), monster, fd, "host", *inner], controls=False, env=env, pipes=[log]) as terminal:
        yield Shell(terminal, log)


def test_ctrl_z_stops_the_job_and_fg_continues_it(shell: Shell) -> None:
    shell.run(f"$I {ECHO}")
    shell.keys("one\n")
    shell.expect("got:one")
    init, command = shell.job()
    for word in ("two", "three"):
        shell.keys(CTRL_Z)
        shell.expect("Stopped")
        shell.prompt()
        assert stat(command).state == "T"
        assert stat(init).state == "T"
        assert shell.foreground() == shell.pid
        shell.says("echo back$((1+1))", "back2")
        shell.run("fg")
        shell.keys(f"{word}\n")
        shell.expect(f"got:{word}")
        assert shell.foreground() == command
    shell.keys(CTRL_D)
    shell.prompt()
    shell.says("echo code=$?", "code=0")


@pytest.mark.parametrize("options", ["", "--signal child", "--signal tree"])
def test_a_whole_pipeline_in_the_job_is_stopped_and_continued(shell: Shell, options: str) -> None:
    """Ctrl-Z reaches the group, and so does fg, whoever gets forwarded signals: every process of the job goes on."""
    shell.run(f'$I {options} sh -c "{ECHO} | {ECHO}; exit 9"')
    shell.keys("one\n")
    shell.expect("got:got:one")
    shell.keys(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    _, command = shell.job()
    # Before that a read that is under way still takes what is typed: the kernel looks at the job when a read begins.
    until(lambda: all(stat(pid).state == "T" for pid in [command, *children(command)]), "the whole job stops")
    shell.run("fg")
    shell.keys("two\n")
    shell.expect("got:got:two")
    shell.keys(CTRL_D)
    shell.prompt()
    shell.says("echo code=$?", "code=9")


def test_bg_continues_it_in_the_background(shell: Shell) -> None:
    shell.run("""$I sh -c 'trap "echo goes\\"\\"-on" CONT; echo up; while :; do sleep 600 & wait; done'""")
    shell.expect("up")
    shell.keys(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    init, command = shell.job()
    shell.run("bg")
    shell.expect("goes-on")
    shell.says("echo still$((1+1))", "still2")
    assert shell.foreground() == shell.pid
    assert "T" not in (stat(init).state, stat(command).state)
    shell.run("kill %1; wait %1; echo code=$?")
    shell.expect("code=143")
    shell.prompt()


def test_after_bg_and_fg_it_reads_the_terminal(shell: Shell) -> None:
    shell.run(f"$I {ECHO}")
    shell.keys("one\n")
    shell.expect("got:one")
    shell.keys(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    shell.run("bg")
    shell.prompt()
    told_of_stops(shell, 2)  # it reads, so the terminal stops it again
    shell.run("fg")
    shell.keys("two\n")
    shell.expect("got:two")
    shell.keys(CTRL_D)
    shell.prompt()


def test_ctrl_c_reaches_the_command_once(shell: Shell) -> None:
    shell.run("$I $M as job stubborn")
    await_notes(shell.log, "ready")
    shell.keys(CTRL_C)
    assert [note.signal for note in await_notes(shell.log, "got")] == [2]
    shell.keys(CTRL_BACKSLASH)
    assert [note.signal for note in await_notes(shell.log, "got")] == [3]
    for _ in range(5):  # the guard is not in the foreground, so a REPL may have as many as it likes
        shell.keys(CTRL_C)
        assert [note.signal for note in await_notes(shell.log, "got")] == [2]


def test_ctrl_c_ends_the_command_and_the_shell_goes_on(shell: Shell) -> None:
    shell.run("$I $M plain")
    await_notes(shell.log, "ready")
    shell.keys(CTRL_C)
    shell.prompt()
    shell.says("echo code=$?", "code=130")
    assert shell.foreground() == shell.pid


def test_in_the_background_it_steals_no_terminal(shell: Shell) -> None:
    shell.run("$I $M plain &")
    shell.prompt()
    await_notes(shell.log, "ready")
    assert shell.foreground() == shell.pid
    shell.says("read line; echo read:$line\nmine", "read:mine")
    init, command = shell.job()
    assert "T" not in (stat(init).state, stat(command).state)
    shell.run("kill %1; wait %1; echo code=$?")
    shell.expect("code=143")
    assert shell.foreground() == shell.pid


def test_in_the_background_a_read_stops_the_job_until_fg(shell: Shell) -> None:
    """The kernel sends TTIN to COMMAND's group; the shell must learn of the stop, or fg has nothing to continue."""
    shell.run(f"$I {ECHO} &")
    shell.prompt()
    told_of_stops(shell, 1)
    _, command = shell.job()
    shell.run("fg")
    shell.keys("one\n")
    shell.expect("got:one")
    assert shell.foreground() == command
    shell.keys(CTRL_D)
    shell.prompt()


def told_of_stops(shell: Shell, count: int) -> None:
    """Empty lines, until the shell has told of that many stops: it does so at a prompt only."""
    while shell.terminal.seen.count("Stopped") < count:
        shell.run("")
        shell.prompt()


def test_fg_without_a_stop_hands_the_terminal_on(shell: Shell, tmp_path: Path) -> None:
    """A running job is brought to the foreground, for which no shell sends SIGCONT; then it reads the terminal."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    shell.run(f"$I sh -c 'read word < {fifo}; read line; echo got:$line' &")
    shell.prompt()
    with fifo.open("w") as gate:
        shell.run("fg")
        # dash sends SIGCONT all the same, so that COMMAND may have it already
        until(lambda: shell.foreground() in shell.job(), "the shell gives the terminal to the job")
        gate.write("go\n")
    shell.keys("one\n")
    shell.expect("got:one")
    shell.prompt()
    assert shell.foreground() == shell.pid


def test_ttin_and_ttou_do_not_stop_the_init(shell: Shell) -> None:
    shell.run("$I $M stubborn &")
    shell.prompt()
    await_notes(shell.log, "ready")
    shell.run("kill -TTIN %1; kill -TTOU %1; kill -USR1 %1")
    assert [note.signal for note in await_notes(shell.log, "got")] == [10]
    init, _ = shell.job()
    assert stat(init).state != "T"


def test_reports_from_the_background_stop_nothing_with_tostop(shell: Shell) -> None:
    """`stty tostop`: a write from the background stops the writer; the guard's own messages must not stop it."""
    shell.run("stty tostop")
    shell.prompt()
    shell.run("$I --verbose --verbose --verbose $M exit 4 & wait $!; echo code=$?")
    shell.expect("code=4")
    shell.prompt()


def test_the_terminal_comes_back_when_a_killed_command_leaves_it(shell: Shell) -> None:
    shell.run("$I $M die 9")
    shell.prompt()
    shell.says("read line; echo read:$line\nmine", "read:mine")
    assert shell.foreground() == shell.pid


def test_a_script_gets_the_terminal_back(shell: Shell) -> None:
    """No job control in a script: sexton-init is in the script's own group, and gives back what it had."""
    shell.run(f"""sh -c '"$I" {ECHO}; echo between; read line; echo read:$line; "$I" sh -c "exit 6"; echo code=$?'""")
    shell.keys("one\n")
    shell.expect("got:one")
    shell.keys(CTRL_D)
    shell.expect("between")
    shell.keys("two\n")
    shell.expect("read:two")
    shell.expect("code=6")
    shell.prompt()


def test_a_script_gets_the_terminal_back_after_a_stray_sigcont(shell: Shell) -> None:
    """COMMAND has the terminal then: no reason to think that the guard had been put into the background."""
    shell.run("""sh -c '"$I" $M stubborn; echo between; read line; echo read:$line'""")
    await_notes(shell.log, "ready")
    (script,) = children(shell.pid)
    (init,) = children(script)
    os.kill(init, signal.SIGCONT)
    assert [note.signal for note in await_notes(shell.log, "got")] == [signal.SIGCONT]
    kill(*children(init))
    shell.expect("between")
    shell.keys("two\n")
    shell.expect("read:two")
    shell.prompt()


def test_a_guard_below_a_guard_has_job_control_too(shell: Shell) -> None:
    shell.run(f"$I $I {ECHO}")
    shell.keys("one\n")
    shell.expect("got:one")
    shell.keys(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    shell.run("fg")
    shell.keys("two\n")
    shell.expect("got:two")
    shell.keys(CTRL_D)
    shell.prompt()


def test_the_third_ctrl_c_kills_the_leftovers_now(shell: Shell) -> None:
    """COMMAND has ended, a stubborn leftover holds up the stop, and the person at the terminal has had enough."""
    shell.run("$I --grace 600 --verbose --verbose --verbose $M as left fork setsid stubborn , await 1 , exit 3")
    assert [note.signal for note in await_notes(shell.log, "got")] == [15]
    for _ in range(3):
        shell.keys(CTRL_C)
        shell.expect("received SIGINT")
    shell.prompt()
    shell.says("echo code=$?", "code=3")
    assert [note.signal for note in rest_of_left(shell)] == []


def rest_of_left(shell: Shell) -> list[Note]:
    """What the leftover got beside its one TERM, once the shell and all else has ended."""
    shell.run("exit")
    assert shell.terminal.wait() == 0
    return [note for note in rest_of(shell.log) if note.word in ("got", "left")]


@contextlib.contextmanager
def container(init: Path, monster: Path, log: Pipe, words: Sequence[str | Path], leads: bool) -> Iterator[Terminal]:
    """PID 1 with a terminal: as leader of a session (`docker run -it`), or with the session led from outside."""
    lead = ["setsid", "--ctty"] if leads else []
    command = [*namespace(), *lead, init, *words]
    with Terminal(command, controls=not leads, env={"M": f"{monster} {log.write_fd}"}, pipes=[log]) as terminal:
        yield terminal


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "member"])
def test_as_pid_1_an_interactive_shell_has_job_control(
    sexton_init: Path, monster: Path, log: Pipe, leads: bool
) -> None:
    with container(sexton_init, monster, log, ["--", *SHELLS["bash"]], leads) as terminal:
        terminal.expect(r"^\$ ")
        assert "job control" not in terminal.seen
        terminal.keys(f"{ECHO}\n")
        terminal.expect("\n")
        terminal.keys("one\n")
        terminal.expect("got:one")
        terminal.keys(CTRL_Z)
        terminal.expect("Stopped")
        terminal.expect(r"^\$ ")
        terminal.keys("fg\n")
        terminal.expect("sed")
        terminal.keys("two\n")
        terminal.expect("got:two")
        terminal.keys(CTRL_C)
        terminal.expect(r"^\$ ")
        terminal.keys("exit 7\n")
        assert terminal.wait() == 7


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "member"])
def test_as_pid_1_ctrl_c_reaches_the_command_once(sexton_init: Path, monster: Path, log: Pipe, leads: bool) -> None:
    words: list[str | Path] = ["--", monster, str(log.write_fd), "stubborn"]
    with container(sexton_init, monster, log, words, leads) as terminal:
        await_notes(log, "ready")
        for _ in range(4):
            terminal.keys(CTRL_C)
            assert [note.signal for note in await_notes(log, "got")] == [2]


def test_as_pid_1_ctrl_z_does_not_stop_the_container(sexton_init: Path, monster: Path, log: Pipe) -> None:
    """Nobody could continue it: COMMAND is stopped as it is without an init, the init lives and forwards."""
    words: list[str | Path] = ["--", monster, str(log.write_fd), "plain"]
    with container(sexton_init, monster, log, words, leads=True) as terminal:
        await_notes(log, "ready")
        (init,) = children(terminal.popen.pid)
        terminal.keys(CTRL_Z)
        terminal.keys("x")
        terminal.expect("x")
        assert stat(init).state != "T"


def test_as_pid_1_a_hang_up_reaches_the_command_once(sexton_init: Path, monster: Path, log: Pipe) -> None:
    """The kernel tells the session's leader, which is sexton-init; COMMAND learns of it from there."""
    words: list[str | Path] = ["--grace", "0", "--", monster, str(log.write_fd), "polite"]
    with container(sexton_init, monster, log, words, leads=True) as terminal:
        await_notes(log, "ready")
        terminal.hang_up()
        assert [note.signal for note in rest_of(log) if note.word == "got" and note.signal != 18] == [1]
        assert terminal.wait() == 0
