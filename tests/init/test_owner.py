"""The owner at the other end of a socket: what it is told, what it may ask, who may be one, what its death does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lines import DEADLINE, Lines, Pipe, until
from tests.support.monsters import await_notes, double_forked, join, rest_of
from tests.support.processes import children


class Talk:
    """One end of a guard's socket."""

    def __init__(self, end: socket.socket) -> None:
        self.lines = Lines(end.detach(), "the guard's socket")

    def say(self, text: bytes) -> None:
        os.write(self.lines.fd, text)

    def next(self, *names: str) -> dict[str, Any]:
        """The next line of one of those events."""
        [*_, line] = self.lines.until(lambda text: json.loads(text)["event"] in names)
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command; its answer."""
        self.say(command.encode() + b"\n")
        return self.next("ok", "error", "status")

    def end(self) -> None:
        self.lines.close()


class Family:
    """A guard with monsters, owned through a pair of sockets."""

    def __init__(self, init: Path, monster: Path) -> None:
        self.words = [str(init)]
        self.monster = monster
        self.log = Pipe("the monsters' log")
        self.open: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, tree: tuple[str, ...] = (double_forked(), "polite"), **more: Any) -> Talk:
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), self.log.write_fd]
        words = [*self.words, "--owner-fd", str(fds[0]), *options, "--", str(self.monster), str(fds[1]), *join(*tree)]
        self.open.append(subprocess.Popen(words, pass_fds=fds, **more))
        theirs.close()
        return Talk(ours)

    def ready(self, count: int = 2) -> list[int]:
        return [note.pid for note in await_notes(self.log, "ready", count)]

    def end(self) -> set[int]:
        """Wait until all are dead; which signals they got."""
        self.log.close_writer()
        got = {note.signal for note in rest_of(self.log) if note.word == "got"}
        for each in self.open:
            each.wait(DEADLINE)
        return got


@pytest.fixture
def family(sexton_init: Path, monster: Path) -> Iterator[Family]:
    made = Family(sexton_init, monster)
    yield made
    for each in made.open:
        each.terminate()
        each.wait(DEADLINE)
    made.log.close()


def test_it_is_told_and_asks(family: Family) -> None:
    owner = family.start()
    hello = owner.next("hello")
    assert (hello["guard"], hello["pid"], hello["contain"]) == (family.open[0].pid, 0, "subreaper")
    command = owner.next("started")["pid"]
    assert command in family.ready()
    status = owner.ask("status")
    assert (status["pid"], status["phase"], status["left"], status["lease"]) == (command, "running", 2, None)
    assert owner.ask("signal USR1 tree")["event"] == "ok"
    assert len(await_notes(family.log, "got", 2)) == 2
    assert owner.ask("renew 1000")["event"] == "ok"
    assert owner.ask("status")["lease"] > 990
    owner.say(b"stop 30\n")
    assert owner.next("stopping")["why"] == "stop"
    assert owner.next("ok", "error")["event"] == "ok"
    assert owner.next("exited")["pid"] == command
    owner.next("empty")
    assert owner.lines.line() is None
    owner.end()
    assert family.end() == {signal.SIGTERM}


GARBAGE = [
    b"\n", b"nope\n", b"STATUS\n", b" status\n", b"status now\n", b"kill now\n", b"signal\n", b"signal NOPE\n",
    b"signal 0\n", b"signal 999\n", b"signal TERM everybody\n", b"signal TERM child too\n", b"stop x\n", b"stop -1\n",
    b"stop 1 2\n", b"renew\n", b"renew soon\n", b"\0\n", b"kill\0\n", b"\xff\xfe\n", b"{}\n", b"kill" * 200 + b"\n",
]  # fmt: skip


def test_garbage_gets_an_error_and_changes_nothing(family: Family) -> None:
    owner = family.start()
    family.ready()
    before = owner.ask("status")
    for line in GARBAGE:
        owner.say(line)
        error = owner.next("ok", "error", "status")
        assert error["event"] == "error", (line, error)
        assert error["why"]
        assert len(error["command"]) <= 32
    owner.say(b"sta")
    owner.say(b"tus\nstatus\n")  # a line in pieces, and two at once
    for _ in range(2):
        after = owner.next("status", "error")
        assert {**after, "time": 0} == {**before, "time": 0}
    owner.end()
    assert family.end() == {signal.SIGTERM}


@pytest.mark.parametrize("how", ["stop", "keep", "lease"])
def test_what_its_death_does(family: Family, tmp_path: Path, how: str) -> None:
    place = tmp_path / "guard"
    lease = ["--lease", "1000"] if how == "lease" else []
    owner = family.start("--on-owner-lost", how, "--listen", str(place), *lease)
    family.ready()
    owner.end()
    if how != "stop":
        second = connect(place)
        hello = second.next("hello")
        assert hello["phase"] == "running"
        assert hello["pid"]
        assert second.ask("kill")["event"] == "ok"
        assert second.next("exited")["signal"] == "KILL"
        second.next("empty")
        second.end()
    assert family.end() == ({signal.SIGTERM} if how == "stop" else set())
    assert not place.exists()


def connect(place: Path) -> Talk:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.connect(str(place))
    return Talk(end)


def test_a_lease_that_nobody_renews(family: Family) -> None:
    owner = family.start("--lease", "0.2", "--on-owner-lost", "lease")
    assert owner.next("stopping")["why"] == "lease"
    owner.end()
    family.end()


def test_who_holds_a_tree_hears_how_it_ended_until_it_is_dismissed(family: Family, tmp_path: Path) -> None:
    """One owner after the other; the first is lost before it has heard of anything."""
    place = tmp_path / "guard"
    hold = ["--on-owner-lost", "hold", "--lease", "1000", "--listen", str(place)]
    owner = family.start(*hold, tree=("exit 3",))
    assert owner.next("hello")["on_owner_lost"] == "hold"
    assert owner.ask("status")["lease"] is None
    assert "rests" in owner.ask("renew 9")["why"]
    owner.end()
    family.log.close_writer()
    family.log.rest()  # until COMMAND has ended
    for _ in range(2):
        next_owner = connect(place)
        next_owner.next("hello")
        assert next_owner.next("exited")["code"] == 3
        status = next_owner.ask("status")
        assert (status["phase"], status["lease"]) == ("empty", None)
        next_owner.end()
    last = connect(place)
    assert last.ask("stop")["event"] == "ok"
    assert last.lines.line() is None
    last.end()
    assert not place.exists()


def test_nobody_comes_to_hear_how_it_ended(family: Family, tmp_path: Path) -> None:
    """The lease begins when the owner is lost."""
    owner = family.start("--on-owner-lost", "hold", "--lease", "0.2", "--listen", str(tmp_path / "guard"))
    family.ready()
    owner.end()
    assert family.end() == {signal.SIGTERM}


def test_one_owner_at_a_time(family: Family, tmp_path: Path) -> None:
    place = tmp_path / "guard"
    owner = family.start("--listen", str(place))
    family.ready()
    other = connect(place)
    assert "owned" in other.next("error", "hello")["why"]
    assert other.lines.line() is None
    other.end()
    assert owner.ask("status")["left"] == 2
    owner.end()
    family.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_user_is_no_owner(anyones_init: Path) -> None:
    os.seteuid(65534)
    try:
        ours, theirs = socket.socketpair()  # whose other end is, for the kernel, that user's
    finally:
        os.seteuid(0)
    with ours, theirs:
        words = [str(anyones_init), "--owner-fd", str(theirs.fileno()), "true"]
        done = subprocess.run(words, pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "this user's" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_root_is_another_user_too(anyones_init: Path, public: Path) -> None:
    folder = public / "of-nobody"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    words = [str(anyones_init), "--listen", str(folder / "guard"), "--events", "1", "sleep", "1000"]
    with subprocess.Popen(words, user=65534, group=65534, stdout=subprocess.PIPE, cwd="/") as guard:
        assert guard.stdout
        guard.stdout.readline()  # it has started: it listens
        stranger = connect(folder / "guard")
        assert "another user" in stranger.next("error", "hello")["why"]
        stranger.end()
        assert (folder / "guard").stat().st_mode & 0o777 == 0o600
        guard.terminate()
        guard.stdout.read()
    folder.rmdir()


def test_told_late(family: Family) -> None:
    """Of the start only with an answer; of the end at once."""
    owner = family.start("--late")
    family.ready()
    owner.say(b"status\n")
    said = [json.loads(line)["event"] for line in owner.lines.until(lambda text: '"event":"status"' in text)]
    assert said == ["hello", "started", "status"]
    owner.ask("stop")
    assert [json.loads(line)["event"] for line in owner.lines.rest()][-1] == "empty"
    owner.end()
    family.end()


def environment(words: list[str], **more: str) -> dict[str, str]:
    done = subprocess.run([*words, "env"], env={**os.environ, **more}, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("SEXTON_"))


def test_a_mark_is_passed_on_and_the_options_of_others_are_not_obeyed(sexton_init: Path) -> None:
    init = str(sexton_init)
    assert environment([init, "--mark", "one"], SEXTON_PAUSE="1", SEXTON_TREE="zero") == {"SEXTON_TREE": "one"}
    assert environment([init, "--mark=one"], SEXTON_PAUSE="1", SEXTON_TREE="zero") == {"SEXTON_TREE": "one"}
    assert environment([init], SEXTON_TREE="outer") == {"SEXTON_TREE": "outer"}
    assert environment([init, "--mark", "outer", init]) == {"SEXTON_TREE": "outer"}
    assert environment([init, "--mark", "outer", init, "--grace", "1", "--mark", "inner"]) == {"SEXTON_TREE": "inner"}
    for mark in ("", "x" * 65, "../x"):
        done = subprocess.run([init, "--mark", mark, "true"], capture_output=True, text=True, check=False)
        assert (done.returncode, "1 to 64 bytes" in done.stderr) == (125, True)


@pytest.mark.parametrize(
    ("options", "step", "word"),
    [
        (["--grace", "x"], "options", "grace"),
        (["--user", "no-such-user"], "options", "user"),
        (["--on-owner-lost", "lease"], "options", "--lease"),
        (["--on-owner-lost", "hold", "--listen", "/tmp/no-such-guard"], "options", "--lease"),
        (["--on-owner-lost", "hold", "--lease", "5"], "options", "--listen"),
    ],
)
def test_why_nothing_was_started(family: Family, options: list[str], step: str, word: str) -> None:
    owner = family.start(*options)
    failed = owner.next("failed", "started")
    assert failed["step"] == step
    assert word in failed["text"]
    assert owner.lines.line() is None
    owner.end()
    assert family.open[0].wait(DEADLINE) == 125


def test_what_cannot_be_executed(family: Family) -> None:
    family.monster = Path("/no/such/program")
    owner = family.start()
    failed = owner.next("failed", "started")
    assert (failed["step"], failed["errno"]) == ("exec", 2)
    owner.end()
    assert family.open[0].wait(DEADLINE) == 127


def test_an_owner_at_standard_input(sexton_init: Path) -> None:
    ours, theirs = socket.socketpair()
    words = [str(sexton_init), "--owner-fd", "0", "sleep", "1000"]
    with subprocess.Popen(words, stdin=theirs.fileno()) as guard:
        theirs.close()
        owner = Talk(ours)
        owner.next("started")
        assert owner.ask("kill")["event"] == "ok"
        assert owner.next("exited")["signal"] == "KILL"
        owner.next("empty")
        owner.end()
        assert guard.wait(DEADLINE) == 137


def test_a_message_that_escapes_make_too_long_is_json(family: Family) -> None:
    owner = family.start("--grace", "\1" * 1400)
    failed = owner.next("failed")
    assert failed["step"] == "options"
    assert "\1\1\1" in failed["text"]
    assert owner.lines.line() is None
    owner.end()


def test_the_usage_of_who_ended_before_there_was_an_owner(sexton_init: Path, family: Family, tmp_path: Path) -> None:
    place = tmp_path / "guard"
    fd = family.log.write_fd
    options = ["--listen", str(place), "--on-owner-lost", "hold", "--lease", "1000"]
    words = [str(sexton_init), *options, "--", str(family.monster), str(fd), "exit", "3"]
    family.open.append(subprocess.Popen(words, pass_fds=[fd]))
    family.log.close_writer()
    family.log.rest()  # until COMMAND has ended
    until(lambda: not children(family.open[0].pid), "COMMAND is buried")
    owner = connect(place)
    assert owner.next("exited")["rusage"]["maxrss"] > 0
    assert owner.ask("stop")["event"] == "ok"
    assert owner.lines.line() is None
    owner.end()
