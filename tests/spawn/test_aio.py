"""The same with await, on asyncio and on trio."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import sexton
from sexton import aio, events
from sexton.errors import LeftoversError, NotOwner, SextonError, UsageError
from sexton.spawn import _processes, _rescue
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE
from tests.support.monsters import double_forked, setsid_daemon
from tests.support.processes import Handle

Runs = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "trio"])
def runs(request: pytest.FixtureRequest) -> Runs:
    """Runs an async function in the one loop or the other; for no longer than the deadline."""

    def run(function: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            with anyio.fail_after(DEADLINE):
                await function()

        anyio.run(bounded, backend=request.param)

    return run


def test_a_tree_from_start_to_end(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        words = troop.words(double_forked("stubborn"), setsid_daemon(), "polite")
        async with await aio.Tree.start(words, **troop.handed, grace=0.2) as tree:
            troop.ready(3)
            assert len(tree.processes()) == 3
            assert tree.returncode is None
            assert tree.contain == "subreaper"
        assert tree.receipt.empty
        assert len(tree.receipt.killed) == 1
        assert tree.returncode == 0

    runs(main)
    troop.end()


def test_cancelling_stops_the_tree(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with await aio.Tree.start(troop.words(double_forked(), "polite"), **troop.handed) as tree:
                await anyio.to_thread.run_sync(troop.ready, 2)
                scope.cancel()
                await tree.wait()
        assert scope.cancelled_caught
        assert tree.receipt.empty

        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(_run, troop)
                await anyio.to_thread.run_sync(troop.ready, 2)
                group.cancel_scope.cancel()

    runs(main)
    troop.end()


async def _run(troop: Troop) -> None:
    await aio.run(troop.words(double_forked(), "polite"), **troop.handed, capture_output=True)


def test_many_wait_and_one_listens(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        seen: list[events.Event] = []
        codes: list[int] = []

        async def listen(tree: aio.Tree) -> None:
            seen.extend([event async for event in tree.events()])

        async def wait(tree: aio.Tree) -> None:
            codes.append(await tree.wait())

        threads = threading.active_count()
        async with (
            await aio.Tree.start(troop.words("polite"), **troop.handed) as tree,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listen, tree)
            for _ in range(5):
                group.start_soon(wait, tree)
            with anyio.move_on_after(0.01):
                await tree.wait()
            await anyio.wait_readable(troop.log.fd)
            await tree.send_signal("USR1")
            assert threading.active_count() == threads
            await tree.stop()
        assert codes == [0] * 5
        assert [event.name for event in seen][-1] == "empty"

    runs(main)


def test_pipes(runs: Runs) -> None:
    async def main() -> None:
        async with await aio.Tree.start(["cat"], stdin=sexton.PIPE, stdout=sexton.PIPE) as tree:
            assert tree.stdout is not None
            await tree.send(b"some words")
            assert await tree.receive(tree.stdout) == b"some words"
            await tree.close_stdin()
            assert await tree.receive(tree.stdout) == b""
            assert await tree.wait() == 0

    runs(main)


SAME: list[tuple[Any, dict[str, Any]]] = [
    (["true"], {}),
    ("echo out; echo err >&2; exit 3", {"shell": True, "capture_output": True}),
    (["cat"], {"input": b"x" * 300_000, "stdout": subprocess.PIPE}),
    (["cat"], {"input": "é\n", "stdout": subprocess.PIPE, "text": True}),
    (["true"], {"input": b"nobody reads this" * 10_000}),
    (["sh", "-c", "exec >&- 2>&-; exit 4"], {"capture_output": True, "timeout": DEADLINE}),
    (["head", "-c", "1000000", "/dev/zero"], {"capture_output": True}),
    ((["sh", "-c", "pwd"], -1, None, None, subprocess.PIPE), {"cwd": "/"}),
]


@pytest.mark.parametrize(("args", "settings"), SAME)
def test_run_is_that_of_subprocess(runs: Runs, args: Any, settings: dict[str, Any]) -> None:
    async def main() -> None:
        words = args if isinstance(args, tuple) else (args,)
        theirs = subprocess.run(*words, **settings)  # noqa: ASYNC221, PLW1510 - to compare with, as run() is called
        ours = await aio.run(*words, **settings)
        assert vars(theirs) | {"receipt": ours.receipt} == vars(ours)

    runs(main)


def test_errors_are_those_of_run(runs: Runs) -> None:
    async def main() -> None:
        with pytest.raises(subprocess.CalledProcessError):
            await aio.run(["false"], check=True)
        with pytest.raises(FileNotFoundError):
            await aio.run(["no-such-program"])
        with pytest.raises(FileNotFoundError):
            await aio.Tree.start(["no-such-program"])
        with pytest.raises(ValueError, match="capture_output"):
            await aio.run(["true"], capture_output=True, stdout=subprocess.DEVNULL)
        with pytest.raises(ValueError, match="capture_output"):
            await aio.run(["true"], capture_output=True, stderr=subprocess.STDOUT)
        with pytest.raises(ValueError, match="stdin and input"):
            await aio.run(["true"], input=b"", stdin=subprocess.PIPE)

    runs(main)


def test_check_call_and_check_output(runs: Runs) -> None:
    async def main() -> None:
        assert await aio.check_call(["true"]) == 0
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await aio.check_call(["sh", "-c", "exit 3"])
        assert caught.value.returncode == 3
        assert await aio.check_output("echo $0", shell=True, text=True) == "/bin/sh\n"
        assert await aio.check_output(["cat"], input=None) == b""
        assert await aio.check_output(["cat"], input=None, text=True) == ""
        assert await aio.check_output(["cat"], input=b"in", timeout=DEADLINE) == b"in"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await aio.check_output(["sh", "-c", "echo out; exit 4"])
        assert (caught.value.returncode, caught.value.output) == (4, b"out\n")
        for name in ("stdout", "check"):
            with pytest.raises(ValueError, match=f"{name} argument not allowed"):
                await aio.check_output(["true"], **{name: subprocess.PIPE})
        with pytest.raises(sexton.TimeoutExpired):
            await aio.check_call(["sleep", "1000"], timeout=0.01)

    runs(main)


def test_orders_are_answered(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        async with await aio.Tree.start(troop.words(setsid_daemon(), "polite"), **troop.handed, lease=1000) as tree:
            await anyio.to_thread.run_sync(troop.ready, 2)
            status = await tree.status()
            assert status
            assert (status.pid, status.phase) == (tree.pid, "running")
            assert tree.poll() is None
            await tree.terminate()
            assert await tree.wait_command() == 0
            with pytest.raises(TimeoutError), anyio.fail_after(0):
                await tree.wait()
            await tree.ask_to_stop()
            assert await tree.wait() == 0
            assert tree.poll() == 0
            assert await tree.status() is None
            await tree.renew()  # nothing happens
        async with await aio.Tree.start(["sleep", "1000"]) as tree:
            with pytest.raises(SextonError, match="refused `renew`"):
                await tree.renew()
            with anyio.move_on_after(0):
                await tree.status()
            assert await tree.status()

    runs(main)
    troop.end()


def test_nobody_listens_between_thousands_of_orders(runs: Runs) -> None:
    """The answers leave room for how the command ended."""

    async def main() -> None:
        words = ["sh", "-c", "read x; exit 7"]
        async with await aio.Tree.start(words, stdin=sexton.PIPE, lease=1000) as tree:
            for _ in range(4000):
                await tree.renew()
            guard = Handle(tree.guard)
            await tree.close_stdin()
            guard.wait_dead()
            guard.close()
            assert await tree.wait() == 7
            assert not tree.receipt.guard_lost
            assert not tree.receipt.lines_lost

    runs(main)


@pytest.mark.parametrize("look", ["returncode", "receipt", "processes"])
def test_who_looks_takes_no_news_from_who_waits(runs: Runs, troop: Troop, look: str) -> None:
    async def main() -> None:
        words = troop.words(setsid_daemon(), "polite")
        async with (
            await aio.Tree.start(words, **troop.handed, on_exit="wait") as tree,
            anyio.create_task_group() as group,
        ):
            codes: list[int] = []

            async def wait() -> None:
                codes.append(await tree.wait_command())

            await anyio.to_thread.run_sync(troop.ready, 2)
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            command = Handle(tree.pid)
            await tree.terminate()
            command.wait_dead()
            command.close()
            inner = tree._tree
            with inner.watched() as guard:
                poll = select.poll()
                poll.register(guard, select.POLLIN)  # type: ignore[arg-type]
                while not inner._record.ended:  # the loop stands still, and only who looks hears of it
                    assert poll.poll(DEADLINE * 1000)
                    value = getattr(tree, look)
                    _ = value() if callable(value) else value
            while not codes:
                await anyio.lowlevel.checkpoint()
            assert codes == [0]
            assert len(tree.processes()) == 1

    runs(main)
    troop.end()


def test_a_tree_that_was_given_up_is_not_waited_for(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        async with (
            anyio.create_task_group() as group,
            await aio.Tree.start(troop.words("polite"), **troop.handed, on_owner_lost="keep") as tree,
        ):
            await anyio.to_thread.run_sync(troop.ready)

            async def wait() -> None:
                with pytest.raises(NotOwner):
                    await tree.wait()

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            tree.close()
        os.kill(tree.pid, signal.SIGTERM)  # its parent, the guard, is ours, and nobody has waited for it

    runs(main)
    troop.end()


def test_a_timeout_is_kept_whoever_holds_the_pipes(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        words = troop.words(double_forked("stubborn"), "await 1", "polite")
        with pytest.raises(sexton.TimeoutExpired) as caught:
            await aio.run(["sh", "-c", 'echo partial; exec "$@"', "sh", *words], **troop.handed,
                          capture_output=True, timeout=0.5, grace=0.2)  # fmt: skip
        assert (caught.value.stdout, caught.value.stderr) == (b"partial\n", b"")
        assert [holder.streams for holder in caught.value.holders] == [("stderr", "stdout")] * 2
        assert caught.value.receipt
        assert caught.value.receipt.empty

    runs(main)
    troop.end()


STOPS = "read word; kill -STOP $PPID; sleep 1000"


@pytest.mark.parametrize("how", ["stop", "kill", "status", "leave"])
def test_a_guard_that_is_stopped(runs: Runs, how: str) -> None:
    async def main() -> None:
        async with await aio.Tree.start(["sh", "-c", STOPS], stdin=subprocess.PIPE, grace=0.2) as tree:
            await tree.close_stdin()
            assert os.waitid(os.P_PID, tree.guard, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222 - the loop has nothing else
            if how == "status":
                assert await tree.status()
            elif how != "leave":
                await getattr(tree, how)()
        assert tree.receipt.empty
        assert tree.returncode == (-9 if how == "kill" else -15)

    runs(main)


def test_a_timeout_with_a_guard_that_is_stopped(runs: Runs) -> None:
    async def main() -> None:
        with pytest.raises(sexton.TimeoutExpired) as expired:
            await aio.run(["sh", "-c", STOPS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=0.2, grace=0.2)
        assert expired.value.receipt
        assert expired.value.receipt.empty

    runs(main)


@pytest.mark.parametrize("settings", [{}, {"stdout": subprocess.PIPE}], ids=["alone", "pipes"])
def test_who_outlives_sigkill_is_an_error_of_its_own(
    runs: Runs, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one of a group, whatever else was waited for."""
    end = _rescue.end
    stuck = _processes.look(os.getpid())
    assert stuck
    monkeypatch.setattr(_rescue, "end", lambda *args: [*end(*args), stuck])

    async def main() -> None:
        with pytest.raises(LeftoversError, match=str(os.getpid())):
            await aio.run(["sh", "-c", "kill -KILL $PPID; sleep 1000"], **settings)

    runs(main)


