"""The control API, over real sockets: what it answers, whom it answers, and what cannot harm it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sexton.errors import UsageError
from sexton.supervise import config, openapi, server
from tests.supervise.fake import Serving, serving
from tests.support.lines import DEADLINE, until

TOKEN = "0123456789abcdef-token"


def connect(served: Serving) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(served.path))
    peer.settimeout(DEADLINE)
    return peer


def speak(served: Serving, data: bytes, *, end: bool = False) -> bytes:
    """Send it, and read to the end."""
    with connect(served) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data)
            if end:
                peer.shutdown(socket.SHUT_WR)
        return rest(peer)


def rest(peer: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while data := peer.recv(1 << 16):
            found += data
    return found


def ask(served: Serving, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, bytes]:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    answer = speak(served, head.encode() + body)
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def well(served: Serving) -> None:
    code, body = ask(served, "GET", "/v1/status")
    assert code == 200
    assert json.loads(body)["epoch"] == 3


def test_status_and_ports(served: Serving) -> None:
    code, body = ask(served, "GET", "/v1/status")
    assert code == 200
    web = json.loads(body)["apps"][1]
    assert [one["state"] for one in web["instances"]] == ["ready", "backoff"]
    assert json.loads(ask(served, "GET", "/v1/ports")[1])["db.0"] == {"http": 40000}


def test_the_socket_is_for_this_user_alone(served: Serving) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


def test_another_user_is_refused(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_uid", lambda _peer: os.geteuid() + 1)
    code, body = ask(served, "GET", "/v1/status")
    assert code == 403
    assert "is not the supervisor's user" in json.loads(body)["error"]
    monkeypatch.undo()
    well(served)


def test_a_socket_that_a_dead_one_left_is_replaced_and_ours_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(path) as served:
        well(served)
    assert not path.exists()


def test_the_commands_reach_the_supervisor(served: Serving) -> None:
    for verb in ("start", "stop", "restart"):
        assert ask(served, "POST", f"/v1/apps/web.0,db/{verb}")[0] == 200
    assert ask(served, "POST", "/v1/apps/web/signal", b'{"signal":"HUP","scope":"tree"}')[0] == 200
    assert ask(served, "POST", "/v1/apps/web/scale", b'{"instances":4}')[0] == 200
    assert json.loads(ask(served, "POST", "/v1/reload")[1])["added"] == ["new"]
    assert ask(served, "POST", "/v1/down")[0] == 202
    assert served.fake.asked == [
        ("start", ["web.0", "db"]),
        ("stop", ["web.0", "db"]),
        ("restart", ["web.0", "db"]),
        ("signal", ["web"], "HUP", "tree"),
        ("scale", ["web"], 4),
        ("down", False),
    ]


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (("GET", "/v1/nothing", b""), 404, "openapi.json"),
        (("POST", "/v1/status", b""), 405, "openapi.json"),
        (("POST", "/v1/apps/nope/start", b""), 400, "nope"),
        (("POST", "/v1/apps/web/signal", b""), 400, "signal"),
        (("POST", "/v1/apps/web/signal", b'{"signal":"HUP","scope":"all"}'), 400, "scope"),
        (("POST", "/v1/apps/web/scale", b'{"instances":"many"}'), 400, "instances"),
        (("POST", "/v1/apps/web/scale", b'{"instances":1,"x":2}'), 400, "`x`"),
        (("POST", "/v1/apps/web/scale", b"\xff\xfe"), 400, "the body"),
        (("POST", "/v1/down", b'{"leave":1}'), 400, "leave"),
        (("POST", "/v1/down", b"{" * (1 << 17)), 413, "65536"),
        (("GET", "/v1/events?since=-1", b""), 400, "since"),
        (("GET", "/v1/events?n=-1", b""), 400, "n:"),
        (("GET", "/v1/events?follow=maybe", b""), 400, "follow"),
        (("GET", "/v1/logs?n=many", b""), 400, "n:"),
        (("GET", "/v1/logs?target=nope", b""), 400, "nope"),
    ],
)
def test_what_is_wrong_is_said(served: Serving, request_: tuple[str, str, bytes], code: int, says: str) -> None:
    got, answer = ask(served, *request_)
    assert got == code
    assert says in json.loads(answer)["error"]
    assert served.fake.asked == []


@pytest.mark.parametrize("wrong", ["x", "3-", "-1", "3-1-1", "3-²"])
def test_a_last_event_id_that_is_none(served: Serving, wrong: str) -> None:
    header = f"Last-Event-ID: {wrong}\r\n".encode()
    answer = speak(served, b"GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n")
    assert answer.split()[1] == b"400"


def test_a_mistake_of_ours_is_an_answer(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    served.fake.broken = True
    code, body = ask(served, "POST", "/v1/reload")
    assert code == 500
    assert "ZeroDivisionError" in json.loads(body)["error"]
    assert "ZeroDivisionError" in caplog.text
    well(served)


def test_what_cannot_be_done_is_a_conflict(served: Serving) -> None:
    served.fake.stopping = True
    assert ask(served, "POST", "/v1/reload")[0] == 409


# --- streams ---


class Stream:
    """A listener at a stream of server-sent events."""

    def __init__(self, served: Serving, path: str, headers: str = "") -> None:
        self.peer = connect(served)
        self.peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n".encode())
        self._seen = b""

    def take(self, count: int) -> list[dict[str, Any]]:
        """So many events that were not taken yet: id, event, data."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            *parts, self._seen = self._seen.split(b"\n\n")
            for part in parts:
                fields = dict(line.split(": ", 1) for line in part.decode().splitlines() if re.match("[a-z]+: ", line))
                if "data" in fields and "event" in fields:
                    found.append(fields | {"data": json.loads(fields["data"])})
            if len(found) < count:
                data = self.peer.recv(1 << 16)
                assert data
                self._seen += data
        assert len(found) == count
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()


