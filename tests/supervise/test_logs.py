"""Capture: real processes write, and what they wrote is in the files."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import resource
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sexton.supervise import models
from sexton.supervise.config import Log
from sexton.supervise.logs import LONGEST, Capture
from tests.supervise.houses import run
from tests.supervise.killed_capture import line
from tests.support.lines import DEADLINE

NAME = "web.0"


@asynccontextmanager
async def captured(directory: Path) -> AsyncIterator[Capture]:
    """Of that state directory; at the end it is left as for the next supervisor."""
    capture = Capture(directory, asyncio.get_running_loop())
    try:
        yield capture
    finally:
        capture.leave()


async def write(capture: Capture, script: str, log: Log | None = None, name: str = NAME) -> None:
    """Let a shell write, and take all of it."""
    out, err = capture.open(name, log or Log(), None)
    process = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=out, stderr=err)
    os.close(out)
    os.close(err)
    assert await process.wait() == 0
    capture.flush(name)


def content(directory: Path, name: str = NAME) -> bytes:
    return (directory / "logs" / f"{name}.log").read_bytes()


def all_content(directory: Path) -> bytes:
    """Of the older files too, the oldest first."""
    files = sorted((directory / "logs").iterdir(), key=lambda path: path.name == f"{NAME}.log" or -int(path.suffix[1:]))
    return b"".join(path.read_bytes() for path in files)


async def taken(fd: int) -> None:
    """Until a pipe is empty."""
    while struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4)) != (0,):  # noqa: ASYNC110 - of an empty pipe the kernel tells nobody
        await asyncio.sleep(0)


class Heard:
    """Lines, as a listener gets them."""

    def __init__(self, capture: Capture, instance: str | None = None) -> None:
        self.lines: list[models.Line] = []
        self._news = asyncio.Event()
        self.leave = capture.listen(self._take, instance)

    def _take(self, line: models.Line) -> None:
        self.lines.append(line)
        self._news.set()

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    async def until(self, count: int) -> list[str]:
        while len(self.lines) < count:
            self._news.clear()
            await self._news.wait()
        return self.texts


# --- what is in the file ---


def test_output_is_in_the_file_byte_for_byte(tmp_path: Path) -> None:
    chance = random.Random(4)
    data = bytes(chance.randrange(256) for _ in range(300_000)) + b"\n"
    (tmp_path / "data").write_bytes(data)

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, f"cat {tmp_path}/data")

    run(scenario())
    assert content(tmp_path) == data


def test_lines_of_both_streams_stay_whole(tmp_path: Path) -> None:
    script = "for n in $(seq 300); do printf out; printf err >&2; printf ' %s\n' $n; printf ' %s\n' $n >&2; done"

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, script)

    run(scenario())
    lines = content(tmp_path).decode().splitlines()
    for stream in ("out", "err"):
        assert [text for text in lines if text.startswith(stream)] == [f"{stream} {n}" for n in range(1, 301)]
    assert len(lines) == 600


def test_json_lines_say_when_who_and_where(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, r"echo 'it is \"so\"'; printf 'caf\351\n' >&2; echo", Log(format="json"))

    run(scenario())
    lines = [json.loads(text) for text in content(tmp_path).splitlines()]
    assert {(text["stream"], text["text"]) for text in lines} == {
        ("out", r"it is \"so\""),
        ("err", "caf\N{REPLACEMENT CHARACTER}"),
        ("out", ""),
    }
    assert all(text["instance"] == NAME and text["app"] == "web" and text["time"] > 1e9 for text in lines)


def test_a_line_that_is_too_long_is_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end")

    run(scenario())
    lines = content(tmp_path).split(b"\n")
    assert b"".join(lines) == b"x" * 1_000_000 + b"end"
    assert lines[-2:] == [b"end", b""]
    assert max(map(len, lines)) < 2 * LONGEST


def test_a_line_of_nearly_that_length_is_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, f"head -c {LONGEST - 1} /dev/zero | tr '\\0' x; echo; echo end")

    run(scenario())
    assert content(tmp_path) == b"x" * (LONGEST - 1) + b"\nend\n"


def test_a_pipe_full_of_little_pieces_stops_nobody(tmp_path: Path) -> None:
    """Each piece takes a page of the pipe for itself, so that it is full long before it holds 64 KiB."""
    program = "import os\nfor n in range(200): os.write(1, b'y' * 2049)\nos.write(1, b'\\n')"

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, f'{sys.executable} -c "{program}"')

    run(scenario())
    assert content(tmp_path).replace(b"\n", b"") == b"y" * 2049 * 200


# --- the beginning of a line ---


def test_a_line_without_its_end_waits_in_a_file_and_wakes_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            heard = Heard(capture)
            out, err = capture.open(NAME, Log(), None)
            os.write(out, b"who are")
            await taken(out)
            assert (tmp_path / "run" / f"{NAME}.out.part").read_bytes() == b"who are"
            assert content(tmp_path) == b""
            os.write(err, b"something else\n")
            await heard.until(1)
            os.write(out, b" you")
            await taken(out)
            os.write(out, b"?\n")
            assert await heard.until(2) == ["something else", "who are you?"]
            assert (tmp_path / "run" / f"{NAME}.out.part").read_bytes() == b""
            os.write(out, b"I am")
            capture.flush(NAME)
            assert await heard.until(3) == ["something else", "who are you?", "I am"]
            os.close(out)
            os.close(err)

    run(scenario())
    assert content(tmp_path) == b"something else\nwho are you?\nI am\n"


def test_the_next_supervisor_goes_on_within_a_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            out, err = capture.open(NAME, Log(), None)
            os.write(out, b"first\nsec")
            await taken(out)
            os.write(out, b"on")
        os.write(out, b"d\nthird\n")
        with (tmp_path / "logs" / f"{NAME}.log").open("ab") as file:
            file.write(b"thi")  # as if it had been killed while it wrote
        async with captured(tmp_path) as capture:
            heard = Heard(capture)
            capture.resume(NAME, Log())
            assert await heard.until(2) == ["second", "third"]
            capture.close(NAME)
        os.close(out)
        os.close(err)

    run(scenario())
    assert content(tmp_path) == b"first\nsecond\nthird\n"
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_line_is_lost_however_often_the_supervisor_is_killed(tmp_path: Path, form: str, seed: int) -> None:
    """It is killed before and after each of its system calls, and within them; lines come twice at the seams only."""
    rounds, count = 60, 60_000
    command = [sys.executable, "-m", "tests.supervise.killed_capture", str(tmp_path), form, str(seed)]
    command += [str(rounds), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=DEADLINE * 3, check=True)
    died = int(done.stdout)
    assert died > rounds / 2
    lines = all_content(tmp_path).splitlines()
    if form == "json":
        lines = [json.loads(text)["text"].encode() for text in lines]
    wanted = {line(stream, number)[:-1] for stream in "oe" for number in range(count)}
    assert wanted - set(lines) == set()
    # What is no line is the end of one that began before a kill, and is whole elsewhere.
    torn = [text for text in lines if text not in wanted]
    assert len(torn) <= died
    assert all(any(whole.endswith(text) for whole in wanted) for text in torn)


def test_what_a_tree_that_nobody_adopts_had_said_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            fds = capture.open(NAME, Log(), None)
            capture.flush(NAME)
        os.write(fds[0], b"my last words\n")
        async with captured(tmp_path) as capture:
            for fd in fds:
                os.close(fd)  # its guard ends
            await write(capture, "echo anew")

    run(scenario())
    assert content(tmp_path) == b"my last words\nanew\n"


# --- rotation, and a full disk ---


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_rotation(tmp_path: Path, keep: int) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            for start in range(10_000, 20_000, 1000):
                await write(capture, f"seq {start} {start + 999}", Log(max_size=10_000, keep=keep))

    run(scenario())
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    assert names == {f"{NAME}.log", *(f"{NAME}.log.{n + 1}" for n in range(keep))}
    assert all(path.stat().st_size <= 10_000 for path in (tmp_path / "logs").iterdir())
    data = all_content(tmp_path)
    assert b"".join(f"{n}\n".encode() for n in range(10_000, 20_000)).endswith(data)
    assert len(data) > keep * 9_000


def test_a_rotation_loses_no_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "seq 100000", Log(max_size=7_000, keep=1000))

    run(scenario())
    assert all_content(tmp_path) == b"".join(f"{n}\n".encode() for n in range(1, 100_001))


def test_a_rotation_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """x.2 had become x.3 when it was killed: the next time x.1 becomes x.2, and nothing is thrown away."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for number, text in ((1, b"b\n"), (3, b"a\n")):
        (logs / f"{NAME}.log.{number}").write_bytes(text)
    (logs / f"{NAME}.log").write_bytes(b"c\n")

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "echo d", Log(max_size=2, keep=3))

    run(scenario())
    assert all_content(tmp_path) == b"a\nb\nc\nd\n"


