"""The supervisor with real processes: starting, failing, stopping, in order."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sexton.errors import SextonError, UsageError
from sexton.supervise import models
from sexton.supervise.config import Probe, Restart, Stop
from sexton.supervise.instance import Instance
from sexton.supervise.states import Event
from sexton.supervise.supervisor import Supervisor
from tests.supervise.houses import app, changes, config, event, house, run, states, until_line, until_state
from tests.support.processes import await_end, lives

SLEEP = "exec sleep 1000"
UP = Probe(log="up")
SLOW = Restart(backoff=1000)


def test_an_app_runs_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", "setsid sleep 1000 & exec sleep 1000", instances=2)) as it:
            assert states(it) == {"web.0": "ready", "web.1": "ready"}
            one = it.instances["web.0"].model()
            assert one.pid in it.pids("web.0")
            assert (one.restarts, one.adopted, one.last_exit) == (0, False, None)
            done = await it.stop(["web.0"])
            assert done.instances == ("web.0",)
            assert states(it) == {"web.0": "stopped", "web.1": "ready"}
            how = it.instances["web.0"].model().last_exit
            assert how
            assert how.signal == "TERM"
            assert it.pids("web.0") == set()
            await it.start(["web"])
            assert states(it) == {"web.0": "ready", "web.1": "ready"}
        assert it.journal.open == {}

    run(scenario())


def test_what_crashes_is_started_again_and_its_exit_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP)) as it:
            first = it.instances["web.0"].model().pid
            os.kill(first, signal.SIGKILL)
            told = await event(it, lambda each: each.kind == "exit")
            assert told.exit
            assert told.exit.signal == "KILL"
            await event(it, lambda each: each.state == "ready" and each.was == "starting" and each.number > told.number)
            again = it.instances["web.0"].model()
            assert again.restarts == 1
            assert again.pid not in {0, first}
            assert changes(it)[-3:] == [("web.0", "backoff"), ("web.0", "starting"), ("web.0", "ready")]

    run(scenario())


def test_a_guard_that_is_killed_takes_its_tree_along(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", "setsid sleep 1000 & echo up; exec sleep 1000")) as it:
            await until_line(it, "web.0", "up")
            before = it.pids("web.0")
            assert len(before) == 2
            os.kill(it.instances["web.0"].model().guard, signal.SIGKILL)
            told = await event(it, lambda each: each.kind == "exit")
            assert told.exit
            assert told.exit.why == "the guard was killed"
            assert not any(lives(pid) for pid in before)
            await event(it, lambda each: each.state == "ready" and each.number > told.number)

    run(scenario())


def test_too_many_failures_are_fatal_and_can_end_the_supervisor(tmp_path: Path) -> None:
    async def scenario() -> None:
        limited = Restart(backoff=0.001, factor=1, limit=3)
        web = app("web", "exit 7", restart=limited, on_fatal="exit")
        async with house(tmp_path, web, app("db", SLEEP), begin=False) as it:
            asyncio.get_running_loop().create_task(it.begin())
            assert await it.wait() == 7
            assert states(it) == {"web.0": "fatal", "db.0": "stopped"}
            why = r"ended with exit code 7; given up after 3 restarts in \d+\.\d s \(restart\.limit\)"
            assert re.fullmatch(why, it.instances["web.0"].message)
            assert len([each for each in it.events.since(0) if each.kind == "exit" and each.app == "web"]) == 4

    run(scenario())


def test_a_fatal_app_can_stop_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        web = app("web", "exit 1", restart=Restart(policy="never"), on_fatal="stop")
        async with house(tmp_path, app("db", SLEEP), web) as it:
            await until_state(it, "db.0", "stopped")
            assert states(it) == {"db.0": "stopped", "web.0": "fatal"}
            assert "fatal" in it.instances["db.0"].message or it.instances["db.0"].state == "stopped"

    run(scenario())


def test_a_command_that_cannot_be_executed_is_fatal_in_the_end_and_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        missing = app("web", "", restart=Restart(backoff=0.001, limit=1))
        missing = type(missing)(name="web", command=("/no/such/program",), restart=missing.restart)
        async with house(tmp_path, missing) as it:
            one = await until_state(it, "web.0", "fatal")
            assert "No such file" in one.message
            assert "; given up after 1 restart in " in one.message
            assert one.message.endswith(" (restart.limit); `sexton start web.0` tries again")

    run(scenario())


def test_a_directory_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        missing = app("web", SLEEP, cwd=str(tmp_path / "missing"), restart=Restart(limit=0))
        async with house(tmp_path, missing) as it:
            one = await until_state(it, "web.0", "fatal")
            assert one.message == (
                f"apps.web.cwd: {tmp_path}/missing: no such file or directory: expected a directory to run it in"
                "; not restarted (restart.limit = 0); `sexton start web.0` tries again"
            )
            (tmp_path / "missing").mkdir()
            await it.start(["web.0"])
            await until_state(it, "web.0", "ready")

    run(scenario())


def test_when_all_is_completed_it_is_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("a", "exit 0"), app("b", "exit 0", after={"a": "completed"}), begin=False) as it:
            await it.begin()
            assert await it.wait() == 0
            assert changes(it).index(("a.0", "completed")) < changes(it).index(("b.0", "starting"))

    run(scenario())


def test_it_stops_in_the_reverse_of_its_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(
            tmp_path,
            app("web", SLEEP, after={"cache": "ready"}),
            app("cache", SLEEP, after={"db": "started"}),
            app("db", SLEEP),
        ) as it:
            order = [name for name, state in changes(it) if state == "ready"]
            assert order == ["db.0", "cache.0", "web.0"]
            it.down()
            await it.wait()
            stopped = [name for name, state in changes(it) if state in {"stopping", "stopped"}]
            assert stopped == ["web.0", "web.0", "cache.0", "cache.0", "db.0", "db.0"]

    run(scenario())


def test_who_ignores_the_signal_is_killed_after_the_grace(tmp_path: Path) -> None:
    async def scenario() -> None:
        deaf = "trap '' TERM; setsid sleep 1000 & echo up; sleep 1000; sleep 1000"
        async with house(tmp_path, app("web", deaf, stop=Stop(grace=0.2))) as it:
            await until_line(it, "web.0", "up")
            await it.stop(["web"])
            how = it.instances["web.0"].last_exit
            assert how
            assert how.signal == "KILL"
            assert how.killed >= 2
            assert how.seconds >= 0.2

    run(scenario())


def test_a_command_runs_before_the_stop_signal(tmp_path: Path) -> None:
    async def scenario() -> None:
        said = tmp_path / "said"
        web = app(
            "web",
            f"trap 'echo term >>{said}; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done",
            stop=Stop(grace=20, command=("sh", "-c", f"echo before $MAINPID $SEXTON_INSTANCE >>{said}")),
        )
        async with house(tmp_path, web) as it:
            await until_line(it, "web.0", "up")
            pid = it.instances["web.0"].model().pid
            await it.stop(["web"])
            assert said.read_text() == f"before {pid} 0\nterm\n"

    run(scenario())


async def ready_after(it: Supervisor, name: str, number: int) -> None:
    await event(it, lambda each: (each.instance, each.state) == (name, "ready") and each.number > number)


def test_each_instance_has_its_directory_and_its_probes_and_its_pre_stop_command_run_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        for number in (0, 1):
            (tmp_path / f"site{number}").mkdir()
        web = app(
            "web",
            "touch here; exec sleep 1000",
            instances=2,
            cwd=f"{tmp_path}/site${{instance}}",
            ready=Probe(exec=("test", "-e", "here")),
            stop=Stop(command=("sh", "-c", "echo ${instance} >stopped")),
        )
        async with house(tmp_path / "state", web) as it:
            assert states(it) == {"web.0": "ready", "web.1": "ready"}
        assert [(tmp_path / f"site{number}/stopped").read_text() for number in (0, 1)] == ["0\n", "1\n"]

    run(scenario())


@pytest.mark.parametrize(
    ("strategy", "others"), [("one_for_one", set()), ("one_for_all", {"a.0", "c.0"}), ("rest_for_one", {"c.0"})]
)
def test_strategies(tmp_path: Path, strategy: str, others: set[str]) -> None:
    async def scenario() -> None:
        apps = app("a", SLEEP), app("b", SLEEP, after={"a": "ready"}), app("c", SLEEP, after={"b": "ready"})
        async with house(tmp_path, *apps, strategy=strategy) as it:
            before = {name: one.model().pid for name, one in it.instances.items()}
            os.kill(before["b.0"], signal.SIGKILL)
            told = await event(it, lambda each: each.kind == "exit" and each.app == "b")
            for name in {"b.0", *others}:
                await ready_after(it, name, told.number)
            after = {name: one.model().pid for name, one in it.instances.items()}
            assert {name for name in before if before[name] != after[name]} == {"b.0", *others}

    run(scenario())


def test_a_rolling_restart_stops_at_the_first_that_does_not_come_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        flag = tmp_path / "broken"
        web = app("web", f"test -e {flag} && exit 3; echo up; exec sleep 1000", instances=3, ready=UP, restart=SLOW)
        async with house(tmp_path, web) as it:
            before = {name: one.model().pid for name, one in it.instances.items()}
            await it.restart(["web"])
            after = {name: one.model().pid for name, one in it.instances.items()}
            assert not set(before.values()) & set(after.values())
            flag.touch()
            with pytest.raises(SextonError, match=r"web\.0 did not come up again"):
                await it.restart(["web"])
            assert [it.instances[f"web.{n}"].model().pid for n in (1, 2)] == [after["web.1"], after["web.2"]]

    run(scenario())


def test_scaling(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP)) as it:
            first = it.instances["web.0"].model().pid
            await it.scale("web", 3)
            assert states(it) == {"web.0": "ready", "web.1": "ready", "web.2": "ready"}
            await it.scale("web", 1)
            assert states(it) == {"web.0": "ready"}
            assert it.instances["web.0"].model().pid == first
            await it.scale("web", 0)
            assert states(it) == {}
            await it.scale("web", 1)
            assert states(it) == {"web.0": "ready"}
            with pytest.raises(UsageError, match=r"expected an app \(did you mean web\?\)"):
                await it.scale("wbe", 1)

    run(scenario())


def test_many_instances_take_more_descriptors_than_a_program_has_by_default(tmp_path: Path) -> None:
    script = "ulimit -S -n; ulimit -H -n; exec sleep 1000"
    code = f"""
