"""Sockets that outlive instances: opened, passed to real programs, got back after a supervisor's death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sexton.errors import SextonError, UsageError
from sexton.spawn import Tree
from sexton.supervise.config import App
from sexton.supervise.listener import who_listens
from sexton.supervise.sockets import FIRST, MOST, Sockets, passing
from tests.supervise.servers import free_port
from tests.support.lines import DEADLINE, Lines
from tests.support.processes import Handle

# Takes what it is given by the rules of sd_listen_fds(3), says it, and answers on each with the socket's name.
SERVER = """
import os, selectors, socket, sys
assert int(os.environ["LISTEN_PID"]) == os.getpid(), (os.environ["LISTEN_PID"], os.getpid())
names = os.environ["LISTEN_FDNAMES"].split(":")
given = {socket.socket(fileno=3 + at): name for at, name in enumerate(names)}
assert len(given) == int(os.environ["LISTEN_FDS"])
others = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) >= 3 + len(given)]
print("given", *names, "others", sum(os.path.exists(f"/proc/self/fd/{fd}") for fd in others), flush=True)
chosen = selectors.DefaultSelector()
for one in given:
    chosen.register(one, selectors.EVENT_READ)
while True:
    for key, _ in chosen.select():
        peer, _ = key.fileobj.accept()
        try:
            peer.sendall(f"{given[key.fileobj]} {os.getpid()}\\n".encode())
        except BrokenPipeError:
            pass  # the client has gone
        if len(sys.argv) > 1:
            kept = peer, sys.stdin.read(1)
        peer.close()
"""
NODE = """
const names = process.env.LISTEN_FDNAMES.split(":")
if (+process.env.LISTEN_PID !== process.pid) throw new Error("not for " + process.pid)
require("net").createServer(peer => peer.end(names[0] + " " + process.pid + "\\n"))
  .listen({ fd: 3 }, () => console.log("given", ...names, "others", 0))
"""


def app(**listen: str) -> App:
    return App(name="web", command=("true",), listen=listen)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """What a supervisor has."""
    made = Sockets()
    yield made
    made.forget()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name: the path of a socket has 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="sockets-"))
    yield path
    shutil.rmtree(path)


def start(sockets: Sockets, app: App, *words: str, **more: Any) -> Tree:
    given = passing(sockets, app)
    return Tree(
        words or [sys.executable, "-S", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **given.environment},
        preexec_fn=given.preexec_fn,
        pass_fds=given.pass_fds,
        **more,
    )


def line(tree: Tree) -> str:
    assert tree.stdout
    lines = Lines(os.dup(tree.stdout.fileno()))
    said = lines.line() or ""
    lines.close()
    return said


def hear(family: socket.AddressFamily, where: Any) -> str:
    with socket.socket(family) as talk:
        talk.settimeout(DEADLINE)
        talk.connect(where)
        return talk.makefile().read()


def hear_port(port: int, host: str = "127.0.0.1") -> str:
    return hear(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))


# --- passing ---


def test_a_command_gets_each_socket_by_its_name_and_nothing_else(sockets: Sockets, folder: Path) -> None:
    port, other = free_port(), free_port()
    web = app(http=str(port), admin=f"127.0.0.1:{other}", local=f"unix:{folder}/web")
    sockets.open(web)
    with start(sockets, web) as tree:
        assert line(tree) == "given http admin local others 0"
        assert hear_port(port) == f"http {tree.pid}\n"
        assert hear_port(port, "::1") == f"http {tree.pid}\n"
        assert hear_port(other) == f"admin {tree.pid}\n"
        assert hear(socket.AF_UNIX, f"{folder}/web") == f"local {tree.pid}\n"


def test_node_takes_it_too(sockets: Sockets) -> None:
    port = free_port()
    web = app(http=f"127.0.0.1:{port}")
    sockets.open(web)
    with start(sockets, web, "node", "-e", NODE) as tree:
        assert line(tree) == "given http others 0"
        assert hear_port(port) == f"http {tree.pid}\n"


@pytest.mark.parametrize("busy", [0, 40])
def test_wherever_our_own_descriptors_are(busy: int, folder: Path) -> None:
    """Descriptors that a command's sockets go to are free of what subprocess opens, and sockets may be anywhere."""
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(busy)]
    sockets = Sockets()
    many = app(**{f"s{n}": f"unix:{folder}/{n}" for n in range(MOST)})
    sockets.open(many)
    for fd in held:  # what had them before us has gone: the lowest are free
        os.close(fd)
    try:
        for _ in range(2):
            with start(sockets, many) as tree:
                assert line(tree) == f"given {' '.join(many.listen)} others 0"
                for name in ("s0", f"s{MOST - 1}"):
                    path = many.listen[name].removeprefix("unix:")
                    assert hear(socket.AF_UNIX, path) == f"{name} {tree.pid}\n"
    finally:
        sockets.close(many)
        sockets.forget()


