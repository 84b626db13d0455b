"""The socket of sd_notify(3), with real senders: processes of a tree, and strangers."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sexton.supervise.notify import Notify
from tests.support.lines import DEADLINE

SENDER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = os.environ["NOTIFY_SOCKET"]
s.connect("\\0" + name[1:] if name[0] == "@" else name)
for text in sys.argv[1:]:
    s.send(text.encode().decode("unicode_escape").encode("latin1"))
sys.stdin.read()
"""


class Scene:
    """A Notify, what it told, and processes that speak to it."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.family: set[int] = set()
        self.changes = 0
        self.messages: list[str] = []
        self.news = asyncio.Event()
        self.notify = Notify(path, self.family.__contains__, self._changed, self._told, **settings)
        self.children: list[subprocess.Popen[bytes]] = []

    def _changed(self) -> None:
        self.changes += 1
        self.news.set()

    def _told(self, text: str) -> None:
        self.messages.append(text)
        self.news.set()

    def send(self, *texts: str, stranger: bool = False) -> subprocess.Popen[bytes]:
        """A process that says these, each in a datagram, and stays."""
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", SENDER, *texts],
            stdin=subprocess.PIPE,
            env=os.environ | self.notify.environment(),
        )
        self.children.append(child)
        if not stranger:
            self.family.add(child.pid)
        return child

    async def until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.news.clear()
            await self.news.wait()

    def close(self) -> None:
        self.notify.close()
        for child in self.children:
            child.communicate()


def play(path: Path, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    """Run a scene to its end; one that hangs fails."""

    async def scene() -> None:
        made = Scene(path, **settings)
        try:
            await asyncio.wait_for(act(made), DEADLINE)
        finally:
            made.close()

    asyncio.run(scene())


Play = Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=[False, True], ids=["path", "abstract"])
def acted(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Plays a scene with a socket of each kind."""
    return lambda act: play(tmp_path / "web.0.notify", act, abstract=request.param)


def test_it_says_that_it_is_ready_and_how_it_is(acted: Play) -> None:
    async def act(scene: Scene) -> None:
        scene.send("READY=1\\nSTATUS=serving \\x1b[31m7\\x07 requests\\n")
        await scene.notify.ready.wait()
        assert scene.notify.status == "serving  [31m7  requests"
        assert scene.changes == 1
        assert not scene.messages

    acted(act)


def test_all_the_words(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        notify = scene.notify
        scene.send(
            "RELOADING=1\\nMONOTONIC_USEC=17",
            "WATCHDOG=1",
            "WATCHDOG=1\\nWATCHDOG_USEC=2500000",
            "ERRNO=28\\nSTOPPING=1",
        )
        await scene.until(lambda: notify.stopping)
        assert (notify.reloading, notify.beats, notify.watchdog, notify.errno) == (True, 2, 2.5, 28)
        assert not notify.triggered
        assert not notify.ready.is_set()
        del notify  # for mypy, which has seen its attributes and does not know that they change
        notify = scene.notify
        scene.send("READY=1\\nWATCHDOG=trigger", "EXTEND_TIMEOUT_USEC=9000000", "STATUS=\\xff\\xfe")
        await scene.until(lambda: bool(notify.status))
        assert notify.ready.is_set()
        assert not notify.reloading
        assert notify.triggered
        assert 0 < notify.extended - asyncio.get_running_loop().time() <= 9
        assert notify.status == "\ufffd\ufffd"
        notify.reset()
        assert not notify.ready.is_set()
        assert (notify.status, notify.beats, notify.triggered, notify.watchdog) == ("", 0, False, None)

    play(tmp_path / "s", act)


def test_a_stranger_is_not_listened_to(acted: Play) -> None:
    async def act(scene: Scene) -> None:
        stranger = scene.send("READY=1", "READY=1", "WATCHDOG=trigger", stranger=True)
        await scene.until(lambda: len(scene.messages) == 2)
        assert scene.messages[0] == (f"READY came from process {stranger.pid}, which is not of this instance: ignored")
        scene.send("STATUS=here")
        await scene.until(lambda: scene.notify.status == "here")
        assert not scene.notify.ready.is_set()
        assert not scene.notify.triggered
        assert scene.changes == 1

    acted(act)


def test_what_is_refused_and_what_means_nothing(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        sender = scene.send(
            *("MAINPID=1", "FDSTORE=1\\nFDNAME=db", "READY=0", "ERRNO=x\\nWATCHDOG_USEC=0", "", "\\x00\\xff=\\xff"),
            *("X_MINE=1", "x" * 20_000, "STATUS=" + "a" * 900),
        )
        await scene.until(lambda: bool(scene.notify.status))
        assert scene.notify.status == "a" * 500
        assert scene.changes == 1
        assert not scene.notify.ready.is_set()
        assert scene.messages == [
            f"MAINPID=1 of process {sender.pid} was ignored: the main process is the command that we started",
            f"FDSTORE=1 of process {sender.pid} was refused: no descriptors are kept here",
            f"FDNAME=db of process {sender.pid} was refused: no descriptors are kept here",
            f"a message of process {sender.pid} has more than 16384 bytes, and was ignored",
        ]

    play(tmp_path / "s", act)


def test_descriptors_are_closed_so_that_a_barrier_ends(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.family.add(os.getpid())
        reader, writer = os.pipe()
        many = [writer] * 100
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(scene.notify.address)
            fds = array.array("i", many)
            sender.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        os.close(writer)
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, closed.set)
        await closed.wait()
        loop.remove_reader(reader)
        assert os.read(reader, 1) == b""
        os.close(reader)
        assert not scene.changes
        assert not scene.messages

    play(tmp_path / "s", act)


def test_a_flood_lets_others_have_their_turn(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        scene.send(*["WATCHDOG=1"] * 1000)
        await scene.until(lambda: scene.notify.beats == 1000)
        assert scene.changes == 1000

    play(tmp_path / "s", act)


def test_listeners_and_change(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        heard: list[str] = []
        scene.notify.listeners.add(lambda: heard.append(scene.notify.status))
        change = asyncio.ensure_future(scene.notify.change())
        await asyncio.sleep(0)
        scene.send("STATUS=one")
        await change
        assert heard == ["one"]

    play(tmp_path / "s", act)


def test_the_environment(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        path = str(tmp_path / "s")
        assert scene.notify.environment() == {"NOTIFY_SOCKET": path}
        assert scene.notify.environment(1.5) == {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1500000"}

    play(tmp_path / "s", act)


def test_the_next_supervisor_has_the_same_address(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for abstract in (False, True):
        addresses: list[str] = []

        async def act(scene: Scene, addresses: list[str] = addresses) -> None:
            addresses.append(scene.notify.address)
            scene.send("READY=1")
            await scene.notify.ready.wait()

        play(path, act, abstract=abstract)
        path.write_text("left by one that was killed")
        play(path, act, abstract=abstract)
        assert addresses[0] == addresses[1]
    assert path.exists(), "an abstract name has nothing to do with files"


def test_a_socket_is_removed_and_only_its_owner_may_write(tmp_path: Path) -> None:
    async def act(scene: Scene) -> None:
        path = tmp_path / "s"
        assert path.stat().st_mode & 0o777 == 0o600
        scene.notify.close()
        assert not path.exists()
        scene.notify.close()

    play(tmp_path / "s", act)


def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    async def make() -> None:
        with pytest.raises(OSError, match="too long"):
            Notify(tmp_path / ("x" * 120), lambda _: True)
        with pytest.raises(FileNotFoundError):
            Notify(tmp_path / "none" / "s", lambda _: True)

    asyncio.run(make())
