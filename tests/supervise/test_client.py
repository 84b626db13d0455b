"""The client of the control API, against the real API of a supervisor that runs nothing."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import sexton.supervise
from sexton.errors import NotRunning, SextonError, UsageError
from sexton.supervise import config, models
from sexton.supervise.client import Client
from tests.supervise.fake import Serving, serving
from tests.supervise.test_api import TOKEN, token_file
from tests.support.lines import DEADLINE


def test_it_is_the_client_of_the_package() -> None:
    assert sexton.supervise.Client is Client


def test_the_client_is_quick_to_import() -> None:
    code = "import sys, sexton.supervise.client, sexton.cli.status; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    slow = {"starlette", "uvicorn", "prometheus_client", "asyncio", "httpx", "anyio", "rich"}
    assert not slow & set(done.stdout.split())


def test_every_call_has_its_type(served: Serving) -> None:
    with Client(served.path) as client:
        status = client.status()
        assert isinstance(status, models.Status)
        assert status.apps[1].instances[0].last_exit == models.Exit(time=1_700_000_000.0, signal="KILL")
        assert client.ports()["web.0"] == {"http": 40000}
        assert client.start(["web.0", "db"]) == models.Done(instances=("web.0", "db.0"), message="done")
        client.stop(["all"])
        client.restart(["web"])
        client.signal(["web"], "HUP", "child")
        client.scale("web", 3)
        assert client.reload() == models.Changes(added=("new",))
        client.down(leave=True)
    assert served.fake.asked == [
        ("start", ["web.0", "db"]),
        ("stop", ["all"]),
        ("restart", ["web"]),
        ("signal", ["web"], "HUP", "child"),
        ("scale", ["web"], 3),
        ("down", True),
    ]


def test_events_and_lines(served: Serving) -> None:
    client = Client(served.path)
    served.do(lambda: served.fake.events.tell("state", instance="web.0", state="ready"))
    served.do(served.fake.capture.write, "web.0", "zeile\u2028äöü", 1.5)
    assert [event.state for event in client.events()] == ["ready"]
    assert list(client.events(1)) == []
    events = client.events(follow=True)
    assert next(events).number == 1
    served.do(lambda: served.fake.events.tell("stopping"))
    assert next(events).kind == "stopping"
    lines = client.logs(["web"], follow=True)
    assert next(lines) == models.Line(time=1.5, app="web", instance="web.0", stream="out", text="zeile\u2028äöü")
    served.do(served.fake.capture.write, "web.0", "x" * 200_000, 2.0)
    assert len(next(lines).text) == 200_000
    assert len(list(client.logs(lines=1))) == 1


def test_a_reader_that_is_too_slow_is_told(served: Serving) -> None:
    lines = Client(served.path).logs(["web"], follow=True)
    served.do(served.fake.capture.write, "web.0", "first", 0.0)
    assert next(lines).text == "first"
    for number in range(900):
        served.do(served.fake.capture.write, "web.0", "x" * 10_000, float(number))
    assert any("missing" in line.text and not line.instance for line in lines)


def test_a_stream_ends_with_the_supervisor(tmp_path: Path) -> None:
    with serving(tmp_path / "api.sock") as served:
        events = Client(served.path).events(follow=True)
        served.do(lambda: served.fake.events.tell("stopped"))
        assert next(events).kind == "stopped"
    assert list(events) == []


def test_what_is_wrong_comes_as_our_errors(served: Serving) -> None:
    client = Client(served.path)
    with pytest.raises(UsageError, match="nope"):
        client.start(["nope"])
    with pytest.raises(UsageError, match="expected an app"):
        client.stop(["a,b"])
    served.fake.stopping = True
    with pytest.raises(SextonError, match="stopping"):
        client.reload()


@pytest.mark.parametrize("left", [False, True])
def test_where_nobody_listens(tmp_path: Path, *, left: bool) -> None:
    path = tmp_path / "api.sock"
    if left:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with pytest.raises(NotRunning, match="sexton up"):
        Client(path).status()


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_a_stranger_at_the_other_end(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()

        def say() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(answer)

        thread = threading.Thread(target=say)
        thread.start()
        with pytest.raises(SextonError):
            Client(tmp_path / "api.sock").status()
        thread.join(DEADLINE)


def test_one_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        with pytest.raises(SextonError, match="hangs"):
            Client(tmp_path / "api.sock", timeout=0.01).status()


def test_one_at_whose_door_too_many_wait(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen(0)
        other.connect(str(tmp_path / "api.sock"))
        with pytest.raises(SextonError, match="hangs"):
            Client(tmp_path / "api.sock", timeout=0.01).status()


def test_its_process_can_be_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True);"
    code += "sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        with open(Client(path).hold(), "rb") as held:
            assert select.select([held], [], [], 0)[0] == []
            process.stdin.close()
            assert select.select([held], [], [], DEADLINE)[0] == [held]


def test_over_tcp(tmp_path: Path) -> None:
    tcp = config.Api(listen="127.0.0.1:0", token_file=token_file(tmp_path))
    with serving(tmp_path / "api.sock", tcp=tcp) as served:
        assert served.api
        port = next(one[1] for one in served.api.addresses() if isinstance(one, tuple))
        client = Client(url=f"http://127.0.0.1:{port}", token=TOKEN)
        assert client.status().epoch == 3
        served.do(lambda: served.fake.events.tell("stopping"))
        assert next(client.events(follow=True)).kind == "stopping"
        with pytest.raises(SextonError, match="Bearer"):
            Client(url=f"http://127.0.0.1:{port}", token="wrong").status()
        with pytest.raises(SextonError, match="TCP"):
            client.hold()


@pytest.mark.parametrize("given", [{}, {"socket": "x", "url": "http://x"}, {"url": "ftp://x"}, {"url": "http:///"}])
def test_what_is_no_place(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="Client"):
        Client(**given)  # type: ignore[arg-type]  # strings, whatever they are
