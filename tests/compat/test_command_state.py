"""What COMMAND starts with: signals, group and session, directory, descriptors, environment; and how it is found."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compat.twins import Case, Side, Twins
from tests.support.lines import Pipe, until
from tests.support.running import Place

INITS = ["tini --", "tini -sg --", "dumb-init", "dumb-init -c", "catatonit --", "catatonit -g --"]
PLACES = [Place.HERE, Place.PID1]

SOME = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGPIPE, signal.SIGTTIN})
OTHERS = frozenset({signal.SIGHUP, signal.SIGTTOU, signal.SIGTSTP, signal.SIGALRM})
FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS})
STOPS = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def signals(mask: str) -> set[int]:
    """The signals of a mask in /proc/PID/status; not glibc's own: its posix_spawn, so make, leaves them ignored."""
    return {sig for sig in range(1, 65) if int(mask, 16) >> (sig - 1) & 1} - {32, 33}


def signal_state(side: Side, case: Case) -> dict[str, set[int]]:
    """What COMMAND finds blocked and ignored."""
    lines = side.run(case).out.splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: signals(fields[name].strip()) for name in ("SigBlk", "SigIgn", "SigCgt", "SigPnd")}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
@pytest.mark.parametrize(
    ("blocked", "ignored"),
    [
        (frozenset(), frozenset()),
        (SOME, OTHERS),
        (OTHERS, SOME),
        (SOME | OTHERS, SOME | OTHERS),
        pytest.param(FAULTS, FAULTS, marks=pytest.mark.release_only("the sanitizers handle some of these themselves")),
    ],
)
@pytest.mark.parametrize("init", INITS)
def test_the_command_finds_the_same_signal_state(
    twins: Twins, init: str, blocked: frozenset[int], ignored: frozenset[int], place: Place
) -> None:
    case = Case(f"{init} cat /proc/self/status", place, blocked=blocked, ignored=ignored)
    peer, ours = (signal_state(side, case) for side in twins.sides)
    if init.startswith("catatonit"):
        # It leaves these blocked, so that Ctrl-Z does nothing; ours has them as they were.
        assert peer["SigBlk"] == blocked | STOPS
        assert ours["SigBlk"] == blocked
        peer["SigBlk"] = ours["SigBlk"]
    assert ours == peer


@dataclass(frozen=True)
class Standing:
    """Where a process stands, without its pid."""

    leads_group: bool
    leads_session: bool
    in_our_group: bool
    in_our_session: bool


def standing(side: Side, init: str) -> Standing:
    """Where COMMAND stands."""
    text = side.run(Case(f"{init} cat /proc/self/stat")).out
    pid = int(text.split()[0])
    pgrp, session = (int(field) for field in text[text.rindex(")") :].split()[3:5])
    return Standing(pgrp == pid, session == pid, pgrp == os.getpgrp(), session == os.getsid(0))


@pytest.mark.parametrize("init", [*INITS, "DUMB_INIT_SETSID=0 dumb-init", "docker-init --", "tini-static -s --"])
def test_the_command_stands_in_the_same_group_and_session(twins: Twins, init: str) -> None:
    assert standing(twins.ours, init) == standing(twins.peer, init)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.value)
@pytest.mark.parametrize(
    "command",
    [
        "readlink /proc/self/cwd",
        "sh -c 'umask; ulimit -a'",
        "sh -c 'cat /proc/self/oom_score_adj /proc/self/limits; nice'",
        "cat /proc/self/uid_map",
        "sh -c 'ls /proc/self/fd'",
        "sh -c 'echo out; echo err >&2; exit 5'",
        'sh -c \'tr "\\0" " " </proc/self/cmdline\'',
        "sh -c 'grep -E \"^(NoNewPrivs|Seccomp|CapEff|CapBnd|Groups|Uid|Gid):\" /proc/self/status'",
    ],
)
def test_the_command_finds_the_same_surroundings(twins: Twins, init: str, command: str, place: Place) -> None:
    said = twins.assert_same(Case(f"{init} {command}", place))
    assert said.out


