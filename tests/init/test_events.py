"""--events: one JSON object a line, in an order that tells the story, to a descriptor or a path; it never blocks."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.init.family import BESIDE, PID1, Mode, Starter
from tests.support.lines import Lines, Pipe, events, until
from tests.support.monsters import join
from tests.support.processes import children

KEYS: dict[str, set[str]] = {
    "started": {"pid", "comm"},
    "signalled": {"signal", "pid", "scope"},
    "reaped": {"pid", "comm", "adopted"},
    "stopping": {"why", "left"},
    "killed": {"pid", "comm"},
    "exited": {"pid", "rusage"},
    "empty": set(),
    "lost": {"count"},
}


def check(event: dict[str, Any]) -> None:
    """The schema: "event" first, the keys of its kind, a time in seconds, one of code and signal where it ended."""
    kind = event["event"]
    keys = set(event) - {"event", "time"}
    if kind in ("reaped", "exited"):
        assert len(keys & {"code", "signal"}) == 1
        keys -= {"code", "signal"}
    if event.get("scope") == "stop":  # to one of many, whose name is told with it
        keys -= {"comm"}
    assert keys == KEYS[kind]
    if kind != "lost":
        assert isinstance(event["time"], float)
    for key in ("pid", "code", "left", "count"):
        assert isinstance(event.get(key, 0), int)
    for key in ("comm", "why", "scope", "signal"):
        assert isinstance(event.get(key, ""), str)
    assert isinstance(event.get("adopted", True), bool)


def test_a_life_in_events(start: Starter, placed: Mode) -> None:
    before = time.time()
    statements = ["as son fork stubborn", "as away daemon polite", "await 2", "as main polite"]
    family = start(placed, "--grace 1", *statements)
    pids = {note.label: note.pid for note in family.await_note("ready", 3)}
    family.send(signal.SIGUSR1)
    family.await_note("got", 2)
    family.send(signal.SIGTERM)
    end = family.end()
    for event in end.events:
        check(event)
    assert [event["event"] for event in end.events if event["event"] not in ("reaped", "killed")] == [
        "started",
        "signalled",
        "signalled",
        "exited",
        "stopping",
        "signalled",
        "empty",
    ]
    started, exited = end.of("started")[0], end.of("exited")[0]
    assert (started["pid"], started["comm"]) == (pids["main"], "monster")
    assert [(e["signal"], e["pid"], e["scope"]) for e in end.of("signalled")] == [
        ("USR1", pids["main"], "group"),
        ("TERM", pids["main"], "group"),
        ("TERM", pids["away"], "stop"),
    ]
    reaped = {event["pid"]: event for event in end.of("reaped")}
    assert reaped[pids["main"]]["adopted"] is False
    assert reaped[pids["main"]]["code"] == 0
    assert reaped[pids["son"]]["adopted"] is True
    assert reaped[pids["son"]]["signal"] == "KILL"
    assert reaped[pids["away"]]["code"] == 0
    assert [event["pid"] for event in end.of("killed")] == [pids["son"]]
    assert (exited["pid"], exited["code"]) == (pids["main"], 0)
    times = [event["time"] for event in end.events]
    assert times == sorted(times)
    assert before - 1 <= times[0] <= times[-1] <= time.time() + 1


def test_a_process_is_reaped_before_its_command_has_exited(start: Starter) -> None:
    """reaped then exited for COMMAND; killed before reaped for whom we kill."""
    end = start(PID1, "--grace 0", "daemon stubborn", "await 1", "exit 3").end()
    kinds = [(event["event"], event.get("pid")) for event in end.events]
    command = end.of("started")[0]["pid"]
    daemon = end.of("killed")[0]["pid"]
    assert kinds.index(("reaped", command)) < kinds.index(("exited", command))
    assert kinds.index(("killed", daemon)) < kinds.index(("reaped", daemon))


@pytest.mark.parametrize(
    ("statement", "key", "value"), [("exit 7", "code", 7), ("die 9", "signal", "KILL"), ("die 37", "signal", "RTMIN+3")]
)
def test_how_the_command_ended(start: Starter, mode: Mode, statement: str, key: str, value: object) -> None:
    end = start(mode, "", statement).end()
    for event in end.of("exited") + end.of("reaped"):
        check(event)
        assert event[key] == value


def test_rusage_is_the_commands(start: Starter) -> None:
    """Seconds of user and system time, bytes of memory: with those of the children that it waited for."""
    family = start(PID1, "", command=["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
    usage = family.end().of("exited")[0]["rusage"]
    assert set(usage) == {"utime", "stime", "maxrss"}
    assert 0 < usage["utime"] < 20
    assert 0 <= usage["stime"] < 20
    assert 100_000 < usage["maxrss"] < 100_000_000


NAMES = ['q"uote', "back\\slash", "a b) S 1", "new\nline", "tab\t", "\x7f\x01", "gr\u00fc\u00df", "x" * 30]


@pytest.mark.parametrize("name", NAMES, ids=map(repr, NAMES))
def test_names_are_json_whatever_they_contain(start: Starter, name: str, public: os.PathLike[str]) -> None:
    program = os.path.join(public, name)
    if not os.path.exists(program):
        os.symlink(start.monster, program)
    family = start(PID1, "", command=[program, "2", *join("fork fork exit 0", "wait", "exit 0")])
    end = family.end()
    expected = name.encode()[:15].decode(errors="replace")
    assert end.of("started")[0]["comm"] == expected
    assert {event["comm"] for event in end.of("reaped")} == {expected}


def test_a_name_that_is_no_utf8(start: Starter, public: os.PathLike[str]) -> None:
    program = os.path.join(os.fsencode(public), b"b\xffd\xc3")
    if not os.path.exists(program):
        os.symlink(start.monster, program)
    end = start(PID1, "", command=[os.fsdecode(program), "2", "exit", "0"]).end()
    assert end.of("exited")[0]["code"] == 0
    assert {event["comm"] for event in end.of("reaped")} == {"b\ufffdd\ufffd"}


@pytest.mark.parametrize("refused", [False, True], ids=["", "seccomp"])
def test_events_to_a_file(start: Starter, tmp_path: os.PathLike[str], refused: bool) -> None:
    """With a strict seccomp, too, it is known as a file: what takes every line, if not at once."""
    path = os.path.join(tmp_path, "events")
    before = [str(start.monster), "2", *join("deny 1", "exec")] if refused else []
    for _ in range(2):
        assert start.plain("--events", path, "sh", "-c", "exit 3", before=before).wait().code == 3
    with open(path, encoding="utf-8") as file:
        found = events(file.read().splitlines())
    assert [event["event"] for event in found] == ["started", "reaped", "exited", "empty"] * 2, (
        "appended, not overwritten"
    )
    for event in found:
        check(event)


def test_events_to_a_fifo_nobody_has_opened_yet(start: Starter, tmp_path: os.PathLike[str]) -> None:
    """Opening must not wait for a reader; one that comes later gets what the FIFO still holds."""
    path = os.path.join(tmp_path, "fifo")
    os.mkfifo(path)
    running = start.plain("--events", path, "sh", "-c", "read line; exit 3", stdin=-1)
    reader = Lines(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "the FIFO")
    try:
        assert events([str(reader.line())])[0]["event"] == "started"
        running.tell()
        assert running.wait().code == 3
        assert [event["event"] for event in events(reader.rest())] == ["reaped", "exited", "empty"]
    finally:
        reader.close()


def test_events_to_standard_input_and_output(start: Starter) -> None:
    """Odd, but they are descriptors like others, and COMMAND keeps them."""
    result = start.plain("--events", "1", "sh", "-c", "echo out; exit 3").wait()
    lines = result.out.splitlines()
    assert "out" in lines
    lines.remove("out")
    assert [event["event"] for event in events(lines)] == ["started", "reaped", "exited", "empty"]
    pipe = Pipe("stdin")
    try:
        running = start.plain("--events", "0", "sh", "-c", "echo in >&0; exit 3", stdin=pipe.write_fd)
        assert running.wait().code == 3
        pipe.close_writer()
        lines = pipe.rest()
        lines.remove("in")
        assert [event["event"] for event in events(lines)] == ["started", "reaped", "exited", "empty"]
    finally:
        pipe.close()


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full"])
def test_events_to_a_device(start: Starter, path: str) -> None:
    assert start.plain("--events", path, "sh", "-c", "exit 3").wait().code == 3


@pytest.mark.parametrize("where", ["2", "/dev/stderr", "/proc/self/fd/2"])
def test_events_to_stderr(start: Starter, where: str) -> None:
    result = start.plain("--events", where, "sh", "-c", "exit 3").wait()
    assert [event["event"] for event in events(result.err.splitlines())] == ["started", "reaped", "exited", "empty"]


def test_a_full_pipe_loses_events_counts_them_and_blocks_nothing(start: Starter, placed: Mode) -> None:
    """Nobody reads until all is over: COMMAND's status comes all the same, and the lost are counted."""
    family = start(placed, "--on-exit wait", "times 3000 fork fork exit 0", "wait", "as main hold", "exit 3", stdin=-1)
    shrink(family.stream)
    family.run.tell()
    end = family.end()
    assert end.code == 3
    for event in end.events:
        check(event)
    assert len(end.of("reaped")) < 3001


