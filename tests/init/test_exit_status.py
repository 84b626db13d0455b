"""sexton-init exits as COMMAND did: its code, 128+n for a signal, 126 and 127 where it could not be executed."""

from __future__ import annotations

import signal
import struct
from pathlib import Path

import pytest

from tests.init.family import PID1, Mode, Starter

IGNORED_BY_DEFAULT = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
FATAL = sorted(set(range(1, 65)) - {32, 33} - IGNORED_BY_DEFAULT - STOPPING)


@pytest.mark.parametrize("code", [0, 1, 2, 42, 124, 125, 126, 127, 128, 143, 254, 255])
def test_the_commands_exit_code_is_ours(start: Starter, mode: Mode, code: int) -> None:
    assert start(mode, "", f"exit {code}").end().code == code


def test_every_exit_code_passes_through(start: Starter) -> None:
    for code in range(256):
        assert start.plain("sh", "-c", f"exit {code}").wait().code == code


@pytest.mark.parametrize("sig", FATAL)
def test_a_command_that_a_signal_killed_gives_128_plus_n(start: Starter, placed: Mode, sig: int) -> None:
    assert start(placed, "", f"die {sig}").end().code == 128 + sig


@pytest.mark.parametrize("option", ["--ok 143", "--ok 3 --ok 143", "--ok=143"])
def test_ok_reports_a_code_as_0(start: Starter, placed: Mode, option: str) -> None:
    assert start(placed, option, "die 15").end().code == 0


def test_ok_leaves_the_other_codes(start: Starter) -> None:
    assert start(PID1, "--ok 3 --ok 4", "exit 5").end().code == 5


@pytest.mark.parametrize("code", [0, 1, 126, 255])
def test_ok_takes_every_code(start: Starter, code: int) -> None:
    assert start(PID1, f"--ok {code}", f"exit {code}").end().code == 0


def test_ok_does_not_hide_that_the_command_could_not_start(start: Starter) -> None:
    """127 from COMMAND may be fine; that sexton-init found no COMMAND never is."""
    assert start.plain("--ok", "127", "/no/such/program").wait().code == 127


@pytest.mark.parametrize("name", ["/no/such/program", "no-such-program", "./no-such-program"])
def test_a_command_that_is_not_found_is_127(start: Starter, placed: Mode, name: str) -> None:
    end = start(placed, "", command=[name]).end()
    assert end.code == 127
    assert name in end.err
    assert "no such file" in end.err.lower() or "not found" in end.err


def test_an_empty_command_name_is_127(start: Starter) -> None:
    result = start.plain("--", "").wait()
    assert result.code == 127
    assert result.err


def test_a_command_is_looked_up_in_path(start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    assert start.plain("only-here", env={"PATH": f"/nowhere:{tmp_path}"}).wait().code == 7


def test_path_goes_on_after_what_may_not_be_executed(start: Starter, tmp_path: Path) -> None:
    """As in execvp(3): a file without its x bit does not hide one further down PATH."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, permissions in ((first, 0o644), (second, 0o755)):
        folder.mkdir()
        (folder / "tool").write_text("#!/bin/sh\nexit 7\n")
        (folder / "tool").chmod(permissions)
    assert start.plain("tool", env={"PATH": f"{first}:{second}"}).wait().code == 7
    assert start.plain("tool", env={"PATH": f"{first}"}).wait().code == 126


def refused(start: Starter, program: Path, code: int = 126) -> str:
    result = start.plain(str(program)).wait()
    assert result.code == code
    assert str(program) in result.err
    assert len(result.err.splitlines()) == 1, "one reason, one line"
    return result.err


def test_a_file_that_is_not_executable_is_126(start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "data"
    program.write_text("hello\n")
    program.chmod(0o644)
    assert "ermission denied" in refused(start, program)


def test_a_directory_is_126(start: Starter, tmp_path: Path) -> None:
    refused(start, tmp_path)


def test_a_missing_interpreter_is_127_or_126_and_says_so(start: Starter, tmp_path: Path) -> None:
    """execve says ENOENT of a script whose interpreter is missing; the message must not blame the script alone."""
    program = tmp_path / "script"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    result = start.plain(str(program)).wait()
    assert result.code == 127
    assert str(program) in result.err
    assert "interpreter" in result.err


def elf(machine: int, interpreter: bytes = b"") -> bytes:
    """A 64-bit little-endian ELF executable of that machine, with one program header (PT_INTERP or PT_LOAD)."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    kind = 3 if interpreter else 1
    size = len(interpreter) or 4096
    return header + struct.pack("<IIQQQQQQ", kind, 5, 120, 0x400078, 0x400078, size, size, 1) + interpreter


def test_a_binary_of_another_machine_is_126_and_says_so(start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "foreign"
    program.write_bytes(elf(machine=258))  # LoongArch: no qemu for it is registered on a test machine
    program.chmod(0o755)
    assert "machine" in refused(start, program)


def test_a_missing_dynamic_loader_is_127(start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "unloadable"
    program.write_bytes(elf(machine=62, interpreter=b"/no/such/ld.so\0"))
    program.chmod(0o755)
    refused(start, program, 127)


def test_a_script_without_a_shebang_runs(start: Starter, placed: Mode, tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text('echo "$0 $1 $#"\nexit 9\n')
    program.chmod(0o755)
    end = start(placed, "", command=[program, "a b", "c"]).end()
    assert end.code == 9
    assert end.out == f"{program} a b 2\n"


def test_an_empty_file_runs_as_an_empty_script(start: Starter, tmp_path: Path) -> None:
    program = tmp_path / "empty"
    program.write_text("")
    program.chmod(0o755)
    assert start.plain(str(program)).wait().code == 0


def test_a_failure_to_execute_reports_no_started_command(start: Starter, placed: Mode) -> None:
    end = start(placed, "", command=["/no/such/program"]).end()
    assert end.of("started") == []
