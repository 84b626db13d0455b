"""`sexton run`: exit statuses as of timeout(1), reports, and the ways in which it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE
from tests.support.monsters import await_notes, double_forked, setsid_daemon
from tests.support.terminal import CTRL_C, Terminal

SEXTON = [sys.executable, "-m", "sexton", "run"]


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*SEXTON, *words], capture_output=True, input=stdin, timeout=DEADLINE, check=False)


@contextmanager
def running(troop: Troop, *words: str, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*SEXTON, *options, "--", *troop.words(*words)],
        pass_fds=[troop.log.write_fd],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 137),
        (["--timeout", "0.1", "sleep", "100"], 124),
        (["--timeout", "0.1", "--grace", "0.1", "sh", "-c", "trap '' TERM; sleep 100; sleep 100"], 137),
        (["--timeout", "100ms", "--grace", "1m30s", "sleep", "100"], 124),
        (["--timeout", "x", "true"], 125),
        (["--grace", "-1", "true"], 125),
        (["--stop-signal", "NOPE", "true"], 125),
        (["--stop-signal", "99", "true"], 125),
        (["--report-file", "/tmp/x", "true"], 125),
        ([], 125),
        (["/etc/passwd"], 126),
        (["no-such-program"], 127),
        (["--", "sh", "-c", "exit 4"], 4),
    ],
)
def test_exit_status(words: list[str], status: int) -> None:
    done = run(*words)
    assert done.returncode == status, done.stderr
    assert (status in {125, 126, 127}) == bool(done.stderr)


def test_streams_are_the_commands() -> None:
    done = run("sh", "-c", "cat; echo err >&2", stdin=b"in")
    assert (done.stdout, done.stderr) == (b"in", b"err\n")


def test_the_reports(tmp_path: Path) -> None:
    leave = ["sh", "-c", "setsid sleep 100 & exit 3"]
    text = run("--report", "text", *leave).stderr.decode()
    assert "exit status 3" in text
    assert "(sleep)" in text or "(sh)" in text  # before or after its exec
    assert "nothing is left" in text
    assert b"nothing was left" in run("--report", "text", "true").stderr
    file = tmp_path / "report"
    assert run("--report", "json", "--report-file", str(file), *leave).stderr == b""
    said = json.loads(file.read_text())
    assert (said["command"], said["exit"], said["why"], said["empty"]) == (leave, 3, "exit", True)
    assert [entry["how"] for entry in said["entries"]] == ["command", "stop"]


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    """Known before the start, nothing is started; later, the status of the command is what counts."""
    nowhere = str(tmp_path / "missing" / "report")
    done = run("--report", "text", "--report-file", nowhere, "echo", "started")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.decode() == f"sexton run: --report-file: cannot write {nowhere}: No such file or directory\n"
    full = run("--report", "json", "--report-file", "/dev/full", "sh", "-c", "exit 3")
    assert full.returncode == 3
    assert full.stderr == b"sexton run: the report could not be written to /dev/full: No space left on device\n"


STUCK = """
import os, sys
from sexton.spawn import _processes, _rescue
end, me = _rescue.end, _processes.look(os.getpid())
_rescue.end = lambda *args: [*end(*args), me]
from sexton.cli import main
sys.argv[:1] = ["sexton", "run"]
main()
"""


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["no-such-program"], 127, "cannot execute no-such-program: No such file or directory"),
        (["/etc/passwd"], 126, "cannot execute /etc/passwd: Permission denied"),
        (["--stop-signal", "NOPE", "true"], 125, "stop_signal: 'NOPE' is no signal"),
        (["sh", "-c", "kill -KILL $PPID; sleep 1000"], 125, "there is still alive after SIGKILL: "),
    ],
)
def test_the_report_of_a_failure(words: list[str], status: int, error: str, tmp_path: Path) -> None:
    """Also where something outlives SIGKILL: here as if it were sexton itself."""
    python, file = [sys.executable, "-c", STUCK], tmp_path / "report"
    for form in ("text", "json"):
        told = [*python, "--report", form, "--report-file", str(file), *words]
        done = subprocess.run(told, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert (done.returncode, error in done.stderr) == (status, True), done.stderr
    text, _, line = file.read_text().rstrip("\n").rpartition("\n")
    assert text.startswith(f"sexton run: exit status {status} after ")
    assert error in text
    said = json.loads(line)
    assert (said["command"], said["exit"], said["empty"]) == (words[-len(said["command"]) :], status, False)
    assert error in said["error"]


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--report", "text", "sh", "-c", "exit 3"], 3),
        (["--report", "json", "sh", "-c", "kill -9 $$"], 137),
        (["no-such-program"], 127),
        (["--stop-signal", "NOPE", "true"], 125),
        (["--report-file", "x", "true"], 125),
        (["--timeout", "x", "true"], 125),
    ],
)
def test_nobody_can_be_told(words: list[str], status: int, stderr: str) -> None:
    shell = ["sh", "-c", f'"$@" {stderr}', "sh", *SEXTON, *words]
    done = subprocess.run(shell, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (status, b"")


def test_a_signal_is_passed_on_then_comes_the_stop(troop: Troop) -> None:
    with running(troop, double_forked("stubborn"), "stubborn", options=("--grace", "0.2")) as process:
        troop.ready(2)
        process.send_signal(signal.SIGHUP)
        assert process.wait(DEADLINE) == 137
    got = {(note.label, note.signal) for note in troop.end() if note.word == "got"}
    assert {number for _, number in got} == {signal.SIGHUP, signal.SIGTERM}


def test_a_second_signal_is_impatience(troop: Troop) -> None:
    with running(troop, "stubborn", options=("--grace", "1000")) as process:
        troop.ready()
        process.terminate()
        await_notes(troop.log, "got")
        process.terminate()
        assert process.wait(DEADLINE) == 137


def test_other_signals_end_nothing(troop: Troop) -> None:
    with running(troop, "polite") as process:
        troop.ready()
        process.send_signal(signal.SIGUSR2)
        [note] = await_notes(troop.log, "got")
        assert note.signal == signal.SIGUSR2
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_killed_it_leaves_nothing(troop: Troop) -> None:
    with running(troop, double_forked("stubborn"), setsid_daemon(), "polite", options=("--grace", "0.2")) as process:
        troop.ready(3)
        process.kill()
        troop.end()


def test_the_end_of_its_input_is_its_end(troop: Troop) -> None:
    options = ("--stdin-death", "--grace", "0.2", "--report", "text")
    with running(troop, double_forked(), "polite", options=options) as process:
        troop.ready(2)
        assert process.stdin
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
        assert process.stderr
        assert b"nothing is left" in process.stderr.read()


def test_its_input_may_end_and_the_command_too() -> None:
    """A server over stdio that ends by itself when its client has gone."""
    assert run("--stdin-death", "sh", "-c", "cat >/dev/null; exit 5", stdin=b"bye").returncode == 5
    assert run("cat", stdin=b"whole").stdout == b"whole"


def test_a_lease_is_renewed_by_a_signal(troop: Troop) -> None:
    with running(troop, "polite", options=("--lease", "0.3", "--report", "text")) as process:
        troop.ready()
        process.send_signal(signal.SIGUSR1)
        assert process.wait(DEADLINE) == 0
        assert process.stderr
        assert b"stopped (lease)" in process.stderr.read()
    assert {note.signal for note in troop.end() if note.word == "got"} == {signal.SIGTERM}


def test_at_a_terminal_the_command_has_it() -> None:
    with Terminal(["bash", "--norc", "--noprofile", "-i"], env={"SEXTON_INIT": os.environ["SEXTON_INIT"]}) as terminal:
        terminal.expect(r"\$ ")
        terminal.keys("PS1=; run() { " + " ".join(SEXTON) + ' "$@"; echo "status $?"; }\n')
        terminal.keys("run sh -c 'echo asks; read line </dev/tty; echo \"read $line\"'\n")
        terminal.expect(r"^asks")
        terminal.keys("word\n")
        terminal.expect(r"^read word")
        terminal.expect(r"^status 0")
        terminal.keys("run sh -c 'echo waits; exec sleep 100'\n")
        terminal.expect(r"^waits")
        terminal.keys(CTRL_C)
        terminal.expect(r"status 130")
        terminal.keys("exit 0\n")
        terminal.wait()
