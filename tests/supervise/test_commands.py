"""The commands that ask a supervisor, as a user starts them; the supervisor runs nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from sexton.cli._table import Screen
from sexton.cli.status import lines
from sexton.errors import NotRunning, UsageError
from sexton.supervise import models, where
from sexton.supervise.client import Client
from sexton.supervise.load import load
from sexton.supervise.targets import unknown
from tests.supervise import homes
from tests.supervise.fake import Serving, serving
from tests.support.lines import Lines

APP = '[apps.web]\ncommand = "true"\n'


@pytest.fixture
def served(tmp_path: Path) -> Generator[Serving]:
    (tmp_path / "sexton.toml").write_text('state = "state"\n' + APP)
    (tmp_path / "state").mkdir()
    with serving(tmp_path / "state" / "api.sock") as found:
        yield found


def sexton(served: Serving, *words: str) -> subprocess.CompletedProcess[str]:
    return homes.sexton(served.path.parent.parent, *words)


def test_status_is_a_table(served: Serving) -> None:
    done = sexton(served, "status")
    assert done.returncode == 1, done.stderr  # web.1 waits for its restart
    lines = done.stdout.splitlines()
    assert lines[0].startswith("x: 2 apps, 3 instances; supervisor ")
    assert [line.split()[:2] for line in lines[2:]] == [["db.0", "ready"], ["web.0", "ready"], ["web.1", "backoff"]]
    assert "http=40000" in lines[2]


def test_the_reasons_in_status_are_folded(tmp_path: Path) -> None:
    why = "not ready: web.0 was not ready within 60 s: tcp 43429: connection refused"
    with serving(tmp_path / "api.sock") as served:
        found = served.fake.status()
    apps = [msgspec.structs.replace(app, instances=[msgspec.structs.replace(one, message=why) for one in app.instances])
            for app in found.apps]  # fmt: skip
    shown = list(lines(msgspec.structs.replace(found, apps=apps), Screen(80, color=False), found.since))
    assert all(len(line) <= 80 for line in shown)
    assert not [line for line in shown if "…" in line]
    at = shown[1].index("WHY")
    assert " ".join(line[at:] for line in shown[2:]) == " ".join([why] * 3)
    wide = list(lines(msgspec.structs.replace(found, apps=apps), Screen(0, color=False), found.since))
    assert [line[at:] for line in wide[2:]] == [why] * 3


ENDED = models.Exit(time=0, code=3)
LEFT = models.Exit(time=0, code=3, why="exit", left=2)
ASKED = models.Exit(time=0, code=3, why="exit", left=2, seconds=0.1)


@pytest.mark.parametrize(
    ("state", "end", "message", "why"),
    [
        ("ready", ENDED, "", "restarted: ended with exit code 3"),
        ("ready", LEFT, "", "restarted: ended with exit code 3, 2 of its processes were left"),
        ("ready", ENDED, "what it says itself", "what it says itself"),
        ("ready", ASKED, "", ""),
        ("completed", LEFT, "ended", "ended; 2 processes that it left were ended"),
        ("fatal", msgspec.structs.replace(LEFT, left=1), "ended", "ended; 1 process that it left was ended"),
        ("stopped", ASKED, "", ""),
    ],
)
def test_why_it_is_as_it_is(tmp_path: Path, state: models.State, end: models.Exit, message: str, why: str) -> None:
    with serving(tmp_path / "api.sock") as served:
        found = served.fake.status()
    app = found.apps[0]
    one = msgspec.structs.replace(app.instances[0], state=state, restarts=1, last_exit=end, message=message)
    found = msgspec.structs.replace(found, apps=(msgspec.structs.replace(app, instances=(one,)),))
    assert list(lines(found, Screen(0, color=False), found.since))[2].partition("http=40000")[2].strip() == why


def test_status_is_zero_where_all_is_well(served: Serving) -> None:
    served.fake.states["web.1"] = "stopped"
    assert sexton(served, "status").returncode == 0


def test_status_of_some(served: Serving) -> None:
    for targets, named, code in (
        (["web"], ["web.0", "web.1"], 1),
        (["web.0"], ["web.0"], 0),
        (["web.0", "db"], ["db.0", "web.0"], 0),
        (["all"], ["db.0", "web.0", "web.1"], 1),
    ):
        done = sexton(served, "status", *targets)
        assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == named
        assert done.returncode == code
        found = json.loads(sexton(served, "status", "--json", *targets).stdout)
        assert [one["name"] for app in found["apps"] for one in app["instances"]] == named
    assert sexton(served, "status", "db").stdout.startswith("x: 1 app, 1 instance; supervisor ")
    for target, said in (("wbe", "did you mean web?"), ("web.7", "web has no such instance, but web.0, web.1")):
        done = sexton(served, "status", target, *["--watch"] * (target == "wbe"))
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_status_as_json(served: Serving) -> None:
    found = json.loads(sexton(served, "status", "--json").stdout)
    assert found["apps"][0]["instances"][0]["state"] == "ready"


def test_status_is_shown_again_when_it_changes(served: Serving) -> None:
    served.do(lambda: served.fake.events.tell("state", instance="web.1"))
    with subprocess.Popen(
        [homes.SEXTON, "status", "--watch"], cwd=served.path.parent.parent, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        lines = Lines(os.dup(process.stdout.fileno()), "status --watch")
        lines.until(lambda line: line.startswith("web.1") and "backoff" in line)
        served.fake.states["web.1"] = "ready"
        served.do(lambda: served.fake.events.tell("state", instance="web.1", state="ready"))
        lines.until(lambda line: line.startswith("web.1") and "ready" in line)
        process.terminate()
        lines.close()


def test_the_commands_that_do_something(served: Serving) -> None:
    assert sexton(served, "start", "web.0", "db").stdout == "done\n"
    sexton(served, "stop", "all")
    sexton(served, "restart", "web")
    sexton(served, "signal", "--scope", "child", "HUP", "web")
    sexton(served, "scale", "web=2", "db=0")
    assert served.fake.asked == [
        ("start", ["web.0", "db"]),
        ("stop", ["all"]),
        ("restart", ["web"]),
        ("signal", ["web"], "HUP", "child"),
        ("scale", ["web"], 2),
        ("scale", ["db"], 0),
    ]


def test_reload_says_what_it_did(served: Serving) -> None:
    assert sexton(served, "reload").stdout == "added: new\n"
    assert json.loads(sexton(served, "reload", "--json").stdout)["added"] == ["new"]


def test_ports(served: Serving) -> None:
    assert json.loads(sexton(served, "ports", "--json").stdout)["web.1"] == {"http": 40000}
    assert sexton(served, "ports").stdout.splitlines()[1].split() == ["web.0", "http", "40000"]


def test_events(served: Serving) -> None:
    how = models.Exit(time=1.0, signal="TERM", why="stop", seconds=1.25, left=2, killed=1)
    served.do(lambda: served.fake.events.tell("state", instance="web.0", state="fatal", was="starting", message="why"))
    served.do(lambda: served.fake.events.tell("exit", app="web", instance="web.0", exit=how))
    done = sexton(served, "events", "--no-follow")
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == [
        "web.0: fatal: why",
        "web.0: ended by SIGTERM (stop, 1.2 s), 2 of its processes were left, 1 had to be killed",
    ]
    found = [json.loads(line) for line in sexton(served, "events", "--no-follow", "--json").stdout.splitlines()]
    assert [one["number"] for one in found] == [1, 2]
    assert sexton(served, "events", "--no-follow", "--since", "1").stdout.count("\n") == 1
    assert sexton(served, "events", "--no-follow", "-n", "1").stdout.endswith("had to be killed\n")
    assert sexton(served, "events", "--no-follow", "-n", "0").stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["start", "nope"], 2, "'nope'"),
        (["start"], 2, "Missing argument"),
        (["scale", "web"], 2, "expected APP=N"),
        (["scale", "web=-1"], 2, "expected APP=N"),
        (["signal", "HUP"], 2, "Missing argument"),
        (["status", "-f", "elsewhere.toml"], 2, "elsewhere.toml: no such file"),
        (["logs", "-f", "sexton.toml"], 2, "a file is named by --file, and -f follows"),
    ],
)
def test_what_is_wrong_is_said(served: Serving, words: list[str], code: int, says: str) -> None:
    done = sexton(served, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_file_with_mistakes_hides_no_supervisor(served: Serving) -> None:
    (served.path.parent.parent / "sexton.toml").write_text('state = "state"\n[apps.web]\ncommnd = [\n')
    assert "web.0" in sexton(served, "status").stdout


@pytest.mark.parametrize("command", ["status", "reload", "ports", "events"])
def test_without_a_supervisor_the_exit_status_is_3(tmp_path: Path, command: str) -> None:
    (tmp_path / "sexton.toml").write_text('state = "state"\n' + APP)
    done = homes.sexton(tmp_path, command)
    assert done.returncode == 3
    said = f"sexton: no supervisor of sexton.toml listens at {tmp_path}/state/api.sock; `sexton up` starts one\n"
    assert done.stderr == said


@pytest.mark.parametrize(
    "head",
    ["", 'name = "thing"\n', 'state = "/somewhere/else"\n', "state = '../x'\nname = \"y\"\n", 'name = """\nq"""\n'],
)
def test_the_commands_look_where_the_supervisor_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    monkeypatch.setenv("SEXTON_STATE", str(tmp_path / "s"))
    path = tmp_path / "Some where" / "sexton.toml"
    path.parent.mkdir()
    path.write_text(head + "# [not a table]\n" + APP)
    assert str(where.state_of(path)) == load(path).state


def test_a_file_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "sexton.toml").write_text('state = "state"\n' + APP)
    (tmp_path / "below").mkdir()
    done = homes.sexton(tmp_path / "below", "status")
    assert "no supervisor of ../sexton.toml listens at" in done.stderr


@pytest.mark.parametrize(
    ("left", "says"), [(1, "an instance of the last one runs on"), (2, "2 instances of the last one run on")]
)
def test_what_runs_on_without_a_supervisor_is_said(tmp_path: Path, left: int, says: str) -> None:
    (tmp_path / "run").mkdir()
    for number in range(left):
        (tmp_path / "run" / f"web.{number}.guard").touch()
    with pytest.raises(NotRunning, match=f"{says} for (its|their) lease: `sexton up` takes"):
        Client(tmp_path / "api.sock").status()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("wbe", "expected an app, an instance or all (did you mean web?)"),
        ("wbe.0", "expected an app, an instance or all (did you mean web?)"),
        ("al", "expected an app, an instance or all (did you mean all?)"),
        ("nobody", "expected an app, an instance or all: web, db, web.0, web.1, db.0"),
        ("web.2", "web has no such instance, but web.0, web.1"),
        ("idle.0", "idle has no such instance, and no other"),
    ],
)
def test_what_was_meant(target: str, says: str) -> None:
    apps = ["web", "db"] if target != "idle.0" else ["idle"]
    instances = ["web.0", "web.1", "db.0"]
    assert str(unknown(target, apps, instances)) == f"{target!r}: {says}"


def test_what_was_meant_among_many() -> None:
    apps = [f"app{number}" for number in range(100)]
    assert str(unknown("x", apps)).endswith(", app19, ...")
    assert str(unknown("app1.9", apps, [f"app1.{number}" for number in range(5)])).endswith("but app1.0 to app1.4")


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no sexton\.toml in .* name one with --file FILE, write one"):
        where.default_path()
    (tmp_path / "sexton.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        where.state_of(where.default_path())
    (tmp_path / "sexton.toml").write_text("state = \n")
    with pytest.raises(UsageError, match=r"sexton\.toml: "):
        where.state_of(where.default_path())