def test_events_that_were_and_that_come(served: Serving) -> None:
    served.do(lambda: served.fake.events.tell("state", instance="web.0", state="ready"))
    with Stream(served, "/v1/events") as stream:
        assert [(one["id"], one["event"]) for one in stream.take(1)] == [("3-1", "state")]
        served.do(lambda: served.fake.events.tell("stopping"))
        assert [(one["id"], one["event"]) for one in stream.take(1)] == [("3-2", "stopping")]
    assert len(json.loads(ask(served, "GET", "/v1/events")[1])) == 2
    assert len(json.loads(ask(served, "GET", "/v1/events?since=1")[1])) == 1
    for count, numbers in (("0", []), ("1", [2]), ("9", [1, 2])):
        assert [one["number"] for one in json.loads(ask(served, "GET", f"/v1/events?n={count}")[1])] == numbers
    with Stream(served, "/v1/events?n=1") as stream:
        assert [one["id"] for one in stream.take(1)] == ["3-2"]


@pytest.mark.parametrize(("last", "first"), [("3-2", "3-3"), ("2-2", "3-1")])
def test_a_listener_goes_on_where_it_was(served: Serving, last: str, first: str) -> None:
    for _ in range(3):
        served.do(lambda: served.fake.events.tell("state"))
    with Stream(served, "/v1/events?n=0", f"Last-Event-ID: {last}\r\n") as stream:
        assert stream.take(3 if first == "3-1" else 1)[0]["id"] == first


def test_lines_that_were_and_that_come(served: Serving) -> None:
    write = served.fake.capture.write
    served.do(write, "web.0", "one", 1.0)
    served.do(write, "db.0", "other", 2.0)
    served.do(write, "web.1", "two", 3.0)
    with Stream(served, "/v1/logs?target=web&n=1") as stream:
        assert [one["data"]["text"] for one in stream.take(1)] == ["two"]
        served.do(write, "db.0", "other", 4.0)
        served.do(write, "web.0", "three", 5.0)
        assert [one["data"]["text"] for one in stream.take(1)] == ["three"]
    with Stream(served, "/v1/logs?target=web", "Last-Event-ID: 1.000000\r\n") as stream:
        assert [one["data"]["text"] for one in stream.take(2)] == ["two", "three"]
    assert [one["text"] for one in json.loads(ask(served, "GET", "/v1/logs?n=2")[1])] == ["other", "three"]


def test_a_listener_that_has_gone_is_forgotten(served: Serving) -> None:
    with Stream(served, "/v1/logs") as stream:
        assert stream.peer.recv(1 << 16)
        served.until(lambda: len(served.fake.capture.listeners) == 1)
    served.until(lambda: not served.fake.capture.listeners)


def test_a_listener_that_does_not_read_holds_nobody_up(served: Serving) -> None:
    text = "x" * 10_000
    with Stream(served, "/v1/logs") as stream:
        slow = stream.peer
        assert slow.recv(64)
        served.until(lambda: len(served.fake.capture.listeners) == 1)
        for number in range(1500):
            served.do(served.fake.capture.write, "web.0", text, float(number))
        well(served)
        seen = b""
        while b"event: missed" not in seen:
            data = slow.recv(1 << 20)
            assert data
            seen = seen[-40:] + data


