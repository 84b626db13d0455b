"""Ports and sockets as a supervisor gives them: real programs, each on its own port, whatever happens to them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sexton.supervise import demand
from sexton.supervise.config import App, Probe, Restart, Stop
from sexton.supervise.listener import who_listens
from sexton.supervise.supervisor import Supervisor
from tests.supervise import servers
from tests.supervise.houses import SOON, config, event, house, run, until_line, until_state
from tests.supervise.servers import Server, free_port
from tests.supervise.test_ports import listens
from tests.supervise.test_sockets import SERVER, connected, folder
from tests.support.lines import DEADLINE
from tests.support.processes import Handle

__all__ = ["folder", "listens"]
# Holds every connection until the client goes.
HOLDS = """
import socket
server = socket.socket(fileno=3)
print("given http", flush=True)
while True:
    peer, _ = server.accept()
    peer.sendall(b"hello")
    peer.recv(1)
    peer.close()
"""
AUTO: dict[str, Any] = {"ports": {"http": "auto"}, "restart": SOON}


def web(listens: Path, *options: str, name: str = "web", **settings: Any) -> App:
    """An app that is the program of listens.c on its own port."""
    return App(name=name, command=(str(listens), "127.0.0.1", "${port}", *options), **{**AUTO, **settings})


def port_of(supervisor: Supervisor, name: str) -> int:
    return supervisor.ports()[name]["http"]


def assert_its_own(supervisor: Supervisor, name: str) -> int:
    """The instance is ready, and it is its own tree that listens on its port."""
    port = port_of(supervisor, name)
    assert supervisor.instances[name].state == "ready"
    assert who_listens(port, supervisor.pids(name)).whose == "ours"
    assert servers.ask("127.0.0.1", port) == b"hello\n"
    return port


def test_every_instance_has_a_port_of_its_own_and_listens_on_it(
    tmp_path: Path, listens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ports.json"
    monkeypatch.setenv("SEXTON_PORTS_FILE", str(file))

    async def scenario() -> None:
        async with house(tmp_path, web(listens, "reuseaddr", instances=20)) as supervisor:
            before = {name: assert_its_own(supervisor, name) for name in supervisor.instances}
            assert len(set(before.values())) == 20
            assert json.loads(file.read_text()) == supervisor.ports()
            await supervisor.scale("web", 25)
            await supervisor.restart(["web.3", "web.4"])
            after = {name: assert_its_own(supervisor, name) for name in supervisor.instances}
            assert len(set(after.values())) == 25
            assert after.items() >= before.items()
            await supervisor.scale("web", 2)
            assert (
                json.loads(file.read_text())
                == supervisor.ports()
                == {n: {"http": before[n]} for n in ("web.0", "web.1")}
            )
        for port in after.values():
            assert who_listens(port, ()).whose == "nobody"

    run(scenario())


def test_a_killed_program_comes_again_on_its_port(tmp_path: Path, listens: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, web(listens, "reuseaddr")) as supervisor:
            port = assert_its_own(supervisor, "web.0")
            for life in (1, 2):
                pid = supervisor.instances["web.0"].model().pid
                killed = Handle(pid)
                killed.kill()
                killed.close()
                await supervisor.until(lambda life=life: supervisor.instances["web.0"].restarts == life)  # type: ignore[misc] # a lambda's default
                await until_state(supervisor, "web.0", "ready")
                assert assert_its_own(supervisor, "web.0") == port

    run(scenario())


def test_a_program_that_cannot_share_its_port_has_it_at_its_second_start(tmp_path: Path, listens: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, web(listens), begin=False) as supervisor:
            begun = asyncio.create_task(supervisor.begin())
            await until_state(supervisor, "web.0", "ready")
            await begun
            assert supervisor.instances["web.0"].restarts == 1
            port = assert_its_own(supervisor, "web.0")
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
                assert client.recv(100) == b"hello\n"
                assert client.recv(100) == b""  # it closed first: nobody may listen there for a minute
            await supervisor.restart(["web"])
            assert supervisor.instances["web.0"].restarts == 2, "at once, and not after a miss"
            assert assert_its_own(supervisor, "web.0") != port

    run(scenario())


def test_a_port_that_a_stranger_took_is_left_to_him(tmp_path: Path, listens: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, web(listens, "reuseaddr"), begin=False) as supervisor:
            lost = supervisor.reserved.take("web.0", "http", "auto")
            with Server(servers.command("c reuseaddr", listens, "127.0.0.1", lost)) as stranger:
                assert stranger.listens
                begun = asyncio.create_task(supervisor.begin())
                await until_state(supervisor, "web.0", "ready")
                await begun
                assert assert_its_own(supervisor, "web.0") != lost

    run(scenario())


def test_a_stranger_who_answers_is_not_taken_for_the_app(tmp_path: Path, listens: Path) -> None:
    """An app that listens late, or elsewhere, is not ready because another one answers on its port."""
    late = App(
        name="web",
        command=("sh", "-c", 'echo "started on $PORT"; exec sleep infinity'),
        **{**AUTO, "restart": Restart(policy="never")},
    )

    async def scenario() -> None:
        async with house(tmp_path, late, begin=False) as supervisor:
            port = supervisor.reserved.take("web.0", "http", "auto")
            with Server(servers.command("c reuseaddr", listens, "127.0.0.1", port)) as stranger:
                await supervisor.begin()
                found = await until_state(supervisor, "web.0", "fatal")
                assert f"port {port} is listened on by {stranger.pid} (listens), not by web.0" in found.message

    run(scenario())


def test_another_app_is_told_the_port(tmp_path: Path, listens: Path) -> None:
    client = App(
        name="client",
        command=("sh", "-c", 'echo "$URL $0"; exec sleep infinity', "${app.web.port.http}"),
        env={"URL": "http://localhost:${app.web.port}/"},
        after={"web": "ready"},
    )

    async def scenario() -> None:
        async with house(tmp_path, client, web(listens, "reuseaddr")) as supervisor:
            port = assert_its_own(supervisor, "web.0")
            await until_line(supervisor, "client.0", f"http://localhost:{port}/ {port}")

    run(scenario())


def test_two_supervisors_share_no_port(tmp_path: Path, listens: Path) -> None:
    async def scenario() -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
        both = web(listens, "reuseaddr", instances=5)
        async with house(tmp_path / "a", both) as first, house(tmp_path / "b", both) as second:
            of = [assert_its_own(one, name) for one in (first, second) for name in one.instances]
            assert len(set(of)) == 10

    run(scenario())


def test_a_successor_knows_the_ports_and_keeps_them(tmp_path: Path, listens: Path) -> None:
    apps = web(listens, "reuseaddr", instances=3)
    first = config(tmp_path, apps)

    async def scenario() -> None:
        old = Supervisor(first, lambda: first)
        await old.begin()
        ports = old.ports()
        old.down(leave=True)
        await old.wait()
        async with house(tmp_path, apps) as new:
            assert new.ports() == ports
            assert all(one.adopted for one in new.instances.values())
            await new.restart(["web.0"])
            await new.scale("web", 4)
            assert {name: {"http": assert_its_own(new, name)} for name in ports} == ports
            assert assert_its_own(new, "web.3") not in {each["http"] for each in ports.values()}

    run(scenario())


# --- listen, on demand ---


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, folder: Path) -> str:
    """Where an app listens."""
    return f"127.0.0.1:{free_port()}" if request.param == "tcp" else f"unix:{folder}/web"


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="state-") as path:
        yield Path(path)


def hear(address: str) -> str:
    with connected(address) as talk:
        return talk.makefile().read()


def on_demand(address: str, script: str = SERVER, **settings: Any) -> App:
    return App(
        name="web",
        command=(sys.executable, "-S", "-c", script),
        listen={"http": address},
        on_demand=True,
        restart=SOON,
        ready=Probe(log="^given http"),
        **settings,
    )


def test_an_app_on_demand_comes_with_its_first_connection_and_goes_when_nobody_is_there(
    state: Path, address: str
) -> None:
    async def scenario() -> None:
        async with house(state, on_demand(address, idle=0.2)) as supervisor:
            assert supervisor.instances["web.0"].model().state == "idle"
            pids = set()
            for _ in range(2):
                said = await asyncio.to_thread(hear, address)
                assert said.startswith("http ")
                pids.add(int(said.split()[1]))
                await until_state(supervisor, "web.0", "idle")
                assert supervisor.pids("web.0") == set()
            assert len(pids) == 2
            messages = [each.message for each in supervisor.events.since(0) if each.state == "stopping"]
            assert messages == ["nobody was connected for 0.2 s"] * 2

    run(scenario())


def test_who_stays_connected_keeps_an_app_on_demand(state: Path, address: str) -> None:
    holding = on_demand(address, HOLDS, idle=0.05)

    async def scenario() -> None:
        async with house(state, holding) as supervisor:
            with connected(address) as talk:
                await until_state(supervisor, "web.0", "ready")
                assert talk.recv(100)
                # Another wait of the same length begins later, and is over with nobody connected to it.
                other = App(name="other", command=("true",), listen={"other": f"127.0.0.1:{free_port()}"})
                supervisor.sockets.open(other)
                for _ in range(3):
                    await demand.until_idle(supervisor.sockets, other, set, 0.05)
                assert supervisor.instances["web.0"].model().state == "ready"
                supervisor.sockets.close(other)
            await until_state(supervisor, "web.0", "idle")

    run(scenario())


def test_a_connection_waits_for_an_app_that_fails_at_first(state: Path, address: str, tmp_path: Path) -> None:
    marker = tmp_path / "failed"
    fails = f"import os, sys\nif not os.path.exists({str(marker)!r}):\n    open({str(marker)!r}, 'w'); sys.exit(3)\n"
    app = App(
        name="web",
        command=(sys.executable, "-S", "-c", fails + SERVER),
        listen={"http": address},
        on_demand=True,
        restart=SOON,
    )

    async def scenario() -> None:
        async with house(state, app) as supervisor:
            assert (await asyncio.to_thread(hear, address)).startswith("http ")
            exits = [each.exit for each in supervisor.events.since(0) if each.exit]
            assert [how.code for how in exits] == [3]

    run(scenario())


def test_the_sockets_of_a_successor_are_the_same(state: Path, address: str) -> None:
    """A supervisor goes, an app goes on; its next life has the socket that a client waits on."""
    app = App(name="web", command=(sys.executable, "-S", "-c", SERVER), listen={"http": address}, restart=SOON)
    first = config(state, app)

    async def scenario() -> None:
        old = Supervisor(first, lambda: first)
        await old.begin()
        before = await asyncio.to_thread(hear, address)
        old.down(leave=True)
        await old.wait()
        assert await asyncio.to_thread(hear, address) == before
        async with house(state, app) as new:
            assert await asyncio.to_thread(hear, address) == before
            await new.stop(["web"])
            waits = asyncio.create_task(asyncio.to_thread(hear, address))
            await new.start(["web"])
            assert (await waits).startswith("http ")
            assert not [each for each in new.events.since(0) if each.kind == "sockets"]

    run(scenario())


def test_sockets_that_cannot_be_had_back_are_said(state: Path) -> None:
    """An app that closed its socket, and another program that has its address now."""
    app = App(
        name="web",
        command=(
            sys.executable,
            "-S",
            "-c",
            "import os, time; os.close(3); print('closed', flush=True); time.sleep(999)",
        ),
        listen={"http": f"127.0.0.1:{free_port()}"},
    )
    first = config(state, app)

    async def scenario() -> None:
        old = Supervisor(first, lambda: first)
        await old.begin()
        await until_line(old, "web.0", "closed")
        old.down(leave=True)
        await old.wait()
        port = int(app.listen["http"].rpartition(":")[2])
        with socket.create_server(("127.0.0.1", port)):
            async with house(state, app) as new:
                found = await event(new, lambda each: each.kind == "sockets")
                assert found.app == "web"
                assert f"{os.getpid()} (" in found.message
                assert new.instances["web.0"].model().state == "ready"

    run(scenario())


def test_only_the_command_itself_is_told_of_sockets(state: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the apps that have none, whatever we were given ourselves; not what is run beside an instance."""
    for name, value in {"FDS": "7", "FDNAMES": "mine", "PID": "0", "PIDFDID": "1"}.items():
        monkeypatch.setenv(f"LISTEN_{name}", value)
    told = folder / "told"
    show = "env | grep ^LISTEN_ | grep -v PID= | sort | tr '\\n' ' '"
    with_one = App(
        name="web",
        command=("sh", "-c", f"echo told $({show}); exec sleep infinity"),
        listen={"http": f"unix:{folder}/web"},
        stop=Stop(grace=DEADLINE, command=("sh", "-c", f"{show} >{told}")),
    )
    without = App(name="job", command=("sh", "-c", f"echo told $({show}); exec sleep infinity"))

    async def scenario() -> None:
        async with house(state, with_one, without) as supervisor:
            await until_line(supervisor, "web.0", "told LISTEN_FDNAMES=http LISTEN_FDS=1")
            await until_line(supervisor, "job.0", "told")

    run(scenario())
    assert told.read_text() == ""
