"""The supervisor's ledger: read after anything, written when the disk is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sexton.supervise import journal as journals
from sexton.supervise import models
from sexton.supervise.journal import RESERVE, Journal


def start(journal: Journal, tree: str, instance: str = "web.0") -> None:
    journal.append(
        "start",
        tree=tree,
        instance=instance,
        app="web",
        epoch=journal.epoch,
        command=("sleep", "9"),
        policy="gentle",
        listen="/run/guard",
        ports={"http": 4000},
        started=1.5,
        settings="abc",
    )


def test_what_was_started_and_did_not_end_is_found_again(tmp_path: Path) -> None:
    first = Journal(tmp_path / "ledger")
    assert first.announce() == 1
    start(first, "a")
    start(first, "b", "web.1")
    first.append("ready", tree="b")
    first.append("exit", tree="a", instance="web.0", exit=models.Exit(time=2.0, signal="KILL", left=3))
    first.append("end", tree="a")
    second = Journal(tmp_path / "ledger")  # the first was never closed: it crashed
    assert list(second.open) == ["b"]
    assert second.open["b"] == first.open["b"]
    assert second.open["b"].ports == {"http": 4000}
    assert second.ready == {"b"}
    assert second.exits[-1].exit == models.Exit(time=2.0, signal="KILL", left=3)
    assert second.announce() == 2
    third = Journal(tmp_path / "ledger")
    assert (list(third.open), third.ready, third.epoch, third.exits) == (["b"], {"b"}, 2, second.exits)


def test_a_line_that_was_cut_off_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    journal.announce()
    start(journal, "a")
    start(journal, "b")
    journal.close()
    whole = (tmp_path / "ledger").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "ledger").write_bytes(whole[:length])
        found = Journal(tmp_path / "ledger").open
        # The JSON of a line may be whole without its newline.
        assert len(found) in {whole[:length].count(b'"start"') - 1, whole[:length].count(b'"settings":"abc"}')}


def test_garbage_between_the_lines_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    journal.announce()
    start(journal, "a")
    journal.close()
    with (tmp_path / "ledger").open("ab") as file:
        file.write(b'\xff\xfe\n{}\n[]\n7\n{"event":"start"}\n{"event":"end"}\nnull\n"x"\n' + b"\0" * 100)
    assert list(Journal(tmp_path / "ledger").open) == ["a"]


def test_another_boot_has_nothing_of_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    journal.announce()
    start(journal, "a")
    journal.close()
    text = (tmp_path / "ledger").read_text()
    (tmp_path / "ledger").write_text(text.replace(journal.boot, "another"))
    assert Journal(tmp_path / "ledger").open == {}


def test_what_was_reserved_is_given_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger")
    journal.announce()
    assert (tmp_path / "ledger").stat().st_size >= RESERVE
    journal.close()
    assert (tmp_path / "ledger").stat().st_size < 1000


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "LONG", 20_000)
    monkeypatch.setattr(journals, "RESERVE", 10_000)
    monkeypatch.setattr(journals, "KEEP_EXITS", 10)
    journal = Journal(tmp_path / "ledger")
    journal.announce()
    start(journal, "stays")
    journal.append("ready", tree="stays")
    longest = 0
    for number in range(2000):
        start(journal, str(number))
        journal.append("exit", tree=str(number), instance="web.0", exit=models.Exit(time=1.0, code=number % 256))
        journal.append("end", tree=str(number))
        longest = max(longest, (tmp_path / "ledger").stat().st_size)
    assert longest < 31_000
    found = Journal(tmp_path / "ledger")
    assert (found.open, found.ready, found.epoch) == (journal.open, {"stays"}, 1)
    assert [one.tree for one in found.exits[-10:]] == [str(number) for number in range(1990, 2000)]
    assert os.listdir(tmp_path) == ["ledger"]


def test_what_is_open_is_not_written_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "LONG", 1000)
    journal = Journal(tmp_path / "ledger")
    journal.announce()
    files = {(tmp_path / "ledger").stat().st_ino}
    for number in range(1000):
        start(journal, str(number))
        files.add((tmp_path / "ledger").stat().st_ino)
    assert len(files) < 10
    assert len(Journal(tmp_path / "ledger").open) == 1000


def test_a_line_more_in_the_old_file_is_an_epoch_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Journal(tmp_path / "ledger")
    first.announce()
    start(first, "a")
    first.close()
    with (tmp_path / "ledger").open("ab") as file:
        file.write(b'{"event":"sta')  # it died in the midst of a line
    (tmp_path / "ledger.new").mkdir()  # no new file can be written
    second = Journal(tmp_path / "ledger")
    assert second.announce() == 2
    start(second, "b", "web.1")
    third = Journal(tmp_path / "ledger")
    assert (third.epoch, list(third.open)) == (2, ["a", "b"])
    monkeypatch.setattr(journals, "boot", lambda: "another")
    fourth = Journal(tmp_path / "ledger")
    assert fourth.announce() == 3
    start(fourth, "c")
    assert list(Journal(tmp_path / "ledger").open) == ["c"]


FULL = """
import os, sys
from pathlib import Path
from sexton.supervise import journal as journals
from sexton.supervise.journal import Journal
state, journals.LONG = Path(sys.argv[1]), int(sys.argv[2])
journal = Journal(state / "ledger")
journal.announce()
with (state / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"x" * 65536)
    except OSError:
        pass
for number in range(20):
    journal.append("exit", tree=str(number), instance="web.0", exit={"time": 1.0, "code": number})
assert not journal.unwritten
written = len(Journal(state / "ledger").exits)
for number in range(20, 20000):
    journal.append("exit", tree=str(number), instance="web.0", exit={"time": 1.0, "code": number})
assert journal.unwritten
os.remove(state / "filler")
journal.append("exit", tree="last", instance="web.0", exit={"time": 1.0, "code": 7})
assert not journal.unwritten
print(written, Journal(state / "ledger").exits[-1].tree, Journal(state / "ledger").exits[-2].tree)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("long", [journals.LONG, 100_000])
def test_a_full_disk_loses_nothing(tmp_path: Path, long: int) -> None:
    script = f"mount -t tmpfs -o size=4m none {tmp_path} && exec {sys.executable} -c '{FULL}' {tmp_path} {long}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["20", "last", "19999"]