def test_more_than_can_be_passed_is_said(sockets: Sockets) -> None:
    many = app(**{f"s{n}": f"unix:/nowhere/{n}" for n in range(MOST + 1)})
    with pytest.raises(UsageError, match="listens on 33 addresses; 32 at most"):
        passing(sockets, many)


def test_our_own_descriptors_are_as_they_were(sockets: Sockets) -> None:
    web = app(http=f"127.0.0.1:{free_port()}")
    sockets.open(web)
    before = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in range(FIRST, FIRST + MOST)}
    assert all(before.values())
    with start(sockets, web) as tree:
        assert line(tree).startswith("given http")
    assert {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in range(FIRST, FIRST + MOST)} == before
    with subprocess.Popen(["ls", "-l", "/proc/self/fd"], stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout
        assert b"socket:" not in child.stdout.read(), "they are close-on-exec"


def test_two_instances_share_it_and_no_connection_is_lost_between_lives(sockets: Sockets) -> None:
    port = free_port()
    web = app(http=f"127.0.0.1:{port}")
    sockets.open(web)
    with start(sockets, web) as first, start(sockets, web) as second:
        line(first), line(second)
        first.stop()
        assert hear_port(port) == f"http {second.pid}\n"
        second.stop()
    # Nobody runs: it waits.
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as waits, start(sockets, web) as third:
        assert waits.makefile().read() == f"http {third.pid}\n"


# --- opening ---


def test_without_a_host_all_addresses_are_meant(sockets: Sockets) -> None:
    for address in ("{}", ":{}", "*:{}", "[::]:{}"):
        port = free_port()
        web = app(http=address.format(port))
        sockets.open(web)
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with socket.socket(family) as talk:
                talk.connect((host, port))
        sockets.close(web)
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            pass


def test_one_host_is_that_one(sockets: Sockets) -> None:
    port = free_port()
    sockets.open(app(http=f"[::1]:{port}"))
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_who_has_the_address_already_is_named_and_nothing_is_open_then(sockets: Sockets, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        comm = Path("/proc/self/comm").read_text().strip()
        web = app(local=f"unix:{folder}/web", http=f"127.0.0.1:{port}")
        with pytest.raises(SextonError) as caught:
            sockets.open(web)
    assert str(caught.value) == (
        f"web cannot listen on 127.0.0.1:{port} (http): Address already in use; {os.getpid()} ({comm}) listens there"
    )
    assert os.listdir(folder) == []


@pytest.mark.parametrize("address", ["no.such.host.invalid:80", "unix:/no/such/directory/web", "192.0.2.1:80"])
def test_what_cannot_be_had_is_said(sockets: Sockets, address: str) -> None:
    with pytest.raises(SextonError, match=r"^web cannot listen on .* \(http\): "):
        sockets.open(app(http=address))


@pytest.mark.parametrize(("said", "mode"), [("", 0o666), ("?mode=600", 0o600), ("?mode=0660", 0o660)])
def test_the_mode_of_a_unix_socket_is_right_from_the_first_moment(
    sockets: Sockets, folder: Path, said: str, mode: int
) -> None:
    sockets.open(app(local=f"unix:{folder}/web{said}"))
    assert stat.S_IMODE((folder / "web").stat().st_mode) == mode


def test_a_mode_that_is_none_is_said(sockets: Sockets, folder: Path) -> None:
    with pytest.raises(UsageError, match="mode: 'rw': expected an octal number"):
        sockets.open(app(local=f"unix:{folder}/web?mode=rw"))


def test_the_file_of_a_dead_socket_is_replaced_and_any_other_is_not(sockets: Sockets, folder: Path) -> None:
    path = folder / "web"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
        with pytest.raises(SextonError, match="Address already in use"):
            sockets.open(app(local=f"unix:{path}"))
    sockets.open(app(local=f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(str(path))
    file = folder / "file"
    file.write_text("precious")
    with pytest.raises(SextonError, match="Address already in use"):
        sockets.open(App(name="other", command=("true",), listen={"local": f"unix:{file}"}))
    assert file.read_text() == "precious"


def test_a_closed_unix_socket_takes_its_own_file_away_only(sockets: Sockets, folder: Path) -> None:
    web = app(local=f"unix:{folder}/web")
    sockets.open(web)
    sockets.close(web)
    assert os.listdir(folder) == []
    sockets.open(web)
    (folder / "web").unlink()
    (folder / "web").write_text("another's")
    sockets.close(web)
    assert (folder / "web").read_text() == "another's"


def test_to_open_again_keeps_what_is_still_asked_for(sockets: Sockets, folder: Path) -> None:
    kept, gone, new = free_port(), free_port(), free_port()
    sockets.open(app(http=f"127.0.0.1:{kept}", admin=f"127.0.0.1:{gone}", local=f"unix:{folder}/web"))
    with socket.create_connection(("127.0.0.1", kept), DEADLINE) as waits:
        later = app(web=f"127.0.0.1:{kept}", more=f"127.0.0.1:{new}")
        sockets.open(later)
        assert os.listdir(folder) == []
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", gone)):
            pass
        with start(sockets, later) as tree:
            assert line(tree) == "given web more others 0"
            assert waits.makefile().read() == f"web {tree.pid}\n"
            with pytest.raises(SextonError, match="cannot listen"):
                sockets.open(app(web=f"127.0.0.1:{kept}", bad="192.0.2.1:80"))
            assert hear_port(new) == f"more {tree.pid}\n"
    sockets.open(app())
    assert who_listens(kept, ()).whose == "nobody"


# --- after a supervisor that was killed ---


def test_sockets_are_got_back_from_the_processes_that_have_them(folder: Path) -> None:
    port, other = free_port(), free_port()
    web = app(http=str(port), admin=f"[::1]:{other}", local=f"unix:{folder}/web?mode=600")
    first = Sockets()
    first.open(web)
    with start(first, web) as tree:
        line(tree)
        first.forget()  # as its death would
        second = Sockets()
        pids = {process.pid for process in tree.processes()}
        assert second.adopt(web, pids) == []
        assert hear_port(port) == f"http {tree.pid}\n"
        tree.stop()
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as waits, start(second, web) as next_:
            assert line(next_) == "given http admin local others 0"
            assert waits.makefile().read() == f"http {next_.pid}\n"
            assert hear_port(other, "::1") == f"admin {next_.pid}\n"
            assert hear(socket.AF_UNIX, f"{folder}/web") == f"local {next_.pid}\n"
        second.close(web)
        assert os.listdir(folder) == [], "the file is known to be that socket's"
        second.forget()


def test_what_nobody_has_any_more_is_opened_anew(folder: Path) -> None:
    port = free_port()
    web = app(http=f"127.0.0.1:{port}", local=f"unix:{folder}/web")
    first = Sockets()
    first.open(web)
    first.forget()
    second = Sockets()
    assert second.adopt(web, {os.getpid()}) == []
    with start(second, web) as tree:
        line(tree)
        assert hear_port(port) == f"http {tree.pid}\n"
    second.close(web)
    second.forget()


def test_a_socket_of_another_address_is_not_taken_for_it() -> None:
    port = free_port()
    narrow, wide = app(http=f"127.0.0.1:{port}"), app(http=f"[::1]:{port}")
    first = Sockets()
    first.open(narrow)
    with start(first, narrow) as tree:
        line(tree)
        first.forget()
        second = Sockets()
        assert second.adopt(wide, {tree.pid}) == []
        with socket.socket(socket.AF_INET6) as talk:
            talk.connect(("::1", port))
        assert hear_port(port) == f"http {tree.pid}\n"
        second.close(wide)
        second.forget()


def test_one_that_cannot_be_got_back_is_said_and_opened_when_it_is_free() -> None:
    """Where we may not trace the app's processes: here they are in another network, their descriptors out of sight."""
    port = free_port()
    web = app(http=f"127.0.0.1:{port}")
    first = Sockets()
    first.open(web)
    with start(first, web) as tree:
        line(tree)
        first.forget()
        second = Sockets()
        (problem,) = second.adopt(web, set())
        assert problem == (
            f"web cannot listen on 127.0.0.1:{port} (http): Address already in use; {tree.pid} (python3) listens there"
        ).replace("python3", Path(f"/proc/{tree.pid}/comm").read_text().strip())
        with pytest.raises(SextonError, match="Address already in use"):
            passing(second, web)
        tree.stop()
        with start(second, web) as next_:
            line(next_)
            assert hear_port(port) == f"http {next_.pid}\n"
    second.close(web)
    second.forget()


# --- connections ---


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    path = address.removeprefix("unix:")
    with socket.socket(socket.AF_UNIX if path != address else socket.AF_INET) as talk:
        talk.settimeout(DEADLINE)
        talk.connect(path if path != address else ("127.0.0.1", int(address.rpartition(":")[2])))
        yield talk


@pytest.mark.parametrize("unix", [False, True])
def test_it_is_known_whether_anybody_is_connected(sockets: Sockets, folder: Path, unix: bool) -> None:
    address = f"unix:{folder}/web" if unix else f"127.0.0.1:{free_port()}"
    web, stranger = app(http=address), free_port()
    sockets.open(web)
    assert not sockets.busy(set(), web)
    with connected(address):
        assert sockets.busy(set(), web), "it waits to be accepted"
    with start(sockets, web, sys.executable, "-S", "-c", SERVER, "holds") as tree:
        line(tree)
        assert tree.stdin
        pids = {tree.pid}
        tree.stdin.write(b"x"), tree.stdin.flush()  # the one of before, that is gone
        with connected(address) as talk:
            assert talk.recv(100)
            assert sockets.busy(pids, web)
            assert not sockets.busy({os.getpid()} - {os.getpid()}, web), "not a connection of these processes"
            talk.shutdown(socket.SHUT_WR)
            assert sockets.busy(pids, web), "the app may still answer"
            tree.stdin.write(b"x"), tree.stdin.flush()
            assert talk.recv(100) == b""
            assert not sockets.busy(pids, web)
        with socket.create_server(("127.0.0.1", stranger)) as other, connected(f"127.0.0.1:{stranger}"):
            assert not sockets.busy(pids | {os.getpid()}, web), f"{other} is not the app's"
    assert not sockets.busy(pids, web)


def test_a_connection_is_waited_for_and_left_to_the_app(sockets: Sockets, folder: Path) -> None:
    port = free_port()
    web = app(http=f"127.0.0.1:{port}", local=f"unix:{folder}/web")
    sockets.open(web)

    async def scene() -> None:
        waits = [asyncio.create_task(sockets.wait_connection(web)) for _ in range(2)]
        given_up = asyncio.create_task(sockets.wait_connection(web))
        await asyncio.sleep(0)
        assert not any(task.done() for task in waits)
        given_up.cancel()
        sockets.open(web)  # a reload changes nothing
        with connected(web.listen["local"]) as talk:
            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(*waits)
                await sockets.wait_connection(web)
            with start(sockets, web) as tree:
                assert talk.makefile().read() == f"local {tree.pid}\n"

    asyncio.run(scene())


def test_nothing_is_waited_for_on_sockets_that_are_closed(sockets: Sockets) -> None:
    web = app(http=f"127.0.0.1:{free_port()}")
    sockets.open(web)

    async def scene() -> None:
        waits = asyncio.create_task(sockets.wait_connection(web))
        await asyncio.sleep(0)
        sockets.close(web)
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(scene())


def test_a_supervisor_that_is_killed_leaves_its_sockets_to_the_app() -> None:
    """With a real one: a process that opens, starts, and is killed."""
    port = free_port()
    script = f"""
import os, subprocess, sys
from sexton.supervise.config import App
from sexton.supervise.sockets import Sockets, passing
web = App(name="web", command=("true",), listen={{"http": "127.0.0.1:{port}"}})
sockets = Sockets()
sockets.open(web)
given = passing(sockets, web)
child = subprocess.Popen([os.environ["SEXTON_INIT"], "--", sys.executable, "-S", "-c", {SERVER!r}],
    env={{**os.environ, **given.environment}}, preexec_fn=given.preexec_fn, pass_fds=given.pass_fds)
print(child.pid, flush=True)
child.wait()
"""
    with Tree([sys.executable, "-c", script], stdout=subprocess.PIPE, on_exit="wait") as tree:
        assert tree.stdout
        lines = Lines(os.dup(tree.stdout.fileno()))
        assert "given http others 0" in {lines.line(), lines.line()}
        supervisor = Handle(tree.pid)
        supervisor.kill()
        supervisor.wait_dead()
        supervisor.close()
        second = Sockets()
        web = app(http=f"127.0.0.1:{port}")
        assert second.adopt(web, {process.pid for process in tree.processes()}) == []
        assert hear_port(port).startswith("http ")
        tree.stop()
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as waits, start(second, web) as next_:
            assert waits.makefile().read() == f"http {next_.pid}\n"
        second.close(web)
        second.forget()
        lines.close()
