"""`python -m bench.supervise`: its helpers, and that every row is measured. No figure is asserted, no peer needed."""

from __future__ import annotations

import configparser
import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.init.programs import CannotMeasure, Program
from bench.supervise import measures, peers, running

CHECKOUT = Path(__file__).parents[2]
ROWS = {"restart": ["restart"], "up": ["up"], "crowd": ["idle", "resident", "memory", "status"], "logs": ["logs"]}
APPS = {"app000": ("/bin/app", "/tmp/fifo"), "app001": ("/bin/app", "/tmp/fifo", "100")}


def bench(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.supervise", "--quick", *options]
    env = os.environ | environment
    return subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=110, check=False)


def made(kind: type[peers.Supervisor], monkeypatch: pytest.MonkeyPatch) -> peers.Supervisor:
    """One of that kind, installed or not."""
    monkeypatch.setattr(kind, "find", lambda _: Program(kind.name, Path("/x"), ("/x",)))
    return kind()


def test_every_row_is_measured() -> None:
    done = bench("--of", "sexton", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["key"] for row in rows] == [key for keys in ROWS.values() for key in keys]
    for row in rows:
        assert list(row["figures"]) == ["sexton"]
        assert row["figures"]["sexton"]["value"] > 0 or row["key"] in {"restart", "idle"}
        assert (row["ok"] is None) == (row["key"] in {"up", "memory", "logs"}), "no bar where the rival is missing"


@pytest.mark.parametrize("name", [name for name in peers.SUPERVISORS if name != "sexton"])
def test_what_is_missing_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "CIRCUS", CHECKOUT / "build" / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotMeasure, match=r"(supervisord|s6-svscan|circusd) is not there: (apt-get|python3 -m venv)"):
        peers.SUPERVISORS[name]()


def test_missing_peers_end_the_bench(tmp_path: Path) -> None:
    done = bench("--of", "supervisord", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "bench: supervisord is not there: apt-get install supervisor\n"


def test_sexton_is_configured(tmp_path: Path) -> None:
    peers.Sexton().configure(tmp_path, APPS)
    apps = tomllib.loads((tmp_path / "sexton.toml").read_text())["apps"]
    assert {name: tuple(app["command"]) for name, app in apps.items()} == APPS
    assert apps["app000"]["restart"]["backoff"] == peers.Sexton.backoff


def test_the_peers_are_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, file, section in (
        (peers.Supervisord, "supervisord.conf", "program:app001"),
        (peers.Circus, "circus.ini", "watcher:app001"),
    ):
        supervisor = made(kind, monkeypatch)
        supervisor.configure(tmp_path, APPS)
        parser = configparser.ConfigParser()
        parser.read(tmp_path / file)
        values = dict(parser[section])
        assert values.get("command", values.get("cmd")) == "/bin/app /tmp/fifo 100"
        assert str(supervisor.log(tmp_path, "app001")) in values.values()
        assert str(tmp_path / file) in supervisor.command(tmp_path)


def test_s6_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = made(peers.S6, monkeypatch)
    supervisor.configure(tmp_path, APPS)
    run = tmp_path / "scan" / "app001" / "run"
    assert run.read_text() == "#!/bin/sh\nexec /bin/app /tmp/fifo 100\n"
    assert run.stat().st_mode & stat.S_IXUSR
    assert not (tmp_path / "scan" / "app001" / "log").exists()
    alone = tmp_path / "alone"
    supervisor.configure(alone, {"app": ("/bin/app",)})
    assert str(supervisor.log(alone, "app").parent) in (alone / "scan" / "app" / "log" / "run").read_text()


def test_announcements(tmp_path: Path) -> None:
    announced = running.Announcements(tmp_path / "fifo")
    with open(tmp_path / "fifo", "wb", buffering=0) as app:
        app.write(b"7 1000\n8 20")
        assert announced.take() == [(7, 1000)]
        app.write(b"00\n9 3000\n")
        assert announced.take(2) == [(8, 2000), (9, 3000)]
    announced.close()


def test_apps_that_do_not_come_up_end_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "DEADLINE", 0.1)
    announced = running.Announcements(tmp_path / "fifo")
    with pytest.raises(CannotMeasure, match="of 3 apps only 0 have come up"):
        announced.take(3)
    announced.close()


def test_what_proc_says_of_a_process() -> None:
    me = os.getpid()
    assert measures.ran(me) > 0
    assert measures.memory(me, "status", "VmRSS") > 1 << 20
    assert measures.memory(me, "smaps_rollup", "Pss") > 1 << 20


def test_a_bar_needs_whom_it_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, rival = peers.Sexton(), made(peers.Supervisord, monkeypatch)
    alone = measures.Bench([ours], tmp_path, tmp_path, quick=True)
    both = measures.Bench([ours, rival], tmp_path, tmp_path, quick=True)
    assert alone.bar(1, measures.RIVAL) is None
    assert alone.bar(30) is not None
    row = measures.row(
        "up", "up: x", {"sexton": [1.0], "supervisord": [2.0, 4.0]}, both.bar(1, "supervisord"), unit="ms", digits=0
    )
    assert row.ratio == pytest.approx(1 / 3)
    assert row.ok
