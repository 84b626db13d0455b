"""Read-only, rootless, without capabilities, descriptors or room: COMMAND's status and the stop come all the same."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pty
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.init.family import ALL_MODES, BESIDE, PID1, Ending, Mode, Starter
from tests.support.lines import Pipe, events
from tests.support.monsters import join
from tests.support.processes import descriptors
from tests.support.running import Proc

LOUD = "--verbose --verbose --verbose"
HARD = ["times 5 fork setsid stubborn", "times 5 daemon polite", "fork chain 3 stubborn", "await 13", "polite"]
"""A tree for which a stop needs all of it: a stop signal, the grace time, SIGKILL."""


def stopped_hard(start: Starter, mode: Mode, before: list[str], init: Path | None = None) -> Ending:
    """Such a tree is told once to stop, and nothing is left of it."""
    family = start(mode, f"{LOUD} --grace 0.2", *HARD, before=before, init=init)
    family.await_note("ready", 14)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0, end.err
    assert end.left == []
    assert set(end.got(signal.SIGTERM).values()) == {1}
    return end


def stops_hard(start: Starter, mode: Mode, before: list[str], init: Path | None = None) -> None:
    end = stopped_hard(start, mode, before, init)
    signalled = [event["pid"] for event in end.of("signalled") if event["scope"] == "stop"]
    assert len(signalled) == len(set(signalled)) >= 10, "all but COMMAND and those who had it with COMMAND's group"
    assert len(end.of("killed")) >= 8


@pytest.mark.usefixtures("root")
def test_on_a_read_only_root(start: Starter, placed: Mode) -> None:
    script = 'mount -o remount,bind,ro / && ! touch /tmp/x 2>/dev/null && exec "$@"'
    stops_hard(start, placed, ["sh", "-c", script, "sh"])


@pytest.mark.usefixtures("root")
def test_with_every_capability_dropped(start: Starter, placed: Mode) -> None:
    stops_hard(start, placed, ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"])


@pytest.mark.usefixtures("root")
def test_as_an_unprivileged_user(start: Starter, placed: Mode, anyones_init: Path) -> None:
    before = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]
    stops_hard(start, placed, before, anyones_init)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("option", ["hidepid=2", "subset=pid"])
def test_with_a_restricted_proc(start: Starter, placed: Mode, anyones_init: Path, option: str) -> None:
    """Where one sees but one's own processes, and where /proc has nothing but processes."""
    mount = ["sh", "-c", f'mount -t proc -o {option} proc /proc && exec "$@"', "sh"]
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    stops_hard(start, placed, [*mount, *user], anyones_init)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM], ids=["ENOSYS", "EPERM"])
def test_without_the_newer_system_calls(start: Starter, placed: Mode, error: int) -> None:
    """An old kernel says ENOSYS, an engine's old seccomp profile EPERM: of pidfds, close_range, pwritev2, statx.

    Without pidfds a deeper descendant has its turn when it becomes our child: the stop comes to its end all the same.
    """
    end = stopped_hard(start, placed, ["MONSTER", "LOG", *join(f"deny {error}", "exec")])
    assert end.of("exited")
    assert len([event for event in end.of("reaped") if event.get("signal") == "KILL"]) >= 8


@pytest.mark.parametrize("limit", [8, 16])
def test_with_few_descriptors(start: Starter, placed: Mode, limit: int) -> None:
    """Those handed down may lie above the limit: what counts is that few can be opened."""
    stops_hard(start, placed, ["prlimit", f"--nofile={limit}:{limit}"])


@pytest.mark.release_only("no shared library can be opened")
@pytest.mark.parametrize("limit", [3, 4])
def test_as_pid_1_with_no_descriptor_to_spare(start: Starter, limit: int) -> None:
    before = ["prlimit", f"--nofile={limit}:{limit}"]
    end = start(PID1, "--grace 1", "daemon stubborn", "fork polite", "await 2", "exit 3", before=before).end()
    assert end.code == 3
    assert list(end.got(signal.SIGTERM).values()) == [1, 1]


@pytest.mark.release_only("no shared library can be opened")
@pytest.mark.parametrize("limit", [3, 4])
def test_beside_with_no_descriptor_to_spare(start: Starter, limit: int) -> None:
    """/proc cannot be opened, so it is as if there were none: the group is stopped."""
    before = ["prlimit", f"--nofile={limit}:{limit}"]
    end = start(BESIDE, "--grace 600", "times 5 fork polite", "await 5", "exit 3", before=before).end()
    assert end.code == 3
    assert list(end.got(signal.SIGTERM).values()) == [1] * 5
    assert end.left == []


@pytest.mark.usefixtures("root")
def test_a_fork_that_fails_is_125_and_says_so(start: Starter, anyones_init: Path) -> None:
    start.init = anyones_init
    before = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "prlimit", "--nproc=1:1"]
    result = start.plain("echo", "started", before=before).wait()
    assert result.code == 125
    assert result.out == ""
    assert "echo" in result.err
    assert "process" in result.err


CLOSINGS = [closed for n in range(1, 4) for closed in itertools.combinations((0, 1, 2), n)]


def closing(closed: tuple[int, ...]) -> list[str]:
    redirections = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    return ["sh", "-c", f'exec "$@" {redirections}', "sh"]