import resource
from pathlib import Path
from sexton.supervise.config import Probe
from tests.supervise.houses import app, house, run, states
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 1000))
async def scenario():
    async with house(Path({str(tmp_path)!r}), app("web", {script!r}, instances=40, ready=Probe(log="1000"))) as it:
        assert set(states(it).values()) == {{"ready"}}, it.status()
        print(sorted(line.text for line in it.capture.tail(["web.7"], 2)))
run(scenario())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "['1000', '120']\n", done.stderr


def test_no_place_for_output_is_a_failure_like_any_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP, restart=Restart(policy="never")), begin=False) as it:
            (it.run / "web.0.out").mkdir()
            await it.begin()
            assert states(it) == {"web.0": "fatal"}
            assert "cannot start" in it.instances["web.0"].message
            assert it.journal.open == {}
            (it.run / "web.0.out").rmdir()
            await it.start(["web"])
            assert states(it) == {"web.0": "ready"}

    run(scenario())


def test_a_reload_applies_the_difference_and_only_that(tmp_path: Path) -> None:
    async def scenario() -> None:
        old = app("same", SLEEP), app("other", SLEEP), app("gone", SLEEP), app("more", SLEEP)
        new = (
            app("same", SLEEP, restart=Restart(limit=77)),
            app("other", "exec sleep 2000"),
            app("more", SLEEP, instances=2),
            app("new", SLEEP, after={"same": "ready"}),
        )
        async with house(tmp_path, *old) as it:
            before = {name: one.model().pid for name, one in it.instances.items()}
            it._load = lambda: config(tmp_path, *new)
            changed = await it.reload()
            assert changed == models.Changes(
                added=("new",), removed=("gone",), changed=("other",), scaled=("more",), unchanged=()
            )
            after = {name: one.model().pid for name, one in it.instances.items()}
            assert set(after) == {"same.0", "other.0", "more.0", "more.1", "new.0"}
            assert before["same.0"] == after["same.0"]
            assert before["more.0"] == after["more.0"]
            assert before["other.0"] != after["other.0"]
            assert it.instances["same.0"].app.restart.limit == 77
            changed = await it.reload()
            assert len(changed.unchanged) == 4

            def broken() -> None:
                raise UsageError("sexton.toml:3: apps.web.command: expected ...")

            it._load = broken  # type: ignore[assignment]
            with pytest.raises(UsageError, match="nothing was changed"):
                await it.reload()
            assert {name: one.model().pid for name, one in it.instances.items()} == after

    run(scenario())


