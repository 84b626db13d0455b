"""What the next supervisor finds, by the orphan policy of each app, when the one before it was killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sexton import proc

DEADLINE = 30
APPS = """
state = "{directory}/state"
[apps.gentle]
command = "sleep 1000"
orphans = {{ policy = "gentle", lease = 100 }}
[apps.expiration]
command = "sleep 1000"
orphans = {{ policy = "expiration", lease = 100, maximum = 1000 }}
[apps.termination]
command = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]
orphans = {{ policy = "termination" }}
[apps.reincarnation]
command = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]
orphans = {{ policy = "reincarnation" }}
[apps.short]
command = "sleep 1000"
orphans = {{ policy = "gentle", lease = 0.2 }}
"""


class Town:
    """A state directory, and the supervisors that come and go in it."""

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        (directory / "sexton.toml").write_text(text.format(directory=directory))

    def sexton(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "sexton", *words]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    def instances(self, code: int = 0) -> dict[str, dict[str, Any]]:
        found = json.loads(self.sexton("status", "--json", code=code))
        return {one["name"]: one for app in found["apps"] for one in app["instances"]}

    def kill(self) -> None:
        pid = json.loads(self.sexton("status", "--json"))["pid"]
        supervisor = os.pidfd_open(pid)
        signal.pidfd_send_signal(supervisor, signal.SIGKILL)
        ended(supervisor)


@pytest.fixture
def towns() -> Iterator[list[Town]]:
    found: list[Town] = []
    yield found
    for town in found:
        town.sexton("down")


def ended(pidfd: int) -> None:
    assert select.select([pidfd], [], [], DEADLINE)[0]
    os.close(pidfd)


def lives(pid: int) -> bool:
    found = proc.stat(pid)
    return isinstance(found, proc.Process) and not found.zombie


def test_the_four_policies(tmp_path: Path, towns: list[Town]) -> None:
    town = Town(tmp_path, APPS)
    towns.append(town)
    town.sexton("up", "-d")
    before = {name: one["pid"] for name, one in town.instances().items()}
    held = {name: os.pidfd_open(before[name]) for name in ("termination.0", "short.0")}
    town.kill()
    for pidfd in held.values():  # its guard ends the one at once, and the other when its lease is over
        ended(pidfd)
    assert all(lives(before[name]) for name in ("gentle.0", "expiration.0", "reincarnation.0"))
    town.sexton("up", "-d")
    after = town.instances()
    assert {one["state"] for one in after.values()} == {"ready"}
    same = {name for name in before if after[name]["pid"] == before[name]}
    assert same == {"gentle.0", "expiration.0"} == {name for name in after if after[name]["adopted"]}
    assert not lives(before["reincarnation.0"])


def test_the_hard_maximum_holds_for_who_is_adopted_too(tmp_path: Path, towns: list[Town]) -> None:
    town = Town(
        tmp_path,
        """
        state = "{directory}/state"
        [apps.web]
        command = "sleep 1000"
        orphans = {{ policy = "expiration", lease = 100, maximum = 4 }}
        restart = {{ policy = "never" }}
        """,
    )
    towns.append(town)
    town.sexton("up", "-d")
    pid = town.instances()["web.0"]["pid"]
    held = os.pidfd_open(pid)
    town.kill()
    town.sexton("up", "-d")
    ended(held)
    with subprocess.Popen(
        [sys.executable, "-m", "sexton", "events", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as events:
        assert events.stdout
        for line in events.stdout:
            if json.loads(line).get("state") == "fatal":
                break
        events.terminate()
    one = town.instances(code=1)["web.0"]  # not all is well
    assert one["last_exit"]["why"] == "timeout"


def test_down_without_a_supervisor_ends_what_is_left(tmp_path: Path) -> None:
    town = Town(tmp_path, APPS)
    town.sexton("up", "-d")
    before = [one["pid"] for one in town.instances().values()]
    town.kill()
    town.sexton("down")
    assert not any(lives(pid) for pid in before)