def test_streams_end_when_the_supervisor_does(tmp_path: Path) -> None:
    with serving(tmp_path / "api.sock") as served:
        peer = Stream(served, "/v1/events").peer
        assert peer.recv(1 << 16)
        served.do(lambda: served.fake.events.tell("stopped"))
    with peer:
        answer = rest(peer)
    assert b"event: stopped" in answer
    assert answer.endswith(b"0\r\n\r\n")


# --- what cannot harm it ---


GARBAGE = [
    b"\x00" * 100,
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/down HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"POST /v1/down HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "GET /v1/apps/ü/start HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_refused(served: Serving, data: bytes) -> None:
    assert speak(served, data).startswith(b"HTTP/1.1 4")
    well(served)
    assert served.fake.asked == []


@pytest.mark.parametrize(
    "path", ["/v1/apps/%00/start", "/v1/apps/%ff%fe/stop", "/v1/apps/..%2f../restart", "//v1//", "/%"]
)
def test_odd_paths(served: Serving, path: str) -> None:
    assert ask(served, "POST", path)[0] in {400, 404, 405}
    well(served)


def test_an_upgrade_is_not_taken(served: Serving) -> None:
    headers = "Upgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"
    head = f"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\n{headers}\r\n"
    assert speak(served, head.encode()).split()[1] == b"200"


def test_a_body_without_end_is_cut_off(served: Serving) -> None:
    head = b"POST /v1/apps/web/scale HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = speak(served, head + b"10000\r\n" + b"x" * 65536 + b"\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert answer.split()[1] == b"413"
    well(served)


def test_half_a_request_hangs_nothing_and_ends(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(served) as whole, contextlib.ExitStack() as stack:
        for part in (b"", b"POST /v1/down HT", b"POST /v1/down HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"):
            for _ in range(20):
                peer = stack.enter_context(connect(served))
                peer.sendall(part)
        well(served)
        whole.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert rest(whole).split()[1] == b"200"
    monkeypatch.setattr(server, "PATIENCE", 0.01)
    for part in (b"", b"POST /v1/down HT", b"POST /v1/down HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"):
        assert speak(served, part) == b""
    again = b"GET /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n"
    assert speak(served, again + b"GET /v1").count(b"HTTP/1.1 200") == 1  # the half of a second one
    well(served)
    assert served.fake.asked == []


def test_who_hangs_up_in_the_midst_of_a_request(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with connect(served) as peer:
        peer.sendall(b"POST /v1/down HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        well(served)
    well(served)
    assert caplog.text == ""
    assert served.fake.asked == []


def test_a_crowd_does_not_take_every_descriptor(served: Serving) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(server.CROWD):
            stack.enter_context(connect(served)).sendall(b"GET")
        code, body = ask(served, "GET", "/v1/status")
        assert code == 503
        assert "connections are open" in json.loads(body)["error"]
    until(lambda: ask(served, "GET", "/v1/status")[0] == 200, "room again")


def test_a_command_has_all_the_time_it_needs(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.001)
    hold = served.do(asyncio.Event)
    served.fake.hold = hold
    with connect(served) as peer:
        peer.sendall(b"POST /v1/apps/web/stop HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        served.until(lambda: bool(served.fake.asked))
        monkeypatch.undo()
        for _ in range(3):
            well(served)
        served.do(hold.set)
        assert rest(peer).split()[1] == b"200"


def test_many_requests_in_one_go(served: Serving) -> None:
    one = b"GET /v1/ports HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1/ports HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert speak(served, one * 50 + last).count(b"HTTP/1.1 200") == 51


PIECES = st.sampled_from(
    [b"GET ", b"POST ", b"/v1/status", b"/v1/apps/web/scale", b"/v1/logs?n=", b" HTTP/1.1", b"\r\n", b"\n", b"Host: x",
     b"Content-Length: ", b"Transfer-Encoding: chunked", b"5", b"99999999999999999999", b"{}", b'{"instances":',
     b"\x00",     b"Expect: 100-continue", b"Connection: close", b"\xff", b"0\r\n\r\n"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=25))
def test_whatever_comes_it_answers_the_next_one(served: Serving, pieces: list[bytes]) -> None:
    answer = speak(served, b"".join(pieces), end=True)
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in answer
    well(served)


# --- TCP ---


def token_file(tmp_path: Path, text: str = TOKEN, mode: int = 0o600) -> str:
    path = tmp_path / "token"
    path.write_text(text + "\n")
    path.chmod(mode)
    return str(path)


def on_tcp(served: Serving) -> list[Any]:
    assert served.api
    return [one for one in served.api.addresses() if isinstance(one, tuple)]


def over_tcp(served: Serving, headers: bytes) -> bytes:
    [address] = on_tcp(served)
    with socket.create_connection(address[:2], DEADLINE) as peer:
        peer.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n")
        return rest(peer)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (b"Authorization: Bearer " + TOKEN.encode() + b"\r\n", b"200"),
        (b"", b"401"),
        (b"Authorization: Bearer \r\n", b"401"),
        (b"Authorization: Bearer " + TOKEN.encode() + b"x\r\n", b"401"),
        (b"Authorization: Basic " + TOKEN.encode() + b"\r\n", b"401"),
        (b"Authorization: \xff\xfe\r\n", b"401"),
        ((b"Authorization: Bearer " + TOKEN.encode() + b"\r\n") * 2, b"401"),
    ],
)
def test_over_tcp_only_with_the_token(tmp_path: Path, headers: bytes, code: bytes) -> None:
    tcp = config.Api(listen="127.0.0.1:0", token_file=token_file(tmp_path))
    with serving(tmp_path / "api.sock", tcp=tcp) as served:
        assert over_tcp(served, headers).split()[1] == code
        well(served)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [("", 0o600, "16"), ("short", 0o600, "16"), ("a b" * 9, 0o600, "one word"), (TOKEN, 0o644, "chmod")],
)
def test_a_token_that_is_none(tmp_path: Path, text: str, mode: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        server.read_token(token_file(tmp_path, text, mode))


def test_a_reload_reads_the_token_again(tmp_path: Path) -> None:
    tcp = config.Api(listen="127.0.0.1:0", token_file=token_file(tmp_path))
    old, new = (f"Authorization: Bearer {token}\r\n".encode() for token in (TOKEN, TOKEN[::-1]))
    with serving(tmp_path / "api.sock", tcp=tcp) as served:
        served.fake.config = msgspec.structs.replace(served.fake.config, api=tcp)
        [address] = on_tcp(served)
        with socket.create_connection(address[:2], DEADLINE) as kept:
            kept.sendall(b"GET /v1/ports HTTP/1.1\r\nHost: x\r\n" + old + b"\r\n")
            answer = b""
            while not answer.endswith(b"}}"):
                answer += kept.recv(1 << 16) or b"hung up }}"
            assert answer.split()[1] == b"200"
            assert json.loads(ask(served, "POST", "/v1/reload")[1])["settings"] == []
            assert over_tcp(served, old).split()[1] == b"200"
            token_file(tmp_path, TOKEN[::-1])
            assert json.loads(ask(served, "POST", "/v1/reload")[1])["settings"] == ["api"]
            assert rest(kept) == b""  # who had come with the old one is asked for the new one
        assert over_tcp(served, old).split()[1] == b"401"
        assert over_tcp(served, new).split()[1] == b"200"
        token_file(tmp_path, "short")
        code, body = ask(served, "POST", "/v1/reload")
        assert (code, "expected one word" in json.loads(body)["error"]) == (400, True)
        assert over_tcp(served, new).split()[1] == b"200"


def test_a_reload_listens_where_the_file_says(tmp_path: Path) -> None:
    tcp = config.Api(listen="127.0.0.1:0", token_file=token_file(tmp_path))
    with serving(tmp_path / "api.sock") as served:
        assert on_tcp(served) == []
        for listen in ("127.0.0.1:0", "localhost:0"):
            served.fake.config = msgspec.structs.replace(
                served.fake.config, api=msgspec.structs.replace(tcp, listen=listen)
            )
            assert json.loads(ask(served, "POST", "/v1/reload")[1])["settings"] == ["api"]
            assert over_tcp(served, b"Authorization: Bearer " + TOKEN.encode() + b"\r\n").split()[1] == b"200"
        before = on_tcp(served)
        with socket.create_server(("127.0.0.1", 0)) as busy:
            address = f"127.0.0.1:{busy.getsockname()[1]}"
            wanted = msgspec.structs.replace(tcp, listen=address)
            served.fake.config = msgspec.structs.replace(served.fake.config, api=wanted)
            code, body = ask(served, "POST", "/v1/reload")
            assert (code, f"api.listen: {address}: " in json.loads(body)["error"]) == (400, True)
        assert on_tcp(served) == before
        served.fake.config = msgspec.structs.replace(served.fake.config, api=None)
        assert json.loads(ask(served, "POST", "/v1/reload")[1])["settings"] == ["api"]
        assert on_tcp(served) == []


# --- the document ---


def test_the_document_tells_of_every_route(served: Serving) -> None:
    document = json.loads(ask(served, "GET", "/v1/openapi.json")[1])
    assert document["openapi"].startswith("3.1")
    assert {(path, method) for path, of in document["paths"].items() for method in of} == {
        (one.path, one.method) for one in openapi.OPERATIONS
    }
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