@pytest.mark.parametrize("closed", CLOSINGS, ids=str)
def test_with_closed_standard_streams(start: Starter, mode: Mode, closed: tuple[int, ...]) -> None:
    family = start(mode, LOUD, "fork polite", "await 1", "polite", before=closing(closed))
    family.await_note("ready", 2)
    command = descriptors(family.run.command.pid)
    assert not set(command) & set(closed), "COMMAND has them closed as well"
    assert len(command) == 4 - len(closed), "the open ones of the three, and the log"
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert end.left == []
    assert [event["event"] for event in end.of("exited")] == ["exited"]


@pytest.mark.parametrize("closed", CLOSINGS, ids=str)
def test_events_to_a_path_with_closed_standard_streams(start: Starter, closed: tuple[int, ...], tmp_path: Path) -> None:
    """The opened file must not become number 0, 1 or 2: then what COMMAND or we print would land among the events."""
    path = tmp_path / "events"
    words = [*LOUD.split(), "--events", str(path), "sh", "-c", "echo out; echo err >&2; exit 3"]
    result = start.plain(*words, before=closing(closed)).wait()
    assert result.code == 3
    found = [event["event"] for event in events(path.read_text().splitlines())]
    assert found == ["started", "reaped", "exited", "empty"]


def test_an_error_with_stderr_closed_is_still_its_code(start: Starter) -> None:
    assert start.plain("--nonsense", before=closing((2,))).wait().code == 125
    assert start.plain("/no/such/program", before=closing((0, 1, 2))).wait().code == 127


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x")
    os.set_blocking(fd, True)


@pytest.fixture(params=["pipe", "socket", "datagram", "pty", "broken-pipe", "/dev/full"])
def stuffed(request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor that takes not one byte more."""
    with contextlib.ExitStack() as stack:
        if request.param == "pipe":
            pipe = Pipe("a full pipe")
            stack.callback(pipe.close)
            fill(pipe.write_fd)
            yield pipe.write_fd
        elif request.param in ("socket", "datagram"):
            kind = socket.SOCK_STREAM if request.param == "socket" else socket.SOCK_DGRAM
            ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
            stack.enter_context(ours)
            stack.enter_context(theirs)
            fill(theirs.fileno())
            yield theirs.fileno()
        elif request.param == "pty":
            master, slave = pty.openpty()
            stack.callback(os.close, master)
            stack.callback(os.close, slave)
            fill(slave)
            yield slave
        elif request.param == "broken-pipe":
            reader, writer = os.pipe()
            os.close(reader)
            stack.callback(os.close, writer)
            yield writer
        else:
            fd = os.open(request.param, os.O_WRONLY)
            stack.callback(os.close, fd)
            yield fd


COMPLAINS = pytest.mark.release_only("without /proc the sanitizers' own runtime writes to stderr, and blocks")


@pytest.mark.parametrize(
    "mode", [pytest.param(m, marks=[COMPLAINS] * (m.proc is Proc.NONE), id=str(m)) for m in ALL_MODES]
)
def test_stderr_that_takes_nothing_blocks_and_kills_nothing(start: Starter, stuffed: int, mode: Mode) -> None:
    family = start(mode, LOUD, "fork polite", "await 1", "polite", stderr=stuffed)
    family.await_note("ready", 2)
    family.send(signal.SIGUSR1)
    family.await_note("got", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert end.left == []
    assert not end.got(signal.SIGPIPE)


def test_errors_to_a_stderr_that_takes_nothing(start: Starter, stuffed: int) -> None:
    assert start.plain("--nonsense", stderr=stuffed).wait().code == 125
    assert start.plain("/no/such/program", stderr=stuffed).wait().code == 127


def test_events_that_nobody_takes(start: Starter, stuffed: int, placed: Mode) -> None:
    family = start(
        placed, f"--events {stuffed} --grace 0.1", "fork stubborn", "await 1", "polite", report=False, fds=[stuffed]
    )
    family.await_note("ready", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert end.left == []


def test_stdout_that_takes_nothing_is_none_of_our_business(start: Starter, stuffed: int, placed: Mode) -> None:
    assert start(placed, LOUD, "exit 3", stdout=stuffed).end().code == 3


def test_a_file_at_its_size_limit_kills_nothing(start: Starter, placed: Mode, tmp_path: Path) -> None:
    """Writing past RLIMIT_FSIZE raises SIGXFSZ, whose default is to die."""
    before = ["prlimit", "--fsize=0:0", "sh", "-c", f'exec "$@" 2>{tmp_path}/err', "sh"]
    family = start(placed, f"{LOUD} --grace 0.1", "fork stubborn", "await 1", "polite", before=before)
    family.await_note("ready", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert not end.got(signal.SIGXFSZ)


def test_a_flood_of_signals_loses_no_status(start: Starter) -> None:
    """Every standard signal as fast as it goes, while COMMAND makes orphans and ends."""
    family = start(PID1, "--map TERM=none --map INT=none", "say up", "times 300 fork fork exit 0", "exit 3")
    family.await_note("up")
    init = family.run.init
    with contextlib.suppress(ProcessLookupError):
        for number in range(20_000):
            init.send((signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGTTIN)[number % 4])
            if not init.alive():
                break
    assert family.end().code == 3


def test_killed_by_sigkill_itself_leaves_what_it_must(start: Starter) -> None:
    """Nobody outlives SIGKILL, and COMMAND has no pdeathsig: the tree is its owner's then."""
    family = start(BESIDE, "", "fork polite", "await 1", "polite")
    family.await_note("ready", 2)
    family.send(signal.SIGKILL)
    end = family.end()
    assert len(end.left) == 2
    assert [note.rest[0] for note in end.notes if note.word == "killed"] == ["9"]