def test_signals(tmp_path: Path) -> None:
    async def scenario() -> None:
        script = "trap 'echo usr1' USR1; echo up; while :; do sleep 1000 & wait; done"
        async with house(tmp_path, app("web", script)) as it:
            await until_line(it, "web.0", "up")
            done = await it.signal(["web.0"], "SIGUSR1", "child")
            assert done.message == "web.0: SIGUSR1 was sent to its child"
            await until_line(it, "web.0", "usr1")
            with pytest.raises(UsageError, match="NOPE"):
                await it.signal(["web.0"], "NOPE", "child")
            with pytest.raises(UsageError, match="'99' is no signal: expected a name as in `kill -l`, or a number"):
                await it.signal(["web.0"], "99", "child")
            with pytest.raises(UsageError, match="scope"):
                await it.signal(["web.0"], "USR1", "everybody")
            with pytest.raises(UsageError, match="'wob'"):
                await it.signal(["wob"], "USR1", "child")

    run(scenario())


def test_a_successor_adopts_and_knows_how_it_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        (tmp_path / "fifo").unlink(missing_ok=True)
        os.mkfifo(tmp_path / "fifo")
        waits = app("waits", f"read word <{tmp_path}/fifo; echo $word; exit 9", restart=Restart(policy="never"))
        async with house(tmp_path, app("web", SLEEP), waits) as first:
            before = {name: one.model() for name, one in first.instances.items()}
            first.down(leave=True)
            await first.wait()
        (tmp_path / "fifo").write_text("last words\n")  # and so it ends while nobody looks
        await_end(before["waits.0"].pid)
        async with house(tmp_path, app("web", SLEEP), waits) as second:
            one = second.instances["web.0"].model()
            assert (one.pid, one.adopted, one.state) == (before["web.0"].pid, True, "ready")
            late = await until_state(second, "waits.0", "fatal")
            assert late.last_exit
            assert late.last_exit.code == 9
            assert [line.text for line in second.capture.tail(["waits.0"], 10)] == ["last words"]
            assert second.epoch == first.epoch + 1
        for end in (reading, writing):
            os.close(end)

    run(scenario())