@contextmanager
def full_disk(size: int) -> Iterator[Callable[[], None]]:
    """No file of this process gets longer than that, until what it gives is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_the_disk_does_not_take_is_dropped_and_counted(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            capture.complain = lambda instance, text: said.append((instance, text))
            out, err = capture.open(NAME, Log(max_size=0), None)
            process = await asyncio.create_subprocess_exec("seq", "100000", stdout=out, stderr=err)
            with full_disk(100_001) as empty:
                assert await process.wait() == 0
                capture.flush(NAME)
                size = len(content(tmp_path))
                os.write(err, b"half" * 50)
                await taken(err)
                capture.flush(NAME)
                empty()
                os.write(out, b"again\n")
                capture.flush(NAME)
            os.close(out)
            os.close(err)
            data = content(tmp_path)
            whole = data[:size]
            assert whole == b"".join(f"{n}\n".encode() for n in range(1, whole.count(b"\n") + 1))
            assert data[size:] == b"again\n"
            assert capture.lost[NAME] == 100_000 - whole.count(b"\n") + 1

    run(scenario())
    assert [text.partition(":")[0] for _, text in said] == [
        "its output is being dropped",
        said[1][1],
    ]
    assert "lines were dropped" in said[1][1]
    assert "File too large" in said[0][1]


def test_a_directory_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "seq 50000", Log(directory=str(tmp_path / "file" / "logs")))
            assert capture.lost == {NAME: 50_000}
            assert [text.text for text in capture.tail([NAME], 2)] == ["49999", "50000"]

    run(scenario())


# --- who wants to know ---


def test_listeners_hear_what_they_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            everything, mine = Heard(capture), Heard(capture, "web.1")
            await write(capture, "echo a")
            await write(capture, "echo b >&2", name="web.1")
            assert everything.texts == ["a", "b"]
            assert mine.texts == ["b"]
            assert (mine.lines[0].stream, mine.lines[0].app) == ("err", "web")
            mine.leave()
            mine.leave()
            await write(capture, "echo c", name="web.1")
            assert everything.texts == ["a", "b", "c"]
            assert mine.texts == ["b"]

    run(scenario())


def test_tail_gives_the_last_lines_of_all_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "seq 20000")
            await write(capture, "echo hello", name="api.0")
            assert [text.text for text in capture.tail([NAME, "api.0"], 3)] == ["19999", "20000", "hello"]
            assert [text.text for text in capture.tail([NAME], 20_000)] == [str(n) for n in range(1, 20_001)]
            assert capture.tail([NAME], 0) == capture.tail(["nobody.0"], 5) == []

    run(scenario())


@pytest.mark.parametrize("form", ["text", "json"])
def test_tail_after_another_supervisor_is_from_the_files(tmp_path: Path, form: Any) -> None:
    log = Log(format=form, max_size=50_000, keep=99)

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "seq 20000", log)
        async with captured(tmp_path) as capture:
            await write(capture, "echo new", log)
            lines = capture.tail([NAME], 15_001)
            assert [text.text for text in lines] == [*(str(n) for n in range(5001, 20_001)), "new"]
            assert (lines[0].time == 0) == (form == "text")

    run(scenario())


def test_after_another_supervisor_each_instance_has_its_share(tmp_path: Path) -> None:
    names = ["api.0", "db.0", NAME]

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "seq 1 50", name="api.0")
            await write(capture, "seq 101 102", name="db.0")
            await write(capture, "seq 201 250")
        async with captured(tmp_path) as capture:

            def tail(count: int) -> list[int]:
                return [int(line.text) for line in capture.tail(names, count)]

            assert tail(10) == [*range(47, 51), 101, 102, *range(247, 251)]
            assert tail(3) == [50, 102, 250]
            assert tail(1000) == [*range(1, 51), 101, 102, *range(201, 251)]
            assert tail(0) == []
            await write(capture, "seq 301 304", name="api.0")
            assert tail(10) == [49, 50, 101, 102, 249, 250, 301, 302, 303, 304]
            assert tail(3) == [302, 303, 304]

    run(scenario())


def test_another_log_takes_effect_at_the_next_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            await write(capture, "echo one")
            await write(capture, "echo two", Log(directory=str(tmp_path / "elsewhere")))

    run(scenario())
    assert content(tmp_path) == b"one\n"
    assert (tmp_path / "elsewhere" / f"{NAME}.log").read_bytes() == b"two\n"


def test_stdout_can_be_opened_anew_by_its_user(tmp_path: Path) -> None:
    """Many images link their log file to /dev/stdout."""

    async def scenario() -> None:
        async with captured(tmp_path) as capture:
            out, err = capture.open(NAME, Log(), os.geteuid())
            assert os.fstat(out).st_uid == os.geteuid()
            assert fcntl.fcntl(out, fcntl.F_GETFL) & os.O_NONBLOCK == 0
            os.close(out)
            os.close(err)
            await write(capture, "echo again > /dev/stdout; echo error > /dev/stderr")

    run(scenario())
    assert sorted(content(tmp_path).split()) == [b"again", b"error"]