def environment(side: Side, init: str) -> dict[str, str]:
    """COMMAND's, but for what names the side or the test."""
    case = Case(f"SOME=thing EMPTY= ODD='a=b c' TINI_SUBREAPER= DUMB_INIT_DEBUG=0 {init} env -0")
    pairs = (entry.split("=", 1) for entry in side.run(case).out.split("\0") if entry)
    return {name: value for name, value in pairs if name not in {"PATH", "PYTEST_CURRENT_TEST"}}


@pytest.mark.parametrize("init", INITS)
def test_the_command_finds_the_same_environment(twins: Twins, init: str) -> None:
    peer, ours = (environment(side, init) for side in twins.sides)
    assert ours == peer
    assert ours["ODD"] == "a=b c"
    assert ours["TINI_SUBREAPER"] == ""


def given_descriptors(side: Side, init: str, stack: ExitStack) -> tuple[list[str], bytes]:
    """The descriptors COMMAND has when a pipe and a file are handed down, and what it wrote to the pipe."""
    pipe = Pipe("an inherited pipe")
    stack.callback(pipe.close)
    null = os.open("/dev/null", os.O_RDONLY)
    stack.callback(os.close, null)
    command = (
        f"echo hello >&{pipe.write_fd}; for fd in /proc/$$/fd/*; do test $fd -ef /dev/null && echo ${{fd##*/}}; done"
    )
    run = side.start(Case(f"{init} bash -c '{command}'"), stack, stdin=subprocess.DEVNULL, pipes=[pipe], fds=[null])
    out = run.wait().out
    pipe.rest()
    return [number for number in out.split() if int(number) in {0, null}], pipe.seen


@pytest.mark.parametrize("init", INITS)
def test_the_command_gets_the_descriptors(twins: Twins, init: str, stack: ExitStack) -> None:
    numbers, text = given_descriptors(twins.ours, init, stack)
    assert text == b"hello\n"
    assert len(numbers) == 2
    assert given_descriptors(twins.peer, init, stack)[1] == text


@pytest.mark.parametrize("listen", ["ours", "1", "999999", "", "x", "99999999999999999999"])
@pytest.mark.parametrize("init", ["catatonit --", "tini -s --", "dumb-init"])
def test_socket_activation_is_handed_on_as_the_peer_does(twins: Twins, init: str, listen: str) -> None:
    """catatonit corrects LISTEN_PID where it names itself."""
    command = 'case $LISTEN_PID in $$) echo me;; $PPID) echo init;; *) echo "$LISTEN_PID";; esac'
    # As PID 1 the init is 1; "ours" is the pid that exec keeps.
    before = ("sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh") if listen == "ours" else ()
    case = Case(f"LISTEN_PID={listen} {init} sh -c '{command}'", Place.PID1, before)
    said = twins.assert_same(case)
    assert (said.out == "me\n") == (init == "catatonit --" and listen in {"ours", "1"})


