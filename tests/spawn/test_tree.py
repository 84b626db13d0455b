"""A tree: started, watched, stopped, and nothing of it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import sexton
from sexton import events
from sexton.errors import ContainmentError, SextonError, UsageError
from sexton.spawn._record import name_of
from sexton.spawn._start import LADDER
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE
from tests.support.monsters import await_notes, double_forked, orphan, setsid_daemon, stopped, stubborn
from tests.support.processes import Handle

TERM, KILL = "SIGTERM", "SIGKILL"


def test_a_stop_takes_all_that_came_of_the_command(troop: Troop) -> None:
    family = (setsid_daemon(), double_forked(), orphan(), stubborn(), stopped(), "polite")
    with sexton.Tree(troop.words(*family), **troop.handed, grace=0.5) as tree:
        born = {note.pid for note in troop.ready(6)}
        receipt = tree.stop()
    troop.end()
    assert receipt.empty
    assert born <= {entry.pid for entry in receipt.entries}
    assert [TERM, KILL] in [entry.signals for entry in receipt.killed if entry.pid in born]  # the stubborn one
    assert all(entry.signals[0] == TERM for entry in receipt.entries if entry.pid in born)


def test_leaving_the_with_stops_the_tree(troop: Troop) -> None:
    with sexton.Tree(troop.words(double_forked(), "polite"), **troop.handed) as tree:
        troop.ready(2)
    assert troop.end()
    assert tree.receipt.empty
    assert tree.receipt.why == "stop"
    assert tree.poll() == tree.returncode == 0


def test_the_receipt_tells_of_each(troop: Troop) -> None:
    with sexton.Tree(troop.words(double_forked("stubborn"), "await 1", "exit 3"), **troop.handed, grace=0.2) as tree:
        [daemon] = troop.ready()
        assert tree.wait(DEADLINE) == 3
    entries = {entry.pid: entry for entry in tree.receipt.entries}
    assert entries[tree.pid].how == "command"
    assert (entries[tree.pid].code, entries[tree.pid].adopted) == (3, False)
    assert entries[daemon.pid].signals == [TERM, KILL]
    assert (entries[daemon.pid].code, entries[daemon.pid].adopted) == (-9, True)
    assert tree.receipt.why == "exit"
    assert [entry.pid for entry in tree.receipt.leftovers] == [daemon.pid]
    assert "nothing is left" in str(tree.receipt)
    assert tree.receipt.as_dict()["empty"] is True


def test_processes_are_all_of_the_tree(troop: Troop) -> None:
    with sexton.Tree(troop.words(setsid_daemon(), double_forked(), "polite"), **troop.handed) as tree:
        born = {note.pid for note in troop.ready(3)}
        found = tree.processes()
        assert {process.pid for process in found} == born
        assert found[0].pid == tree.pid
        assert all(process.cmdline[0] == str(troop.monster) for process in found)
    assert tree.processes() == ()


def test_poll_and_wait(troop: Troop) -> None:
    with sexton.Tree(troop.words("hold", "exit 4"), **troop.handed, stdin=sexton.PIPE) as tree:
        assert tree.poll() is None
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            tree.wait(0.01)
        assert isinstance(caught.value, sexton.TimeoutExpired)
        assert isinstance(caught.value, SextonError)
        assert tree.stdin
        tree.stdin.write(b"\n")
        tree.stdin.flush()
        assert tree.wait(DEADLINE) == tree.poll() == tree.returncode == 4


def test_the_command_ends_before_its_tree(troop: Troop) -> None:
    words = troop.words(double_forked(), "await 1", "exit 5")
    with sexton.Tree(words, **troop.handed, on_exit="wait") as tree:
        assert tree.wait_command(DEADLINE) == 5
        assert tree.poll() is None
        assert len(tree.processes()) == 1
    assert tree.poll() == 5


@pytest.mark.parametrize(("scope", "reached"), [("child", 1), ("group", 2), ("tree", 3)])
def test_a_signal_has_a_scope(troop: Troop, scope: Any, reached: int) -> None:
    with sexton.Tree(
        troop.words("fork stubborn", setsid_daemon("stubborn"), "polite"), **troop.handed, grace=0
    ) as tree:
        troop.ready(3)
        tree.send_signal("USR1", scope)
        got = Counter(note.pid for note in await_notes(troop.log, "got", reached))
    got += Counter(note.pid for note in troop.end() if note.word == "got" and note.signal == signal.SIGUSR1)
    assert list(got.values()) == [1] * reached


def test_signalling_what_has_ended_is_nothing() -> None:
    with sexton.Tree(["true"]) as tree:
        tree.wait(DEADLINE)
        tree.send_signal("USR1")
        tree.terminate()
        assert tree.kill().empty
        assert tree.stop().empty
    with pytest.raises(ValueError, match="NOPE"):
        tree.send_signal("NOPE")


def test_a_tree_that_is_not_renewed_ends(troop: Troop) -> None:
    with sexton.Tree(troop.words("polite"), **troop.handed, lease=0.2) as tree:
        tree.wait(DEADLINE)
        assert tree.receipt.why == "lease"


def test_renew(troop: Troop) -> None:
    with sexton.Tree(troop.words("polite"), **troop.handed, lease=20) as tree:
        tree.renew(1000)
        status = tree.status()
        assert status
        assert status.lease
        assert 900 < status.lease <= 1000
    with sexton.Tree(["sleep", "100"]) as tree, pytest.raises(SextonError, match="no --lease"):
        tree.renew()


def test_the_guard_keeps_the_time_itself(troop: Troop) -> None:
    with sexton.Tree(troop.words("polite"), **troop.handed, timeout=0.1) as tree:
        assert tree.wait(DEADLINE) == 0
        assert tree.receipt.why == "timeout"


def test_events_in_their_order() -> None:
    with sexton.Tree(["sh", "-c", "exit 7"]) as tree:
        seen = list(tree.events(DEADLINE))
    names = [event.name for event in seen]
    assert [names.index(name) for name in ("hello", "started", "reaped", "exited", "empty")] == sorted(
        names.index(name) for name in ("hello", "started", "reaped", "exited", "empty")
    )
    [exited] = [event for event in seen if isinstance(event, events.Exited)]
    assert exited.code == 7
    assert exited.rusage.utime >= 0
    assert exited.time > 1e9


NOT_STARTED: list[tuple[Any, dict[str, Any]]] = [
    ("/nonexistent/program", {}),
    (["no-such-program-anywhere", "x"], {}),
    (["/etc/passwd"], {}),
    (["/"], {}),
    (["true"], {"cwd": "/nonexistent"}),
    (["true"], {"cwd": "/etc/passwd"}),
    (["true"], {"env": {"PATH": "/nonexistent"}}),
    ([Path("/nonexistent/program")], {}),
    (["true\0"], {}),
]


@pytest.mark.parametrize(("args", "settings"), NOT_STARTED)
def test_what_cannot_be_started_fails_as_with_subprocess(args: Any, settings: dict[str, Any]) -> None:
    with pytest.raises((OSError, ValueError)) as theirs:
        subprocess.Popen(args, **settings)
    for start in (sexton.Tree, sexton.run):
        with pytest.raises(type(theirs.value)) as ours:
            start(args, **settings)
        assert getattr(ours.value, "errno", None) == getattr(theirs.value, "errno", None)
        assert getattr(ours.value, "filename", None) == getattr(theirs.value, "filename", None)


LOOK = """
import os, sys
print(sys.argv[1:], os.getcwd(), oct(os.umask(0)), os.environ.get("A"))
print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
print(sys.stdin.read(), "to stderr", file=sys.stderr)
"""

SETTINGS: list[dict[str, Any]] = [
    {},
    {"cwd": "/tmp"},
    {"cwd": Path("/")},
    {"umask": 0o27},
    {"env": {"A": "b", "PATH": os.environ["PATH"]}},
    {"env": {b"A": b"b"}},
    {"text": True},
    {"encoding": "ascii", "errors": "replace"},
    {"universal_newlines": True},
    {"stderr": subprocess.STDOUT},
    {"stdout": subprocess.DEVNULL},
    {"bufsize": 0},
    {"text": True, "bufsize": 1},
    {"pass_fds": (0,)},
    {"close_fds": False},
    {"pipesize": 1 << 17},
    {"extra_groups": []},
    {"executable": sys.executable},
    {"start_new_session": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_the_command_finds_what_subprocess_gives_it(settings: dict[str, Any]) -> None:
    keywords = {"stdin": sexton.PIPE, "stdout": sexton.PIPE, "stderr": sexton.PIPE} | settings
    words = [sys.executable, "-c", LOOK, "x y", "é"]
    with subprocess.Popen(words, **keywords) as process:
        theirs = _outputs(process)
    with sexton.Tree(words, **keywords) as tree:
        ours = _outputs(tree)
        assert tree.wait(DEADLINE) == process.returncode
    assert ours == theirs


def _outputs(started: Any) -> list[Any]:
    started.stdin.close()
    return [stream and stream.read() for stream in (started.stdout, started.stderr)]


def test_the_shell_and_the_program_by_another_name() -> None:
    assert sexton.run("echo $0-$1", shell=True, capture_output=True).stdout == b"/bin/sh-\n"
    assert sexton.run(["echo $0-$1", "a", "b"], shell=True, capture_output=True).stdout == b"a-b\n"
    assert sexton.run("echo $0", shell=True, executable="/bin/bash", capture_output=True).stdout == b"/bin/bash\n"
    assert sexton.run(["not me", "-c", "echo $0"], executable="/bin/sh", capture_output=True).stdout == b"not me\n"
    with pytest.raises(TypeError):
        sexton.run(Path("/bin/true"), shell=True)


def test_limits() -> None:
    words = ["sh", "-c", "ulimit -S -n; ulimit -H -n; ulimit -c"]
    limits: dict[str, int | tuple[int, int]] = {"nofile": (256, 512), "core": 0}
    assert sexton.run(words, rlimits=limits, capture_output=True).stdout == b"256\n512\n0\n"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (15, "TERM"), ("15", "TERM"), ("SIGTERM", "TERM"), ("term", "TERM"), ("CLD", "CHLD"), ("POLL", "IO"),
        ("RTMIN", "RTMIN"), ("SIGRTMIN+3", "RTMIN+3"), ("RTMAX-1", "RTMIN+29"), ("RTMAX", "RTMIN+30"), (64, "RTMIN+30"),
        (33, "33"),
    ],
)  # fmt: skip
def test_a_signal_has_one_name(said: int | str, name: str) -> None:
    assert name_of(said) == name


@pytest.mark.parametrize(("said", "number"), [("15", 15), ("usr1", 10), ("SIGRTMIN", 34), ("RTMAX-1", 63), (33, 33)])
def test_the_guard_knows_it_by_that_name(said: int | str, number: int) -> None:
    with sexton.Tree(["sleep", "1000"], stop_signal=said) as tree:
        tree.stop(30)
        assert tree.returncode == -number
    with sexton.Tree(["sleep", "1000"]) as tree:
        tree.send_signal(said)
        assert tree.wait() == -number


@pytest.mark.parametrize("said", ["", "0", "65", "99", "-1", "+1", "1.5", "NOPE", "SIG15", "TERM+1", "RTMIN-1",
                                  "RTMIN+31", "RTMAX-31", "RTMAX+1", "_SETMASK", "\u0663", 0, -1, 65])  # fmt: skip
def test_no_signal(said: int | str) -> None:
    with pytest.raises(UsageError, match="is no signal: expected a name as in `kill -l`, or a number from 1 to 64"):
        sexton.Tree(["true"], stop_signal=said)
    with sexton.Tree(["sleep", "1000"]) as tree, pytest.raises(ValueError, match="is no signal"):
        tree.send_signal(said)


def test_bad_settings_are_named() -> None:
    for settings, name in (
        ({"contain": "jail"}, "contain"),
        ({"contain": "subreaper", "require": "cgroup"}, "require"),
        ({"grace": -1}, "grace"),
        ({"stop_signal": "NOPE"}, "NOPE"),
        ({"stop_signal": "99"}, "stop_signal: '99' is no signal: expected a name as in `kill -l`, or a number from 1"),
        ({"stop_signal": 99}, "stop_signal: 99 is no signal"),
    ):
        wrong: Any = settings
        with pytest.raises(UsageError, match=name):
            sexton.Tree(["true"], **wrong)
    nonsense: Any = {"nonsense": 1}
    with pytest.raises(TypeError, match="nonsense"):
        sexton.Tree(["true"], **nonsense)
    assert issubclass(ContainmentError, SextonError)
    assert LADDER[0] == "subreaper"


@pytest.mark.parametrize("orphans", [1000, 3000])
def test_nobody_listens_until_the_guard_has_gone(orphans: int) -> None:
    """It says all that there is room for, how many lines there was none for, and how the command ended."""
    forks = f"i=0; while [ $i -lt {orphans} ]; do (: &); i=$((i+1)); done; exit 3"
    tree = sexton.Tree(["sh", "-c", forks])
    guard = Handle(tree.guard)
    guard.wait_dead()
    guard.close()
    assert tree.wait(DEADLINE) == 3
    receipt = tree.receipt
    assert receipt.empty
    assert not receipt.guard_lost
    assert len(receipt.entries) + receipt.lines_lost >= 1 + orphans
    if orphans == 1000:
        assert receipt.lines_lost == 0
