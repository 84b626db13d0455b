"""`sexton ps` and `sexton tree` as a person and a program call them, and the tables they draw."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sexton.cli._table import Column, Screen, cut, size, span, table, wide
from tests.doctor.scene import INIT, SEXTON, SOURCE, Scene
from tests.support.lines import DEADLINE

FAMILY = """
os.waitpid(child(lambda: child(lambda: (os.setsid(), child(lambda: sleeper("orphan")), os._exit(0)))), 0)
for _ in range(5): child(lambda: sleeper("dead"))
named("culprit"); say("ready"); hear()
"""


def sexton(*words: str, code: int = 0) -> str:
    """What a command prints when its output is a pipe."""
    argv = [sys.executable, "-I", "-c", SEXTON, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


def on_terminal(columns: int, *words: str, **environment: str) -> str:
    """What it prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "NO_COLOR"}}
    env = {**clean, "TERM": "xterm", **environment}
    argv = [sys.executable, "-I", "-c", SEXTON, *words]
    with subprocess.Popen(argv, stdout=theirs, stdin=subprocess.DEVNULL, env=env):
        os.close(theirs)
        data = b""
        try:
            while more := os.read(ours, 1 << 16):
                data += more
        except OSError:  # EIO: the last one that had it open is gone
            pass
    os.close(ours)
    return data.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def scene() -> Any:
    """A culprit with five zombies, and an orphan, in a session whose leader has ended."""
    with Scene(FAMILY, *INIT) as made:
        made.expect("ready")
        made.until(lambda _: len(made.named("dead")) == 5 and made.named("orphan"))
        made.kill("dead")
        yield made


def test_ps_names_zombies_culprits_and_orphans(scene: Scene) -> None:
    text = sexton("ps", "--pid", scene.first)
    (culprit,) = scene.named("culprit")
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "culprit of 5 zombies" in lines[str(culprit.pid)]
    assert lines[str(scene.named("orphan")[0].pid)].endswith("orphan")
    assert lines[str(scene.named("dead")[0].pid)].endswith(f"zombie of {culprit.name}")
    assert text.splitlines()[-1] == "8 processes; R 0 S 3 D 0 Z 5 T 0 I 0; 1 living orphan"
    assert "\x1b" not in text


def test_ps_filters(scene: Scene) -> None:
    zombies = sexton("ps", "--pid", scene.first, "--zombies").splitlines()[1:-1]
    assert len(zombies) == 5
    for words in (("-p", scene.first), (scene.first,)):
        assert sexton("ps", *words, "--zombies").splitlines()[1:-1] == zombies
    (orphan,) = sexton("ps", "--pid", scene.first, "--orphans").splitlines()[1:-1]
    assert orphan.split()[0] == str(scene.named("orphan")[0].pid)
    assert "no container or pod is called 'x'" in sexton("ps", "--container", "x", code=2)
    assert "no process 999999999" in sexton("ps", "--pid", "999999999", code=2)


def test_ps_columns(scene: Scene) -> None:
    from sexton.cli.ps import CELLS

    text = sexton("ps", "--pid", scene.first, "--columns", ",".join(CELLS))
    assert text.splitlines()[0].split() == [cell.column.title for cell in CELLS.values()]
    nspids = sexton("ps", "--pid", scene.first, "--columns", "pid, nspid").splitlines()[1].split()
    assert nspids == [scene.first, scene.first, "1"]
    assert "'nonsense' is no column; there are pid, ppid" in sexton("ps", "--columns", "nonsense", code=2)


def test_ps_json(scene: Scene) -> None:
    found = json.loads(sexton("ps", "--json", "--pid", scene.first))
    assert found["schema"] == 1
    assert found["states"] == {"R": 0, "S": 3, "D": 0, "Z": 5, "T": 0, "I": 0}
    by_name = {process["name"]: process for process in found["processes"]}
    assert by_name["culprit"]["zombies"] == 5
    assert by_name["dead"]["culprit"] == by_name["culprit"]["pid"]
    assert "session" in by_name["orphan"]["orphan"] or "init" in by_name["orphan"]["orphan"]
    page = (Path(__file__).parent.parent.parent / "man" / "sexton-ps.1").read_text()
    assert all(f"\n.It Cm {key}\n" in page for key in (*found, *by_name["dead"]))


