"""What goes wrong around the supervisor, and leaves it and the other instances as they were."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from sexton.errors import SextonError
from sexton.supervise import stopping
from sexton.supervise.config import Restart, Stop
from tests.supervise.houses import app, config, event, house, run, states, until_line, until_state
from tests.support.processes import kill, lives

SLEEP = "exec sleep 1000"


def test_what_was_heard_while_looking_at_its_processes_is_acted_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP)) as it:
            one = it.instances["web.0"]
            assert one.life
            kill(one.life.pid)
            while one.life.tree.returncode is None:  # the guard's word comes a moment after; the loop has no turn here
                one.pids()
            await until_state(it, "web.0", "backoff")

    run(scenario())


def test_an_error_that_is_nobodys_at_a_start_is_a_failure_of_the_instance(tmp_path: Path) -> None:
    async def scenario() -> None:
        web = app("web", SLEEP, rlimits={"nofile": 1 << 62}, restart=Restart(policy="never"))
        async with house(tmp_path, web, app("db", SLEEP)) as it:
            assert states(it) == {"web.0": "fatal", "db.0": "ready"}

    run(scenario())


def test_a_fatal_app_does_not_hurry_a_stop_that_is_under_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        fatal = app("db", "read x <fifo; exit 3", cwd=str(tmp_path), restart=Restart(policy="never"), on_fatal="exit")
        # It ends when it has written a last time, after the other has ended.
        web = app("web", "trap 'echo >fifo; sleep 0.3; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done",
                  cwd=str(tmp_path), stop=Stop(grace=25, scope="child"), after={"db": "started"})  # fmt: skip
        os.mkfifo(tmp_path / "fifo")
        async with house(tmp_path, fatal, web) as it:
            await until_line(it, "web.0", "up")
            it.down()
            await it.wait()
            how = it.instances["web.0"].last_exit
            assert how
            assert (how.code, how.killed) == (0, 0)

    run(scenario())


def test_who_is_started_while_it_is_removed_is_removed_even_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        slow = "trap 'sleep 0.3; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done"
        async with house(tmp_path, app("web", slow, instances=2, stop=Stop(grace=20, scope="child"))) as it:
            await until_line(it, "web.1", "up")
            scaling = asyncio.get_running_loop().create_task(it.scale("web", 1))
            await until_state(it, "web.1", "stopping")
            it.instances["web.1"].happen("start")
            await scaling
            assert states(it) == {"web.0": "ready"}

    run(scenario())


def test_a_reload_that_failed_is_not_taken_for_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as busy:
            addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in (first, busy)]
            first.close()
            old, new = (app("web", SLEEP, listen={"http": address}) for address in addresses)
            async with house(tmp_path, old) as it:
                it._load = lambda: config(tmp_path, new)
                with pytest.raises(SextonError):
                    await it.reload()
                busy.close()
                await it.reload()
                [now] = it.sockets.fds(new)
                with socket.socket(fileno=os.dup(now)) as listens:
                    assert listens.getsockname()[1] == int(addresses[1].split(":")[1])

    run(scenario())


def test_a_ports_file_that_cannot_be_written_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_PORTS_FILE", str(tmp_path / "nowhere/ports.json"))

    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP, ports={"http": 65000})) as it:
            assert states(it) == {"web.0": "ready"}
            await event(it, lambda each: "SEXTON_PORTS_FILE" in each.message)

    run(scenario())


def test_a_guard_that_is_stopped_is_not_adopted_but_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP)) as first:
            before = first.instances["web.0"].model()
            first.down(leave=True)
            await first.wait()
        os.kill(before.guard, signal.SIGSTOP)
        async with house(tmp_path, app("web", SLEEP)) as second:
            assert states(second) == {"web.0": "ready"}
            assert not second.instances["web.0"].adopted
            assert not lives(before.pid)

    run(scenario())


def test_nobody_listens_to_the_sockets_of_an_app_that_is_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        web = app("web", SLEEP, listen={"http": f"127.0.0.1:{port}"}, on_demand=True)
        async with house(tmp_path, web) as it:
            assert states(it) == {"web.0": "idle"}
            await it.stop(["web"])
            for _ in range(3):  # turns of the loop, in which what was given up ends
                await asyncio.sleep(0)
            selector: Any = vars(asyncio.get_running_loop())["_selector"]
            assert not set(it.sockets.fds(web)) & {key.fd for key in selector.get_map().values()}

    run(scenario())


def test_a_guard_that_does_not_answer_is_ended_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "HURRY", 0.1)

    async def scenario() -> None:
        async with house(
            tmp_path, app("web", "setsid sleep 1000 & echo up; exec sleep 1000", stop=Stop(grace=0))
        ) as it:
            await until_line(it, "web.0", "up")
            pids = it.pids("web.0")
            os.kill(it.instances["web.0"].model().guard, signal.SIGSTOP)
            await it.stop(["web"])
            assert not any(lives(pid) for pid in pids)

    run(scenario())


def test_a_command_before_the_stop_that_cannot_be_run_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP, stop=Stop(command=("a\0b",)))) as it:
            await it.stop(["web"])
            assert states(it) == {"web.0": "stopped"}

    run(scenario())
