"""Who survives SIGKILL, in state D: nothing is started beside it, it is named, and its end is waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sexton import proc
from sexton.errors import LeftoversError, SextonError
from sexton.supervise import survivors
from sexton.supervise.config import App, Probe, Restart, Stop
from sexton.supervise.journal import Journal
from sexton.supervise.probes import until_unwell
from sexton.supervise.supervisor import Supervisor
from tests.supervise.dead_disk import DeadDisk
from tests.supervise.homes import Home
from tests.supervise.houses import app, config, house, run, states, until_state
from tests.supervise.subject import Subject

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")

# It asks the disk, and once that is let go it would do better.
SCRIPT = "[ -e let-go ] || cat $PWD/disk/file; exec sleep 1000"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DeadDisk]:
    found = DeadDisk(tmp_path / "disk")
    yield found
    found.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "PATIENCE", 0.1)


def web(tmp_path: Path, script: str = SCRIPT, **settings: object) -> App:
    return app("web", script, cwd=str(tmp_path), **{"stop": Stop(grace=0), **settings})


def cats(disk: DeadDisk) -> list[tuple[int, int]]:
    """Who asks the disk: (pid, start)."""
    return [(one.pid, one.start) for one in proc.snapshot() if proc.cmdline(one.pid) == ("cat", f"{disk.path}/file")]


async def strand(it: Supervisor, disk: DeadDisk) -> list[tuple[int, int]]:
    """Kill the guard of web.0 when its command waits for the disk, until it is said to be stuck; gives who asks it."""
    disk.asked()
    asking = cats(disk)
    os.kill(it.instances["web.0"].model().guard, signal.SIGKILL)
    await until_state(it, "web.0", "stuck")
    return asking


@pytest.mark.usefixtures("soon")
def test_nothing_is_started_beside_it_until_it_ends(tmp_path: Path, disk: DeadDisk) -> None:
    async def scenario() -> None:
        db = app("db", "exec sleep 1000", after={"web": "started"})
        async with house(tmp_path / "state", web(tmp_path), db) as it:
            disk.asked()
            [cat] = cats(disk)
            os.kill(it.instances["web.0"].model().guard, signal.SIGKILL)
            said = (await until_state(it, "web.0", "stuck")).message
            assert said.startswith(f"still alive after SIGKILL: {cat[0]} (cat) in state D")
            assert "web.0 is stuck: still alive" in (await it.start(["all"])).message
            for ask in (it.stop(["web"]), it.restart(["web"])):
                with pytest.raises(SextonError, match=rf"after SIGKILL: {cat[0]} \(cat\) in state D"):
                    await ask
            await it.start(["web"])
            assert cats(disk) == [cat]
            assert states(it) == {"web.0": "stuck", "db.0": "ready"}
            (tmp_path / "let-go").touch()
            disk.let_go()
            after = await until_state(it, "web.0", "ready")
            assert after.message == ""
            assert not cats(disk)
            assert it.instances["web.0"].last_exit

    run(scenario())


@pytest.mark.usefixtures("soon")
def test_the_next_supervisor_starts_nothing_beside_it_either(tmp_path: Path, disk: DeadDisk) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "state", web(tmp_path)) as first:
            [cat] = await strand(first, disk)
            first.down()
            assert await first.wait() == 1
        for _ in range(2):  # one that asks for it, and one that does not
            [entry] = Journal(tmp_path / "state" / "ledger").open.values()
            assert entry.killed == (cat,)
            async with house(tmp_path / "state", app("db", "exec sleep 1000")) as second:
                assert states(second) == {"db.0": "ready", "web.0": "stuck"}
        async with house(tmp_path / "state", web(tmp_path)) as third:
            assert states(third) == {"web.0": "stuck"}
            (tmp_path / "let-go").touch()
            disk.let_go()
            await until_state(third, "web.0", "ready")
        assert not Journal(tmp_path / "state" / "ledger").open

    run(scenario())


@pytest.mark.usefixtures("soon")
def test_who_is_removed_is_forgotten_when_it_ends(tmp_path: Path, disk: DeadDisk) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "state", web(tmp_path)) as first:
            await strand(first, disk)
        async with house(tmp_path / "state", app("db", "exec sleep 1000")) as second:
            disk.let_go()
            await second.until(lambda: "web.0" not in second.instances)
            await second.start(["all"])
            assert states(second) == {"db.0": "ready"}

    run(scenario())


@pytest.mark.usefixtures("soon")
def test_a_reload_goes_on_without_it(tmp_path: Path, disk: DeadDisk) -> None:
    async def scenario() -> None:
        async with house(tmp_path / "state", web(tmp_path)) as it:
            [cat] = await strand(it, disk)
            with pytest.raises(LeftoversError, match=r"web\.0 is stuck"):
                await it.scale("web", 0)
            await it.scale("web", 1)
            it._load = lambda: config(tmp_path / "state", app("db", "exec sleep 1000"))
            with pytest.raises(LeftoversError, match=r"web\.0 is stuck"):
                await it.reload()
            assert states(it) == {"web.0": "stuck", "db.0": "ready"}
            it._load = lambda: config(tmp_path / "state", web(tmp_path))
            await it.reload()
            assert cats(disk) == [cat]
            assert states(it) == {"web.0": "stuck"}
            (tmp_path / "let-go").touch()
            disk.let_go()
            await until_state(it, "web.0", "ready")

    run(scenario())


@pytest.mark.usefixtures("soon")
def test_a_command_that_ended_well_is_judged_by_that(tmp_path: Path, disk: DeadDisk) -> None:
    """But only when the rest of it has ended too."""
    os.mkfifo(tmp_path / "fifo")

    async def scenario() -> None:
        first = web(tmp_path, "cat $PWD/disk/file & read x <fifo", restart=Restart(policy="on-failure"))
        second = app("db", "exec sleep 1000", after={"web": "completed"})
        async with house(tmp_path / "state", first, second) as it:
            disk.asked()
            one = it.instances["web.0"]
            (tmp_path / "fifo").write_text("end\n")
            while one.model().pid:  # noqa: ASYNC110 - the guard says so to the supervisor alone
                await asyncio.sleep(0.001)
            os.kill(one.model().guard, signal.SIGKILL)
            await until_state(it, "web.0", "stuck")
            assert one.last_exit
            assert one.last_exit.code == 0
            assert states(it)["db.0"] == "waiting"
            disk.let_go()
            await until_state(it, "db.0", "ready")
            assert states(it)["web.0"] == "completed"

    run(scenario())


def test_a_probe_that_gets_stuck_is_a_bad_one(disk: DeadDisk) -> None:
    async def scenario() -> None:
        probe = Probe(exec=("cat", f"{disk.path}/file"), timeout=2, failures=1)
        asking = asyncio.create_task(until_unwell(probe, Subject()))
        await asyncio.to_thread(disk.asked)
        [cat] = cats(disk)
        why = await asking
        assert why.startswith(f"cat {disk.path}/file: no end within 2 s; of (")
        assert f"there is still alive after SIGKILL: {cat[0]} (cat) in state D" in why

    run(scenario())


def test_as_its_user_sees_it(tmp_path: Path, disk: DeadDisk) -> None:
    """The guard gives up by itself, after ten seconds."""
    home = Home(tmp_path)
    home.write(web=f"{SCRIPT}#stop = {{ grace = 0 }}\n")

    def fails(*words: str) -> str:
        done = home.sexton(*words)
        assert done.returncode == 1
        return done.stdout + done.stderr

    home.do("up", "-d")
    disk.asked()
    [cat] = cats(disk)
    named = f"still alive after SIGKILL: {cat[0]} (cat) in state D"
    assert f"web.0 is stuck: {named}" in fails("stop", "web")
    assert named in fails("status", "--json")
    assert named in fails("down")
    assert f"web.0 is stuck: {named}" in fails("up", "-d")
    assert cats(disk) == [cat]
    (tmp_path / "let-go").touch()
    disk.let_go()
    assert home.do("start", "web") == "web.0 is ready\n"
    home.do("down")
