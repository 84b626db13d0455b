"""`sexton logs`, and the lines that `sexton up` prints: as a user sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from sexton.cli._lines import ROOM, Prefixes, Printer
from sexton.cli._table import Screen
from sexton.supervise import models
from tests.supervise.homes import SEXTON, sexton
from tests.support.lines import DEADLINE, Lines, until
from tests.support.terminal import Terminal

FILE = """
state = "state"
[apps.web]
command = "echo hello $SEXTON_INSTANCE; echo error >&2; exec sleep 1000"
shell = true
instances = 2
[apps.api]
command = "echo 'I am the api'; exec sleep 1000"
shell = true
ready = { log = "I am" }
[apps.api.log]
format = "json"
"""


def say(text: str, instance: str = "web.0", stream: str = "out", at: float = 1.0) -> models.Line:
    app = instance.rpartition(".")[0]
    return models.Line(time=at, app=app, instance=instance, stream="err" if stream == "err" else "out", text=text)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "sexton.toml").write_text(FILE)
    yield tmp_path
    sexton(tmp_path, "down")


@contextlib.contextmanager
def started(here: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Lines]]:
    """A command that stays, and its output; killed at the end."""
    reader, writer = os.pipe()
    process = subprocess.Popen([SEXTON, *words], cwd=here, stdout=writer, stderr=writer)
    os.close(writer)
    lines = Lines(reader, " ".join(words))
    try:
        yield process, lines
    finally:
        process.kill()
        process.wait(DEADLINE)
        lines.close()


def lines_of(*names: str) -> list[str]:
    everything = {
        "api.0": ["I am the api"],
        "web.0": ["hello 0", "error"],
        "web.1": ["hello 1", "error"],
    }
    return sorted(f"{name} | {text}" for name in names for text in everything[name])


# --- sexton logs ---


def test_logs_of_a_supervisor_and_without_one(here: Path) -> None:
    assert sexton(here, "up", "-d").returncode == 0
    with started(here, "logs", "-f", "web") as (_, lines):
        seen = [lines.line() for _ in range(4)]
        assert sorted(map(str, seen)) == lines_of("web.0", "web.1")
        assert sexton(here, "restart", "web.0").returncode == 0
        assert sorted(map(str, [lines.line(), lines.line()])) == lines_of("web.0")
    done = sexton(here, "logs", "-n", "1000", "api", "web.1")
    assert sorted(done.stdout.splitlines()) == lines_of("api.0", "web.1")
    assert sexton(here, "logs", "nobody").returncode == 2
    assert sexton(here, "down").returncode == 0
    done = sexton(here, "logs")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted([*lines_of("api.0", "web.0", "web.1"), *lines_of("web.0")])
    assert sexton(here, "logs", "-n", "0").stdout == ""
    (line,) = map(json.loads, sexton(here, "logs", "--json", "api.0").stdout.splitlines())
    assert (line["instance"], line["text"], line["stream"]) == ("api.0", "I am the api", "out")
    done = sexton(here, "logs", "-f", "api")
    assert (done.returncode, done.stdout) == (3, "api.0 | I am the api\n")
    done = sexton(here, "logs", "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'nobody': expected an app, an instance or all: web, api" in done.stderr


def test_when_it_was_written(here: Path) -> None:
    began = time.time()
    assert sexton(here, "up", "-d").returncode == 0
    with started(here, "logs", "-t", "-f", "web.0") as (_, lines):
        seen = [str(lines.line()) for _ in range(2)]
    done = sexton(here, "logs", "--timestamps", "api", "web.1")
    assert (done.returncode, done.stderr) == (0, "")
    ended = time.time()
    seen += done.stdout.splitlines()
    assert len(seen) == 5
    for line in seen:
        found = re.fullmatch(r"(?:web|api)\.\d \| (\S+) (?:hello \d|error|I am the api)", line)
        assert found, line
        assert int(began) <= datetime.fromisoformat(found[1]).timestamp() <= ended


def test_a_text_file_does_not_say_when_it_was_written(here: Path) -> None:
    assert sexton(here, "up", "-d").returncode == 0
    assert sexton(here, "down").returncode == 0
    done = sexton(here, "logs", "-t", "web.0")
    shown = sorted(" ".join(line.split()) for line in done.stdout.splitlines())
    assert shown == ["web.0 | - error", "web.0 | - hello 0"]
    assert done.stderr.startswith("sexton: -: a text file does not say when a line was written; ")
    assert done.stderr.count("\n") == 1
    done = sexton(here, "logs", "-n", "1")  # which line came last nobody knows
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["web.0", "web.1", "api.0"]
    done = sexton(here, "logs", "-t", "api")
    assert re.fullmatch(r"api\.0 \| \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d I am the api\n", done.stdout)
    assert done.stderr == ""


def test_that_nothing_was_written_is_said(here: Path) -> None:
    done = sexton(here, "logs")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing is in the log files, and no supervisor of sexton.toml listens at" in done.stderr


def test_up_prints_what_they_write(here: Path) -> None:
    with started(here, "up") as (process, lines):
        seen: list[str] = []
        while len(seen) < 5:
            line = str(lines.line())
            if not line.startswith("sexton | "):  # what happens to them
                seen.append(line)
        assert sorted(" ".join(line.split()) for line in seen) == lines_of("api.0", "web.0", "web.1")
        process.terminate()
        while lines.line() is not None:
            pass
        assert process.wait(DEADLINE) == 0


def test_up_on_a_terminal_that_is_stopped_goes_on(here: Path) -> None:
    """Ctrl-S stops who looks, and nothing else."""
    (here / "sexton.toml").write_text(
        FILE + "[apps.loud]\ncommand = 'seq 100000; touch done; exec sleep 1000'\nshell = true\n"
    )
    with Terminal(["sh", "-c", f"cd {here} && stty ixon -echo && echo now && exec {SEXTON} up"]) as terminal:
        terminal.expect("now")
        terminal.keys("\x13")
        # All that it wrote is taken, though nothing of it is shown.
        until(lambda: sexton(here, "logs", "-n", "1", "loud").stdout == "loud.0 | 100000\n", "the last line")
        terminal.keys("\x11")
        terminal.expect("^loud.0 . 100000\r$")
        assert sexton(here, "down").returncode == 0
        assert terminal.wait() == 0


# --- lines ---


def test_names_are_aligned_and_colored() -> None:
    plain = Prefixes(["web.0", "worker.10"], Screen(80, color=False))
    assert plain.line(say("hello\r")) == "web.0     | hello\n"
    assert plain.line(say("a", "longer.name.3")) == "longer.name.3 | a\n"
    assert plain.line(say("b")) == "web.0         | b\n"
    timed = Prefixes(["web.0"], Screen(80, color=False), timestamps=True)
    known, unknown = timed.line(say("x")), timed.line(say("x", at=0.0))
    assert (len(known), known[-2:]) == (len(unknown), "x\n")
    assert unknown.split() == ["web.0", "|", "-", "x"]
    color = Prefixes(["web.0", "api.0"], Screen(80, color=True))
    assert color.line(say("x")) == "\x1b[36mweb.0\x1b[0m \x1b[36m|\x1b[0m x\n"
    assert color.line(say("x", "api.0")) == "\x1b[33mapi.0\x1b[0m \x1b[33m|\x1b[0m x\n"
    assert color.line(say("x", stream="err")) == "\x1b[36mweb.0\x1b[0m \x1b[31m|\x1b[0m x\n"


def test_a_reader_that_is_slow_misses_lines_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        reader, writer = os.pipe()
        with os.fdopen(writer, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr("sys.stdout", stdout)
            printer = Printer(["web.0"])
            text = "x" * 10_000
            for _ in range(ROOM // len(text) + 100):
                printer.show(say(text))
                await asyncio.sleep(0)  # nobody reads, and nobody waits
            os.set_blocking(reader, False)
            seen = bytearray()
            async with asyncio.timeout(DEADLINE):
                while not seen.endswith(b"web.0 | late\n"):
                    with contextlib.suppress(BlockingIOError):
                        seen += os.read(reader, 1 << 16)
                    await asyncio.sleep(0)
                    if len(seen) > ROOM // 2 and b"late" not in seen and not said:
                        printer.show(say("late"))
                        said.append(True)
            printer.close()
            os.close(reader)
        *whole, missing, late = seen.decode().splitlines()
        assert set(whole) == {f"web.0 | {text}"}
        assert missing == f"sexton | {ROOM // len(text) + 100 - len(whole)} lines are missing here"
        assert late == "web.0 | late"

    said: list[bool] = []
    asyncio.run(scenario())


def test_a_reader_that_has_gone_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        reader, writer = os.pipe()
        with os.fdopen(writer, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr("sys.stdout", stdout)
            printer = Printer(["web.0"])
            os.close(reader)
            for _ in range(3):
                printer.show(say("hello"))
                await asyncio.sleep(0)
            printer.close()

    asyncio.run(scenario())