def test_a_successor_with_another_configuration_restarts_what_differs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, app("web", SLEEP), app("gone", SLEEP)) as first:
            before = {name: one.model().pid for name, one in first.instances.items()}
            first.down(leave=True)
            await first.wait()
        async with house(tmp_path, app("web", "exec sleep 2000")) as second:
            assert states(second) == {"web.0": "ready"}
            assert second.instances["web.0"].model().pid != before["web.0"]
            assert not any(lives(pid) for pid in before.values())
            assert {path.name for path in second.run.iterdir()} == {"web.0.guard", "web.0.out", "web.0.err"}

    run(scenario())


def test_a_second_down_leaves_no_more_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        deaf = "trap '' TERM; echo up; while :; do sleep 1000 & wait; done"
        async with house(tmp_path, app("web", deaf, stop=Stop(grace=1000))) as it:
            await until_line(it, "web.0", "up")
            it.down()
            await until_state(it, "web.0", "stopping")
            it.down()
            await it.wait()

    run(scenario())


def test_the_stop_of_everything_has_a_limit_in_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        deaf = "trap '' TERM; while :; do sleep 1000 & wait; done"
        apps = [app(f"web{n}", deaf, stop=Stop(grace=1000)) for n in range(3)]
        async with house(tmp_path, *apps, stop_timeout=0.5) as it:
            it.down()
            await it.wait()
            assert set(states(it).values()) == {"stopped"}

    run(scenario())


async def forgotten(one: Instance) -> None:
    """Wait for the timer that forgets its failures: it is the last thing that the loop has to do for it."""
    done = asyncio.Event()
    take = one.happen

    def heard(event: Event, message: str = "") -> None:
        take(event, message)
        if event == "stable":
            done.set()

    one.happen = heard  # type: ignore[method-assign]
    await done.wait()
    one.happen = take  # type: ignore[method-assign]
    assert not one._failures


def test_failures_are_forgotten_after_a_stable_life(tmp_path: Path) -> None:
    async def scenario() -> None:
        quick = Restart(backoff=0.001, factor=1, jitter=0, limit=1, stable=0.05)
        async with house(tmp_path, app("web", SLEEP, restart=quick)) as it:
            for _ in range(3):
                number = it.events.since(0)[-1].number
                os.kill(it.instances["web.0"].model().pid, signal.SIGKILL)
                await event(it, lambda each, n=number: each.number > n and each.state == "ready")  # type: ignore[misc]
                assert it.instances["web.0"]._failures == 1
                await forgotten(it.instances["web.0"])

    run(scenario())