def test_tree_draws_the_family(scene: Scene) -> None:
    lines = sexton("tree", scene.first).splitlines()
    (culprit,), (orphan,) = scene.named("culprit"), scene.named("orphan")
    assert lines[0].startswith(f"tini[{scene.first}]")
    assert f"├─ {culprit.name}" in lines[1] or f"└─ {culprit.name}" in lines[1]
    assert sum("dead" in line for line in lines) == 1
    assert any("(5 alike)" in line and "zombie" in line for line in lines)
    assert any(orphan.name in line and line.endswith("orphan") for line in lines)
    assert lines[-1].startswith("8 processes, 3 levels deep, ")


def test_tree_json(scene: Scene) -> None:
    found = json.loads(sexton("tree", "--json", scene.first))
    assert (found["schema"], found["size"], found["depth"]) == (1, 8, 3)
    (root,) = found["roots"]
    assert root["name"] == "tini"
    names = sorted(child["name"] for child in root["children"])
    assert names == ["culprit", "orphan"]


def test_tree_of_what_is_not_there() -> None:
    assert "no process 9999999" in sexton("tree", "9999999", code=2)
    assert "no container or pod is called 'feed'" in sexton("tree", "feed", code=2)


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("command", ["ps", "tree"])
def test_it_fits_the_terminal(scene: Scene, columns: int, command: str) -> None:
    words = ("ps", "--pid", scene.first) if command == "ps" else ("tree", scene.first)
    text = on_terminal(columns, *words, NO_COLOR="1")
    assert max(map(wide, text.splitlines())) <= columns
    assert "\x1b" not in text


def test_colour_only_on_a_terminal_and_not_against_ones_will(scene: Scene) -> None:
    words = ("ps", "--pid", scene.first)
    assert "\x1b[31m" in on_terminal(80, *words)
    assert "\x1b" not in on_terminal(80, *words, NO_COLOR="1")
    assert "\x1b" not in on_terminal(80, *words, TERM="dumb")
    assert "\x1b[31m" in on_terminal(80, *words, NO_COLOR="")


def test_ps_does_not_import_what_is_slow() -> None:
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); import sexton.cli._group, sexton.cli.ps; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert not {"rich", "json", "asyncio", "ctypes", "sexton.doctor.rules", "pwd"} & set(done.stdout.split())


@given(st.text().map(lambda text: "".join(filter(str.isprintable, text))), st.integers(0, 50))
def test_what_is_cut_fits(text: str, width: int) -> None:
    assert wide(cut(text, width)) <= width
    if wide(text) <= width:
        assert cut(text, width) == text


@given(
    st.lists(st.tuples(st.text("abc漢", max_size=40), st.text("xyz", max_size=90)), max_size=5), st.integers(20, 120)
)
def test_tables_are_aligned_and_fit(rows: list[tuple[str, str]], width: int) -> None:
    columns = [Column("A", elastic=True), Column("B", elastic=True), Column("N", right=True)]
    lines = list(table(columns, [((a, b, "1"), ()) for a, b in rows], Screen(width, color=False)))
    assert len(lines) == len(rows) + 1
    assert max(map(wide, lines)) <= width
    if rows and width >= 8 + 2 + 8 + 2 + 1:
        assert {line[-1] for line in lines} <= {"N", "1"}


def test_sizes_and_spans() -> None:
    assert [size(n) for n in (0, 1023, 1536, 200 << 20, 1 << 50)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "200 MiB",
        "1024.0 TiB",
    ]
    assert [span(s) for s in (0, 59.9, 61, 3700, 90000)] == ["0s", "59s", "1m", "1h01m", "1d"]
