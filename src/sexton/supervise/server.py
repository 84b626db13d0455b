"""Where the control API listens: its unix socket, for the same user alone; and TCP, if that is asked for.

uvicorn's protocol serves each connection; its server is not used, which wakes up ten times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sexton.errors import UsageError
from sexton.supervise import models

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 30.0  # seconds in which a request must be complete, from the connection or its first byte
CROWD = 128  # connections that one socket has at most; each is a descriptor that no app can have
FAREWELL = 2.0  # seconds that answers have when the server closes
SHORTEST_TOKEN = 16  # characters


class Tcp:
    """Where it listens on TCP, and for whom."""

    def __init__(self, address: str, token: bytes) -> None:
        self.address = address
        self.token = token
        self.state = ServerState()
        self.server: asyncio.Server | None = None


def _connections(state: ServerState) -> list[_Protocol]:
    connections: list[Any] = list(state.connections)
    return connections


class Server:
    """Serves an ASGI application, on as many sockets as it is told to listen on."""

    def __init__(self, app: ASGIApp) -> None:
        self._config = Config(
            Door(app), http="h11", ws="none", lifespan="off", interface="asgi3", log_config=None,
            access_log=False, proxy_headers=False, log_level="critical",
        )  # fmt: skip
        self._config.load()
        self._states: list[ServerState] = []
        self._servers: list[asyncio.Server] = []
        self._tcp: Tcp | None = None
        self._path: Path | None = None
        self._made: tuple[int, int] = (0, 0)

    async def listen(self, path: Path) -> None:
        """On a unix socket, mode 0600; one that a dead process left is replaced. Raises OSError."""
        listener = _bound(path)
        self._path, self._made = path, _place(path)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._serve(ServerState()), sock=listener, backlog=CROWD))

    async def follow(self, address: str | None, token: bytes) -> bool:
        """On TCP at HOST:PORT as well, for whoever has the token, and nowhere else on TCP; None: not on TCP.

        Whether that is another than before; who is connected by what was before gets its answer, and no more. Raises
        OSError; nothing has changed then.
        """
        old = self._tcp
        if (old and old.address) == address and (old is None or old.token == token):
            return False
        if old and old.address == address:
            old.token = token
        else:
            self._tcp = await self._listen_tcp(address, token) if address else None
            if old and old.server:
                old.server.close()
                self._servers.remove(old.server)
        for connection in _connections(old.state) if old else ():
            connection.take_leave()
        return True

    async def _listen_tcp(self, address: str, token: bytes) -> Tcp:
        host, _, port = address.rpartition(":")
        tcp = Tcp(address, token)
        serve = self._serve(tcp.state, tcp)
        tcp.server = await asyncio.get_running_loop().create_server(serve, host.strip("[]") or None, int(port))
        self._servers.append(tcp.server)
        return tcp

    def addresses(self) -> list[Any]:
        """Of each socket, as getsockname(2) has it."""
        return [one.getsockname() for server in self._servers for one in server.sockets]

    def _serve(self, state: ServerState, tcp: Tcp | None = None) -> Callable[[], asyncio.Protocol]:
        self._states.append(state)
        return lambda: _Protocol(self._config, state, {"token": tcp.token if tcp else None})

    async def close(self) -> None:
        """Accept nobody any more; what is being answered has a moment to end."""
        for server in self._servers:
            server.close()
        for state in self._states:
            for connection in _connections(state):
                connection.take_leave()
        if tasks := {task for state in self._states for task in state.tasks}:
            await asyncio.wait(tasks, timeout=FAREWELL)
        for state in self._states:
            for connection in _connections(state):
                connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)  # in which the transports close what they have
        if self._path is not None:
            _remove(self._path, self._made)


def _bound(path: Path) -> socket.socket:
    """A socket that listens; there is no moment at which somebody else could connect, or finds it deaf."""
    part = path.with_suffix(".new")
    part.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(str(part))
        listener.listen(CROWD)
        part.replace(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _place(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def _remove(path: Path, made: tuple[int, int]) -> None:
    """Take our socket away; another one's stays."""
    with contextlib.suppress(FileNotFoundError):
        if _place(path) == made:
            path.unlink()


def read_token(path: str) -> bytes:
    """The token in a file that is not for everybody to read. Raises UsageError."""
    try:
        text = Path(path).read_text(encoding="ascii").strip()
        mode = os.stat(path).st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"api.token_file: {path}: {getattr(error, 'strerror', None) or 'it is not ASCII'}") from None
    if len(text) < SHORTEST_TOKEN or not text.isprintable() or " " in text:
        raise UsageError(f"api.token_file: {path}: expected one word of {SHORTEST_TOKEN} characters or more")
    if mode & 0o077:
        raise UsageError(f"api.token_file: {path}: others can read it (mode {mode & 0o777:04o}); chmod 600 {path}")
    return text.encode()


class _Protocol(H11Protocol):
    """One connection: of the same user, or with a token; and a request that began comes to its end in time."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base has it
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if peer.family == socket.AF_UNIX:
            uid = _uid(peer)
            if uid != os.geteuid():
                self._refuse(403, f"user {uid} is not the supervisor's user, {os.geteuid()}")
                return
        else:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if len(self.connections) > CROWD:
            self._refuse(503, f"{CROWD} connections are open; close some of them")
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        # A request that is complete has all the time it needs; what came of another one has not.
        if str(self.conn.their_state) in {"DONE", "MUST_CLOSE", "CLOSED"}:
            self._disarm()
        elif self._patience is None:
            self._arm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._patience is None and self.conn.trailing_data[0]:
            self._arm()

    def take_leave(self) -> None:
        """Answer what was asked for, and nothing more; what is still being asked has no answer."""
        if self._patience is not None:
            self.transport.abort()
        else:
            self.shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not HTTP/1.1, or its head is too long")

    def _refuse(self, status: int, why: str) -> None:
        body = msgspec.json.encode(models.Problem(error=why))
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()

    def _arm(self) -> None:
        self._patience = self.loop.call_later(PATIENCE, self.transport.abort)

    def _disarm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _uid(peer: socket.socket) -> int:
    """Who is at the other end, by SO_PEERCRED (see unix(7))."""
    pid_uid_gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid_uid_gid[1])


class Door:
    """In front of the application: a request over TCP has to bear the token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or answer 401."""
        token = scope.get("state", {}).get("token")
        if token is None or hmac.compare_digest(_authorization(scope), b"Bearer " + token):
            await self._app(scope, receive, send)
            return
        body = msgspec.json.encode(models.Problem(error="expected the header Authorization: Bearer TOKEN"))
        start: Message = {
            "type": "http.response.start",
            "status": 401,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"www-authenticate", b"Bearer"),
                (b"connection", b"close"),
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _authorization(scope: MutableMapping[str, Any]) -> bytes:
    found: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    return found[0] if len(found) == 1 else b""
