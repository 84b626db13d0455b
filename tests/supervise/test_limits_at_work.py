"""Limits at work: apps that reach them, in cgroups of the kernel's. Where it gives us none, that is said.

Memory and processes can be limited in the emulated machine of tests/guest; elsewhere what can be had stands in.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sexton.supervise import limits
from sexton.supervise.config import App, Limits, Probe, Restart
from sexton.supervise.supervisor import Supervisor
from tests.supervise.cgroups import Room, inside, room
from tests.supervise.houses import app, event, house, run, until_line, until_state
from tests.support.lines import DEADLINE
from tests.support.processes import Handle

SLEEP = "exec sleep 1000"
NEVER = Restart(policy="never")
SLOW = Restart(backoff=1000)
BOTH = Limits(memory=32_000_000, processes=20)
EAT = [sys.executable, "-c", "b'x' * 64_000_000"]
FORK = [sys.executable, "-c", """
import os, time
children = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(1000)
        children += 1
except OSError as error:
    print(children, error.strerror, flush=True)
time.sleep(1000)
"""]  # fmt: skip
# Another one of the tree has another environment, and so no mark. ($$$$: the shell is to have $$)
UNMARKED = "env -i sh -c 'echo $$$$; exec sleep 1000' & exec sleep 1000"
MEMORY = "limits.memory of 32 MB was reached: the kernel killed 1 process"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room | None]:
    """A cgroup of our own in which we are; None: there is none, and that is said."""
    with room() as found:
        if found is None:
            assert limits.unavailable(BOTH)
            yield None
            return
        with inside(found, monkeypatch) as here:
            yield here


@pytest.fixture
def limited(place: Room | None) -> bool:
    """Memory and processes can be limited; where not, that is said."""
    if place and place.limits:
        assert limits.unavailable(BOTH) == ()
        return True
    return False


def cell_of(supervisor: Supervisor, instance: str) -> Path:
    cell = supervisor.instances[instance].cell
    assert cell
    return cell.path


def unmarked(**settings: Any) -> App:
    """An app with such a one."""
    return app("web", UNMARKED, limits=BOTH, ready=Probe(log="[0-9]+"), **settings)


def handles(supervisor: Supervisor) -> tuple[Handle, Handle]:
    """That one, and the guard."""
    (line,) = supervisor.capture.tail(["web.0"], 10)
    return Handle(int(line.text)), Handle(supervisor.instances["web.0"].model().guard)


def test_whoever_takes_too_much_memory_is_killed_and_nobody_else(limited: bool, tmp_path: Path) -> None:
    """A child at first; its app goes on, ends, and is started again. Another app has the same limits."""
    if not limited:
        return
    script = f"mkdir ate && {{ {shlex.join(EAT)}; echo ended with $?; read word <fifo; exit 3; }}; {SLEEP}"
    os.mkfifo(tmp_path / "fifo")

    async def scenario() -> None:
        eater = app("eater", script, cwd=str(tmp_path), limits=BOTH)
        async with house(tmp_path, eater, app("calm", SLEEP, limits=BOTH)) as it:
            calm, first = it.instances["calm.0"].model(), cell_of(it, "eater.0")
            assert (first / "memory.max").read_text() == f"{32_000_000 - 32_000_000 % resource.getpagesize()}\n"
            assert (first / "pids.max").read_text() == "21\n"
            told = await event(it, lambda each: each.kind == "limit")
            assert (told.app, told.instance, told.message) == ("eater", "eater.0", MEMORY)
            await until_line(it, "eater.0", "ended with 137")
            one = it.instances["eater.0"].model()
            assert (one.state, one.message) == ("ready", MEMORY)
            fifo = os.open(tmp_path / "fifo", os.O_RDWR)
            os.write(fifo, b"go\n")
            again = await event(it, lambda each: each.instance == "eater.0" and each.state == "backoff")
            os.close(fifo)
            assert again.message == f"ended with exit code 3; {MEMORY}"
            await it.until(lambda: it.instances["eater.0"].model().state == "ready")
            assert it.instances["eater.0"].restarts == 1
            assert not first.exists()
            second = cell_of(it, "eater.0")
            assert (second / "memory.events").read_text().split()[-1] == "0"
            assert it.instances["calm.0"].model() == calm
            await it.stop(["eater"])
            assert not second.exists()
            assert [each.instance for each in it.events.since(0) if each.kind == "limit"] == ["eater.0"]

    run(scenario())


def test_an_app_that_takes_too_much_memory_itself(limited: bool, tmp_path: Path) -> None:
    if not limited:
        return

    async def scenario() -> None:
        eater = app("eater", f"exec {shlex.join(EAT)}", limits=Limits(memory=32_000_000), restart=NEVER)
        async with house(tmp_path, eater) as it:
            one = await until_state(it, "eater.0", "fatal")
            assert one.message == f"ended by SIGKILL; {MEMORY}"
            assert [each.message for each in it.events.since(0) if each.kind == "limit"] == [MEMORY]

    run(scenario())


def test_forks_fail_within_the_limit_alone(limited: bool, tmp_path: Path) -> None:
    if not limited:
        return

    async def scenario() -> None:
        many = app("many", f"exec {shlex.join(FORK)}", limits=Limits(processes=20))
        async with house(tmp_path, many, app("calm", SLEEP, limits=BOTH)) as it:
            await until_line(it, "many.0", f"19 {os.strerror(11)}")
            told = await event(it, lambda each: each.kind == "limit")
            assert told.instance == "many.0"
            assert told.message == "limits.processes of 20 was reached: 1 process or thread could not be started"
            one = it.instances["many.0"].model()
            assert (one.state, one.message) == ("ready", told.message)
            assert len(it.pids("many.0")) == 20
            await it.restart(["calm"])
            cell = cell_of(it, "many.0")
            await it.stop(["many"])
            assert it.pids("many.0") == set()
            assert not cell.exists()

    run(scenario())


def test_a_fork_bomb(limited: bool, tmp_path: Path) -> None:
    if not limited:
        return

    async def scenario() -> None:
        bomb = app("bomb", "b() { b | b & b; }; b", limits=Limits(processes=20), restart=NEVER)
        async with house(tmp_path, bomb, app("calm", SLEEP)) as it:
            one = await until_state(it, "bomb.0", "fatal")
            assert "; limits.processes of 20 was reached: " in one.message
            assert it.instances["calm.0"].model().state == "ready"

    run(scenario())


def test_a_limit_that_the_kernel_refuses(limited: bool, tmp_path: Path) -> None:
    if not limited:
        return

    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP, limits=Limits(processes=1 << 40), restart=NEVER)) as it:
            one = it.instances["web.0"].model()
            assert one.state == "fatal"
            assert one.message.startswith(f"cannot start sh: [Errno 22] {os.strerror(22)}: ")
            assert one.message.endswith("/pids.max'")

    run(scenario())


def test_a_supervisor_in_the_background(tmp_path: Path) -> None:
    """Who started it is in the same cgroup, and waits."""
    with room() as found:
        if found is None or not found.limits:
            return
        (tmp_path / "sexton.toml").write_text(
            'state = "state"\n[apps.web]\ncommand = "sleep 1000"\nlimits = { memory = "32MB", processes = 20 }\n'
        )
        sexton = functools.partial(
            subprocess.run, cwd=tmp_path, timeout=DEADLINE, check=True, preexec_fn=limits.entering(found.path)
        )
        sexton([sys.executable, "-m", "sexton", "up", "-d"])
        told = sexton([sys.executable, "-m", "sexton", "status", "--json"], preexec_fn=None, stdout=subprocess.PIPE)
        status = json.loads(told.stdout)
        (web,) = status["apps"]
        supervisor = Handle(status["pid"])
        try:
            assert web["unavailable"] == []
            (cell,) = found.cells()
            assert {web["instances"][0]["guard"], web["instances"][0]["pid"]} == set(limits._pids(cell))
        finally:
            sexton([sys.executable, "-m", "sexton", "down"], preexec_fn=None)
            supervisor.wait_dead()
        assert found.cells() == []


def test_memory_that_is_used_up_elsewhere() -> None:
    """The limit of a cgroup above: not ours is told."""
    with room() as found:
        if found is None or not found.limits:
            return
        above = found.path / "above"
        cell = above / "sexton-web.0-1"
        for each in (found.path, above):
            each.mkdir(exist_ok=True)
            (each / "cgroup.subtree_control").write_text("+memory +pids")
        (above / "memory.max").write_text("32000000")
        cell.mkdir()
        (cell / "memory.max").write_text("48000000")
        done = subprocess.run(EAT, preexec_fn=limits.entering(cell), timeout=DEADLINE, check=False)
        assert done.returncode == -9
        said = "the kernel killed 1 process: the memory of the machine, or of a cgroup above this one's, was used up"
        assert limits.told(cell) == said
        limits.remove(cell)


# --- what the cgroup is good for when the guard is not there ---


def test_a_guard_is_killed_and_its_cgroup_is_emptied(place: Room | None, tmp_path: Path) -> None:
    if place is None:
        return

    async def scenario() -> None:
        async with house(tmp_path, unmarked(restart=SLOW)) as it:
            (left, guard), cell = handles(it), cell_of(it, "web.0")
            assert {left.pid, guard.pid} <= set(limits._pids(cell))
            guard.kill()
            await until_state(it, "web.0", "backoff")
            assert not cell.exists()
            left.wait_dead()

    run(scenario())


def test_a_supervisor_and_its_guard_are_killed_and_the_next_one_empties_the_cgroup(
    place: Room | None, tmp_path: Path
) -> None:
    if place is None:
        return

    async def scenario() -> None:
        web = unmarked()
        async with house(tmp_path, web) as it:
            (left, guard), cell = handles(it), cell_of(it, "web.0")
            it.down(leave=True)
            await it.wait()
        guard.kill()
        async with house(tmp_path, web) as it:
            await event(it, lambda each: each.kind == "swept")
            left.wait_dead()
            assert not cell.exists()
            assert cell_of(it, "web.0").exists()

    run(scenario())


def test_a_cgroup_is_adopted_with_its_tree(place: Room | None, tmp_path: Path) -> None:
    if place is None:
        return

    async def scenario() -> None:
        web = app("web", SLEEP, limits=BOTH)
        async with house(tmp_path, web) as it:
            cell = cell_of(it, "web.0")
            it.down(leave=True)
            await it.wait()
        async with house(tmp_path, web) as it:
            assert it.instances["web.0"].model().adopted
            assert cell_of(it, "web.0") == cell
            await it.stop(["web"])
            assert not cell.exists()

    run(scenario())


def test_supervisors_whose_state_directories_are_called_alike(place: Room | None, tmp_path: Path) -> None:
    if place is None:
        return

    async def scenario() -> None:
        web = app("web", SLEEP, limits=BOTH)
        async with house(tmp_path / "one/state", web) as one:
            pid, cell = one.instances["web.0"].model().pid, cell_of(one, "web.0")
            async with house(tmp_path / "two/state", web) as two:
                assert cell_of(two, "web.0") != cell
            assert pid in limits._pids(cell)
            assert one.instances["web.0"].model().state == "ready"

    run(scenario())