# ---- finding COMMAND ----


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories for PATH, and programs in them that cannot or can be executed."""
    folder = tmp_path_factory.mktemp("programs")
    files: dict[str, tuple[int, bytes]] = {
        "a/denied": (0o644, b"#!/bin/sh\necho a\n"),
        "a/first-denied": (0o644, b"#!/bin/sh\necho a\n"),
        "a/plain": (0o755, b"echo a plain script: $0 $*\n"),
        "a/empty": (0o755, b""),
        "a/no-interpreter": (0o755, b"#!/no/such/interpreter\n"),
        "a/foreign": (0o755, b"\x7fELF\x02\x01\x01" + b"\0" * 57),
        "a/bytes": (0o755, b"\0\1\2"),
        "b/first-denied": (0o755, b"#!/bin/sh\necho b\n"),
        "b/no-interpreter": (0o755, b"#!/bin/sh\necho b\n"),
        "b/second": (0o755, b"#!/bin/sh\necho second $*; exit 4\n"),
    }
    for name, (mode, content) in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    (folder / "a" / "directory").mkdir()
    (folder / "a" / "loop").symlink_to("loop")
    return folder


PATHS = ["a:b", "b:a", "/no/such/dir:a/plain:a:b", ":a", "a::b"]
WORDS = ["second x y", "first-denied", "plain x 'y z'", "denied", "directory", "nowhere", "empty", "loop", "a/plain q"]


@pytest.mark.parametrize("init", ["tini -s --", "dumb-init -c", "catatonit --"])
@pytest.mark.parametrize("path", PATHS)
def test_the_command_is_found_as_the_peer_finds_it(
    twins: Twins, programs: Path, monkeypatch: pytest.MonkeyPatch, init: str, path: str
) -> None:
    monkeypatch.chdir(programs)
    full = ":".join(str(programs / part) if part and not part.startswith("/") else part for part in path.split(":"))
    for words in WORDS:
        twins.assert_same(Case(f"{init} {words}", path=full))


@pytest.mark.parametrize("init", ["tini -s --", "dumb-init", "catatonit --"])
@pytest.mark.parametrize(
    "name", ["no-interpreter", "denied", "directory", "loop", "plain/x", "x" * 300, "empty", "plain"]
)
def test_a_named_file_fails_as_under_the_peer(twins: Twins, programs: Path, init: str, name: str) -> None:
    twins.assert_same(Case(f"{init} {programs}/a/{name}"))


# ---- deliberate differences ----


@pytest.mark.parametrize("init", ["tini -s --", "dumb-init", "catatonit --"])
def test_an_ignored_sigchld_does_not_hang_us(twins: Twins, init: str) -> None:
    """Then the kernel buries the children, and tini and catatonit wait for ever; COMMAND still finds it ignored."""
    case = Case(f"{init} cat /proc/self/status", ignored=frozenset({signal.SIGCHLD}))
    wanted = set() if init == "dumb-init" else {signal.SIGCHLD}
    assert signal_state(twins.ours, case)["SigIgn"] & {signal.SIGCHLD} == wanted


def test_a_program_for_another_machine_is_not_fed_to_the_shell(twins: Twins, programs: Path) -> None:
    """execvp(3) gives it to /bin/sh, which finds a word of binary garbage."""
    case = Case(f"tini -s -- {programs}/a/foreign")
    wanted: dict[str, Any] = {
        "code": 1,
        "err": f"[FATAL tini (PID)] exec {programs}/a/foreign failed: Exec format error\n",
    }
    twins.assert_differs(case, **wanted)


@pytest.mark.parametrize("init", ["tini -s --", "catatonit --"])
def test_the_directory_is_not_kept_busy(twins: Twins, monkeypatch: pytest.MonkeyPatch, init: str) -> None:
    """dumb-init, and catatonit since 0.2.1, change to /; ours does so under every name."""
    monkeypatch.chdir("/usr/share")
    case = Case(f"{init} sh -c 'readlink /proc/$PPID/cwd'")
    assert twins.peer.run(case).out == "/usr/share\n"
    # COMMAND may look before the init has left.
    with ExitStack() as stack:
        run = twins.ours.start(Case(f"{init} sh -c 'read go; readlink /proc/$PPID/cwd'"), stack, stdin=subprocess.PIPE)
        until(lambda: os.readlink(f"/proc/{run.init.pid}/cwd") == "/", "it has left")
        run.tell()
        assert run.wait().out == "/\n"


@pytest.mark.parametrize("init", ["tini -s --", "dumb-init -c"])
def test_a_pipe_is_not_kept_open(twins: Twins, stack: ExitStack, init: str) -> None:
    """catatonit closes what is for COMMAND alone; ours does so under every name."""
    pipe = Pipe("an inherited pipe")
    stack.callback(pipe.close)
    command = f"exec {pipe.write_fd}>&-; read go"
    run = twins.ours.start(Case(f"{init} bash -c '{command}'"), stack, stdin=subprocess.PIPE, pipes=[pipe])
    assert pipe.rest() == []  # its end comes though the init lives
    run.tell()
    assert run.wait().code == 0
