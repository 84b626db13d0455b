"""Probes against real servers, sockets and commands."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from sexton.supervise import config
from sexton.supervise.notify import Notify
from sexton.supervise.probes import ProbeFailed, until_ready, until_unwell
from tests.supervise.subject import BAD, GOOD, SOON, Server, Subject, failure, play
from tests.support.lines import DEADLINE

# --- http ---


def test_http_is_asked_until_the_answer_is_good() -> None:
    async def act() -> None:
        async with Server(BAD, None, b"", b"no http\r\n\r\n", GOOD) as server:
            await server.listen()
            subject = Subject(ports={"http": server.port})
            probe = config.Probe(http="http://localhost:${port}/health?deep=${instance}", timeout=0.2)
            await until_ready(probe, subject)
            request = server.heard[-1].decode().split("\r\n")
            assert request[0] == "GET /health?deep=3 HTTP/1.1"
            assert f"Host: localhost:{server.port}" in request
            assert len(server.answers) == 1

    play(act)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (BAD, "503 Service Unavailable: no database"),
        (b"HTTP/1.1 404\r\n\r\n", "404"),
        (b"HTTP/1.1 500 Oh\r\n\r\n<html>\n\x1b[2Jrow\n\n", "500 Oh:  [2Jrow"),
        (b"", "it hung up without an answer"),
        (b"SSH-2.0-x\r\n", "no answer in HTTP/1"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "a line of its answer is longer than 64 KiB"),
        (None, "no answer within 0.1 s"),
    ],
)
def test_a_bad_answer_is_told(answer: bytes | None, said: str) -> None:
    async def act() -> None:
        async with Server(answer) as server:
            await server.listen()
            url = f"http://127.0.0.1:{server.port}/"
            why = await failure(config.Probe(http=url, deadline=SOON, timeout=0.1), Subject())
            assert why == f"web.3 was not ready within 0.3 s: GET {url}: {said}"

    play(act)


@pytest.mark.parametrize("code", [b"204", b"301", b"302"])
def test_what_is_good(code: bytes) -> None:
    async def act() -> None:
        async with Server(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 " + code + b" Fine\r\nLocation: /x\r\n\r\n"
        ) as server:
            await server.listen()
            await until_ready(config.Probe(http=f"http://127.0.0.1:{server.port}"), Subject())
            assert len(server.heard) == 1

    play(act)


def test_a_stream_without_end_is_good_at_once() -> None:
    async def act() -> None:
        async with Server(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"data: x\n\n" * 10_000
        ) as server:
            await server.listen()
            await until_ready(config.Probe(http=f"http://127.0.0.1:{server.port}"), Subject())

    play(act)


def test_http_over_a_unix_socket(tmp_path: Path) -> None:
    async def act() -> None:
        path = tmp_path / "app.sock"
        async with Server(GOOD) as server:
            waiting = asyncio.ensure_future(
                until_ready(config.Probe(http=f"http+unix://{quote(str(path), safe='')}/health"), Subject())
            )
            await asyncio.sleep(0)
            await server.listen(path=path)
            await waiting
            assert server.heard[0].startswith(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")

    play(act)


def test_https_is_not_verified(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=else",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def act() -> None:
        async with Server(GOOD) as server:
            await server.listen(ssl=context)
            await until_ready(config.Probe(http=f"https://localhost:{server.port}/"), Subject())

    play(act)


@pytest.mark.parametrize("url", ["ftp://localhost/", "localhost:80", "http:///x", "http://localhost:99999/"])
def test_what_is_no_url_of_ours(url: str) -> None:
    async def act() -> None:
        assert f"GET {url}: " in await failure(config.Probe(http=url, deadline=SOON), Subject())

    play(act)


# --- tcp ---


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_tcp_waits_for_one_who_listens(host: str) -> None:
    async def act() -> None:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((host, 0))
            port = taken.getsockname()[1]
            waiting = asyncio.ensure_future(
                until_ready(config.Probe(tcp="${port.db}"), Subject(ports={"http": 1, "db": port}))
            )
            for _ in range(3):
                await asyncio.sleep(0)
            taken.listen()
            await waiting
            taken.setblocking(False)
            taken.accept()[0].close()
            await until_ready(config.Probe(tcp=port), Subject())

    play(act)


def test_tcp_of_a_unix_socket(tmp_path: Path) -> None:
    async def act() -> None:
        async with Server(None) as server:
            await server.listen(path=tmp_path / "s")
            await until_ready(config.Probe(tcp=f"unix:{tmp_path / 's'}"), Subject())
            why = await failure(config.Probe(tcp=f"unix:{tmp_path / 'none'}", deadline=SOON), Subject())
            assert why.endswith(f"tcp unix:{tmp_path / 'none'}: no such file or directory")

    play(act)


def test_tcp_where_nobody_listens() -> None:
    async def act() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            why = await failure(config.Probe(tcp=f"127.0.0.1:{port}", deadline=SOON), Subject())
            assert why == f"web.3 was not ready within 0.3 s: tcp 127.0.0.1:{port}: connection refused"
            why = await failure(config.Probe(tcp="localhost:http", deadline=SOON), Subject())
            assert why.endswith("tcp localhost:http: expected HOST:PORT, or a port")

    play(act)


# --- whose port it is ---


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_port_that_a_stranger_has_is_found_out(kind: str) -> None:
    name = Path("/proc/self/comm").read_text().strip()

    async def act() -> None:
        async with Server(GOOD) as server:
            await server.listen()
            subject = Subject(ports={"http": server.port}, family={1 << 22})
            address = f"127.0.0.1:{server.port}"
            probe = config.Probe(tcp=address) if kind == "tcp" else config.Probe(http=f"http://{address}/")
            why = await failure(probe, subject)
            assert why == f"port {server.port} is listened on by {os.getpid()} ({name}), not by web.3"
            subject.ports.clear()
            await until_ready(probe, subject)

    play(act)


# --- commands ---


def test_a_command_is_run_where_and_with_what_the_instance_runs(tmp_path: Path) -> None:
    async def act() -> None:
        app = config.App(name="web", command=("true",), cwd=str(tmp_path), umask=0o077)
        subject = Subject(app=app, ports={"http": 4711}, environment={**os.environ, "GREETING": "hello"})
        await until_ready(
            config.Probe(
                exec=("sh", "-c", 'echo "$GREETING $1" >found; test "$(pwd)" = "$2"', "sh", "${port}", str(tmp_path))
            ),
            subject,
        )
        assert (tmp_path / "found").read_text() == "hello 4711\n"
        assert (tmp_path / "found").stat().st_mode & 0o777 == 0o600

    play(act)


def test_a_command_is_tried_until_it_is_content(tmp_path: Path) -> None:
    async def act() -> None:
        count = tmp_path / "count"
        script = f"echo x >>{count}; test $(wc -l <{count}) -ge 3"
        await until_ready(config.Probe(exec=("sh", "-c", script)), Subject())
        assert count.read_text() == "x\nx\nx\n"

    play(act)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo connecting; echo 'no \x1b[1mroute' >&2; exit 3", "exit status 3; it printed last: no  [1mroute"),
        ("exit 1", "exit status 1"),
        ("kill -SEGV $$$$", "ended by signal 11"),
        ("yes | head -c 3000000; echo last; exit 1", "exit status 1; it printed last: last"),
        (
            "echo waiting for db; setsid sleep 1000 & trap '' TERM; sleep 1000",
            "no end within 0.2 s; it printed last: waiting for db",
        ),
    ],
)
def test_a_command_that_fails_is_told_and_leaves_nobody(script: str, said: str) -> None:
    async def act() -> None:
        probe = config.Probe(exec=("sh", "-c", script), failures=1, timeout=0.2 if "setsid" in script else DEADLINE)
        why = await until_unwell(probe, Subject())
        assert why == f"sh -c {script}".replace("$$", "$")[:80] + f": {said}"

    play(act)


def test_a_command_that_is_not_there() -> None:
    async def act() -> None:
        why = await failure(config.Probe(exec=("/no/such/thing",), deadline=SOON), Subject())
        assert why.endswith("/no/such/thing: No such file or directory")

    play(act)


def test_a_probe_that_is_cancelled_leaves_nobody() -> None:
    async def act() -> None:
        reader, writer = os.pipe()
        app = config.App(name="web", command=("true",))
        subject = Subject(app=app, environment={**os.environ, "TOLD": f"/proc/{os.getpid()}/fd/{writer}"})
        probe = config.Probe(exec=("sh", "-c", 'trap "" TERM; echo here >$TOLD; setsid sleep 1000'), timeout=DEADLINE)
        waiting = asyncio.ensure_future(until_unwell(probe, subject))
        told = asyncio.Event()
        asyncio.get_running_loop().add_reader(reader, told.set)
        await told.wait()
        asyncio.get_running_loop().remove_reader(reader)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.close(reader)
        os.close(writer)

    play(act)


# --- what it writes ---


def test_a_line_of_the_output() -> None:
    async def act() -> None:
        subject = Subject()
        for text in ("starting", "listening on port 80"):
            subject.written.put_nowait(text)
        await until_ready(config.Probe(log=r"listening on port \d+$"), subject)
        subject.written.put_nowait("starting")
        subject.written.put_nowait(None)
        why = await failure(config.Probe(log="never"), subject)
        assert why == "the output of web.3 ended before a line matched 'never'"
        why = await failure(config.Probe(log="never", deadline=SOON), subject)
        assert why == "web.3 was not ready within 0.3 s: it wrote no line that matches 'never'"

    play(act)


# --- what it says ---


def tell(notify: Notify, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), notify.address)


def test_it_says_so_itself(tmp_path: Path) -> None:
    async def act() -> None:
        notify = Notify(tmp_path / "s", lambda pid: pid == os.getpid())
        subject = Subject(notify=notify)
        waiting = asyncio.ensure_future(until_ready(config.Probe(notify=True), subject))
        tell(notify, "STATUS=loading")
        await notify.change()
        assert not waiting.done()
        tell(notify, "READY=1")
        await waiting
        notify.reset()
        why = await failure(config.Probe(notify=True, deadline=SOON), subject)
        assert why == "web.3 was not ready within 0.3 s: it did not say READY=1"
        assert not notify.listeners
        notify.close()
        assert "no socket" in await failure(config.Probe(notify=True), Subject())

    play(act)


def test_it_asks_for_more_time(tmp_path: Path) -> None:
    async def act() -> None:
        notify = Notify(tmp_path / "s", lambda _: True)
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(until_ready(config.Probe(notify=True, deadline=SOON), Subject(notify=notify)))
        until = loop.time() + SOON
        tell(notify, f"EXTEND_TIMEOUT_USEC={int(DEADLINE * 1e6)}")
        later: asyncio.Future[None] = loop.create_future()
        loop.call_at(until + 0.05, later.set_result, None)
        await later
        tell(notify, "READY=1")
        await waiting
        notify.close()

    play(act)


@pytest.mark.parametrize("by", ["lateness", "itself"])
def test_a_watchdog_that_is_not_fed(tmp_path: Path, by: str) -> None:
    async def act() -> None:
        notify = Notify(tmp_path / "s", lambda _: True)
        seconds = 0.2 if by == "lateness" else DEADLINE
        waiting = asyncio.ensure_future(
            until_unwell(config.Probe(notify=True, watchdog=seconds), Subject(notify=notify))
        )
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            tell(notify, "WATCHDOG=1")
            await notify.change()
        if by == "itself":
            tell(notify, "WATCHDOG=trigger")
            assert await waiting == "it said WATCHDOG=trigger: it is not well by its own judgement"
        else:
            tell(notify, "STATUS=busy")  # is no food
            assert await waiting == "no WATCHDOG=1 came for 0.2 s"
            assert asyncio.get_running_loop().time() - began >= 0.2
        notify.close()

    play(act)


# --- living ---


def test_so_many_failures_in_a_row() -> None:
    async def act() -> None:
        async with Server(GOOD, BAD, BAD, GOOD, BAD) as server:
            await server.listen()
            probe = config.Probe(http=f"http://127.0.0.1:{server.port}/", interval=0.01, failures=3)
            why = await until_unwell(probe, Subject())
            assert (
                why == f"GET http://127.0.0.1:{server.port}/: 503 Service Unavailable: no database (3 times in a row)"
            )
            assert len(server.heard) == 7

    play(act)


@pytest.mark.parametrize(
    "probe",
    [config.Probe(http="http://localhost:${app.db.port}/"), config.Probe(exec=("true", "${port}"))],
)
def test_a_port_that_is_not_its_own(probe: config.Probe) -> None:
    async def act() -> None:
        assert (await failure(probe, Subject())).startswith("the probe of web.3: ")
        with pytest.raises(ProbeFailed):
            await until_unwell(probe, Subject())

    play(act)


def test_nothing_runs_in_a_thread() -> None:
    """A name is looked up in a thread by asyncio: localhost and numbers are not."""
    script = """
import asyncio, threading
from sexton.supervise import _asking
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for address in (port, f"localhost:{port}", f"127.0.0.1:{port}"):
        await _asking.tcp(address, 30)
    assert threading.active_count() == 1, threading.enumerate()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=DEADLINE)