def test_who_is_left_behind_and_writes_for_ever(runs: Runs) -> None:
    """What is in the pipe when the guard has gone is all; SIGPIPE ends the writer then."""

    async def main() -> None:
        words = ["sh", "-c", "yes & echo $! >&2"]
        done = await aio.run(words, capture_output=True, on_exit="leave")
        with contextlib.suppress(ProcessLookupError):
            writer = Handle(int(done.stderr))
            writer.wait_dead()
            writer.close()

    runs(main)


def test_leftovers_of_an_ended_command_do_not_hold_the_result(runs: Runs, troop: Troop) -> None:
    async def main() -> None:
        done = await aio.run(troop.words(double_forked(), "await 1", "exit 2"), **troop.handed, capture_output=True)
        assert done.returncode == 2

    runs(main)
    troop.end()


def test_what_is_no_pipe_is_named(runs: Runs) -> None:
    async def main() -> None:
        async with await aio.Tree.start(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
            assert repr(tree) == f"<Tree ['cat'] guard={tree.guard} pid={tree.pid} running>"
            await tree.send(b"word")
            assert await tree.receive(tree.stdout) == b"word"
            with pytest.raises(UsageError, match=r"^no open pipe: stderr of \['cat'\]; start the tree with"):
                await tree.receive(tree.stderr)
            await tree.close_stdin()
            with pytest.raises(UsageError, match=r"^stdin of \['cat'\] was closed$"):
                await tree.send(b"word")
            assert await tree.wait() == 0
            assert repr(tree).endswith(" ended>")
        assert tree.stdout is None
        with pytest.raises(UsageError, match=r"^stdin of \['cat'\] was closed$"):
            await tree.send(b"word")
        async with await aio.Tree.start(["sleep", "100"]) as tree:
            with pytest.raises(UsageError, match="is no pipe; start the tree with stdin=PIPE"):
                await tree.send(b"word")
            with pytest.raises(UsageError, match="no open pipe: stdout and stderr of"):
                await tree.receive(tree.stdout)

    runs(main)


@pytest.mark.parametrize("settings", [{"text": True}, {"encoding": "ascii"}, {"errors": "replace"}])
def test_a_tree_has_no_text(runs: Runs, settings: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match=f"{next(iter(settings))}=.*: the streams of an aio.Tree are of bytes"):
            await aio.Tree.start(["true"], **settings)
        async with await aio.Tree.start(["true"], text=False):
            pass
        ladder: dict[str, Any] = {"contain": "pidns", "require": "subreaper"}
        assert (await aio.run(["echo", "x"], capture_output=True, **ladder, **settings)).stdout == "x\n"

    runs(main)