def shrink(pipe: Pipe) -> None:
    """To one page: as small as a pipe can be."""
    import fcntl

    fcntl.fcntl(pipe.fd, fcntl.F_SETPIPE_SZ, 4096)


def test_the_lost_are_counted_once_there_is_room_again(start: Starter) -> None:
    family = start(BESIDE, "--grace 0", "hold", "times 400 fork fork exit 0", "wait", "say done", "polite", stdin=-1)
    shrink(family.stream)
    family.run.tell()
    family.await_note("done")
    family.await_note("ready")
    init = family.run.init.pid
    until(lambda: len(children(init)) == 1, "all orphans are buried, so that there is room afterwards")
    family.send(signal.SIGUSR1)
    family.await_note("got")
    early = family.stream.until(lambda line: '"reaped"' in line, 20)
    family.send(signal.SIGUSR2)
    family.await_note("got")
    family.send(signal.SIGTERM)
    end = family.end()
    assert early
    lost = sum(event["count"] for event in end.of("lost"))
    assert lost > 0
    known = [event for event in end.events if event["event"] != "lost"]
    whole = 1 + 401 + 3 + 1 + 1
    assert len(known) + lost == whole, "started, 401 reaped, 3 signalled, exited, empty: told or counted"
    assert end.code == 0


def test_a_reader_that_goes_away_kills_nothing(start: Starter, placed: Mode) -> None:
    """EPIPE, and no SIGPIPE: neither ours nor forwarded to COMMAND."""
    family = start(placed, "--grace 0", "stubborn")
    family.await_note("ready")
    family.stream.close()
    for sig in (signal.SIGUSR1, signal.SIGUSR2):
        family.send(sig)
        assert family.await_note("got")[0].signal == sig
    family.run.command.send(signal.SIGKILL)
    result = family.run.wait()
    assert result.code == 137


def test_events_to_a_socket(start: Starter) -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        running = start.plain("--events", str(theirs.fileno()), "sh", "-c", "exit 3", fds=[theirs.fileno()])
        assert running.wait().code == 3
        theirs.close()
        text = b"".join(iter(lambda: ours.recv(1 << 16), b""))
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["started", "reaped", "exited", "empty"]


def test_events_go_on_below_a_guard(start: Starter) -> None:
    """A guard under a guard: SEXTON_EVENTS is not inherited, so the lower one does not write into the upper's."""
    end = start(PID1, "", command=[start.init, "sh", "-c", "exit 3"], env={"SEXTON_VERBOSE": "0"}).end()
    assert end.code == 3
    assert len(end.of("started")) == 1
