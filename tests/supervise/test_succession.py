"""What the next supervisor finds, by the orphan policy of each app, when the one before it was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sexton.supervise.journal import Journal
from tests.supervise.homes import Home
from tests.support.processes import Handle, kill, lives

APPS = """
state = "state"
[apps.gentle]
command = "sleep 1000"
orphans = { policy = "gentle", lease = 100 }
[apps.expiration]
command = "sleep 1000"
orphans = { policy = "expiration", lease = 100, maximum = 1000 }
[apps.termination]
command = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]
orphans = { policy = "termination" }
[apps.reincarnation]
command = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]
orphans = { policy = "reincarnation" }
[apps.short]
command = "sleep 1000"
orphans = { policy = "gentle", lease = 0.2 }
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    found = Home(tmp_path)
    found.file.write_text(APPS)
    yield found
    found.do("down")


def test_the_four_policies(home: Home) -> None:
    home.do("up", "-d")
    before = home.pids()
    with closing(Handle(before["termination.0"])) as ended_at_once, closing(Handle(before["short.0"])) as ended_later:
        kill(home.supervisor)
        ended_at_once.wait_dead()  # by its guard; and so is the other one when its lease is over
        ended_later.wait_dead()
    assert all(lives(before[name]) for name in ("gentle.0", "expiration.0", "reincarnation.0"))
    home.do("up", "-d")
    after = home.instances()
    assert {one.state for one in after.values()} == {"ready"}
    same = {name for name in before if after[name].pid == before[name]}
    assert same == {"gentle.0", "expiration.0"} == {name for name in after if after[name].adopted}
    assert not lives(before["reincarnation.0"])


def test_the_hard_maximum_holds_for_who_is_adopted_too(home: Home) -> None:
    keys = 'orphans = { policy = "expiration", lease = 100, maximum = 4 }\nrestart = { policy = "never" }\n'
    home.write(web=f"exec sleep 1000#{keys}")
    home.do("up", "-d")
    with closing(Handle(home.pids()["web.0"])) as held:
        kill(home.supervisor)
        home.do("up", "-d")
        held.wait_dead()
    assert any(event.state == "fatal" for event in home.client.events(follow=True))
    last = home.instances()["web.0"].last_exit
    assert last
    assert last.why == "timeout"


def test_down_without_a_supervisor_writes_down_how_an_app_ended(home: Home) -> None:
    home.write(web='read word < go; exit 3#orphans = { policy = "gentle", lease = 100 }')
    os.mkfifo(home.directory / "go")
    home.do("up", "-d")
    one = home.instances()["web.0"]
    with closing(Handle(one.pid)) as command, closing(Handle(one.guard)) as guard:
        kill(home.supervisor)
        (home.directory / "go").write_text("now\n")
        command.wait_dead()
        home.do("down")
        guard.wait_dead()
    [exited] = Journal(home.state / "ledger").exits
    assert (exited.instance, exited.exit.code) == ("web.0", 3)


def test_who_cannot_be_heard_any_more_is_restarted_and_nobody_else(home: Home) -> None:
    home.write(deaf="exec sleep 1000#restart = { backoff = 0.01 }\n", other="exec sleep 1000")
    home.do("up", "-d")
    before = home.pids()
    kill(home.supervisor)
    stray = home.state / "run" / "deaf.0.out"
    stray.unlink()
    stray.write_text("something else")
    (stray.parent / "nobody.0.out").write_text("of nobody")
    with closing(Handle(before["deaf.0"])) as held:
        assert home.sexton("up", "-d").returncode == 1
        held.wait_dead()
    after = home.instances()
    assert after["other.0"].pid == before["other.0"]
    assert after["other.0"].state == "ready"
    assert f"{stray}: it is no FIFO; take it away" in after["deaf.0"].message
    log = (home.state / "supervisor.log").read_text()
    assert f"deaf.0: stopping: what it writes cannot be read any more: {stray}: it is no FIFO" in log
    assert "nobody.0: lost: what it wrote last is not read: " in log
    stray.unlink()
    assert home.sexton("start", "deaf").stdout == "deaf.0 is ready\n"


def test_down_without_a_supervisor_ends_what_is_left(home: Home) -> None:
    home.do("up", "-d")
    before = home.pids()
    kill(home.supervisor)
    home.do("down")
    assert not any(lives(pid) for pid in before.values())
