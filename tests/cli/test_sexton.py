"""The command `sexton` as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import pytest

import sexton
from sexton.cli import COMMANDS
from sexton.cli._group import sexton as group
from tests.support.lines import DEADLINE

SEXTON = Path(sysconfig.get_path("scripts"), "sexton")

the_command_line_alone = pytest.mark.release_only("what is in front of the binary does not know which it is")


def run(*words: str | Path, env: dict[str, str] | None = None, bare: bool = False) -> subprocess.CompletedProcess[str]:
    environment = (env or {}) if bare else os.environ | (env or {})
    return subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def test_version() -> None:
    done = run(SEXTON, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sexton {sexton.__version__}\n", "")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_each_command_with_a_summary(flag: str) -> None:
    done = run(SEXTON, flag)
    assert done.returncode == 0, done.stderr
    listed = dict(line.split(maxsplit=1) for line in done.stdout.partition("Commands:\n")[2].splitlines())
    assert set(listed) == set(COMMANDS)
    assert all(listed.values())


def test_each_summary_is_a_whole_sentence_on_one_line_of_80_columns() -> None:
    done = run(SEXTON, "--help", env={"COLUMNS": "80"})
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("name", COMMANDS.keys() - {"init"})
def test_the_help_of_each_command_fits_80_columns(name: str) -> None:
    done = run(SEXTON, name, "--help", env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_a_click_command_of_its_name(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.name == name


def test_the_module_is_the_command() -> None:
    assert run(sys.executable, "-m", "sexton", "--version").stdout == f"sexton {sexton.__version__}\n"


def test_an_unknown_command_is_a_usage_error_that_names_it() -> None:
    done = run(SEXTON, "exorcise")
    assert (done.returncode, done.stdout) == (2, "")
    assert "exorcise" in done.stderr


def test_a_command_that_is_misspelt_is_told_what_was_meant() -> None:
    done = run(SEXTON, "statsu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'statsu'. Did you mean 'status'?" in done.stderr


def test_a_command_is_imported_only_when_it_is_called() -> None:
    script = (
        "import sys; from sexton.cli._group import sexton; sexton.main(['--version'], standalone_mode=False);"
        "print(*(name for name in sys.modules if name.startswith('sexton.cli.')))"
    )
    done = run(sys.executable, "-c", script)
    assert done.stdout.splitlines()[-1] == "sexton.cli._group", done.stderr


@the_command_line_alone
def test_init_passes_the_exit_code_through(sexton_init: Path) -> None:
    assert run(SEXTON, "init", "--", "sh", "-c", "exit 7", env={"SEXTON_INIT": str(sexton_init)}).returncode == 7


@the_command_line_alone
@pytest.mark.parametrize("words", [["init"], ["--", "init"]], ids=["at once", "through click"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_init_leaves_every_option_to_the_program(sexton_init: Path, words: list[str], option: str) -> None:
    itself = run(sexton_init, option)
    through = run(SEXTON, *words, option, env={"SEXTON_INIT": str(sexton_init)})
    assert itself.stdout
    assert (through.returncode, through.stdout, through.stderr) == (itself.returncode, itself.stdout, itself.stderr)


@the_command_line_alone
def test_init_is_the_same_process(sexton_init: Path) -> None:
    """No Python stays in between: the pid that was started is sexton-init itself."""
    words = [str(SEXTON), "init", "--", "sh", "-c", "cat /proc/$PPID/comm; echo $PPID"]
    with subprocess.Popen(words, env=os.environ | {"SEXTON_INIT": str(sexton_init)}, stdout=subprocess.PIPE) as started:
        out, _ = started.communicate(timeout=DEADLINE)
    assert out.decode().split() == ["sexton-init", str(started.pid)]


@the_command_line_alone
def test_init_undoes_what_python_changed(sexton_init: Path) -> None:
    """Python ignores PIPE and XFSZ, and in the C locale sets LC_CTYPE: COMMAND is to see none of it."""
    env = {"PATH": os.environ["PATH"], "SEXTON_INIT": str(sexton_init)}
    done = run(SEXTON, "init", "--", "grep", "SigIgn", "/proc/self/status", env=env, bare=True)
    ignored = int(done.stdout.split()[1], 16)
    assert not [sig for sig in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> (sig - 1) & 1]
    done = run(SEXTON, "init", "--", "env", env=env, bare=True)
    assert not [line for line in done.stdout.splitlines() if line.startswith("LC_CTYPE=")]
    done = run(SEXTON, "init", "--", "env", env=env | {"LC_CTYPE": "C.UTF-8"}, bare=True)
    assert "LC_CTYPE=C.UTF-8" in done.stdout.splitlines()


def test_init_imports_nothing_that_the_start_of_python_has_not() -> None:
    """`sexton init` is to cost what Python costs, and no more: neither click nor typing, re, pathlib, signal."""
    report = "import sys, os; os.execve = lambda *_: print(*sys.modules); sys.argv[1:] = ['init', 'true'];"
    script = "from sexton.cli import main; before = set(sys.modules); main()"
    env = {"SEXTON_INIT": sys.executable, "PYTHONPATH": str(Path(sexton.__file__).parents[1])}
    loaded = set(run(sys.executable, "-S", "-c", report + script, env=env).stdout.split())
    before = set(run(sys.executable, "-S", "-c", "import sys, os; print(*sys.modules)", env=env).stdout.split())
    assert loaded - before == {"__future__", "sexton", "sexton.cli", "sexton._binary"}


def test_an_error_of_ours_is_one_message_and_its_own_exit_code() -> None:
    done = run(SEXTON, "init", "--", "true", env={"SEXTON_INIT": "/nowhere/sexton-init"})
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("sexton: no usable sexton-init; looked in\n  /nowhere/sexton-init: No such file")
    assert "Traceback" not in done.stderr


def test_help_into_a_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([SEXTON, "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
