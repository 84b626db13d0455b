"""The client of the control API: typed, synchronous, and quick to import.

with Client("/run/app/api.sock") as client:
    for app in client.status().apps: ...
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from sexton.errors import NotRunning, SextonError, UsageError
from sexton.supervise import asked, models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from sexton.supervise.asked import Scope

T = TypeVar("T")
PROMPT = 30.0  # seconds that an answer may take which waits for nothing


class Client:
    """Speaks to one supervisor, at its socket or at a URL.

    socket    the path of api.sock in its state directory
    file      its sexton.toml, only for messages to name it
    url       http://HOST:PORT or https://..., where the file has an [api]; with its `token`
    timeout   seconds for questions; commands that wait for apps take as long as these do

    Each call is a connection of its own, so one client may serve several threads. Raises NotRunning where no supervisor
    answers; UsageError where it refuses what was asked for; SextonError where it could not do it.
    """

    def __init__(
        self,
        socket: str | Path | None = None,
        *,
        file: Path | None = None,
        url: str | None = None,
        token: str | None = None,
        timeout: float = PROMPT,
    ) -> None:
        if (socket is None) == (url is None):
            raise UsageError("Client: expected either the path of a socket or a url")
        self.socket = None if socket is None else Path(socket)
        self.file = file
        self.url = url
        self.timeout = timeout
        self._token = token
        parts = urlsplit(url or "http://localhost")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"Client: {url!r}: expected http://HOST:PORT or https://HOST:PORT")
        self._parts = parts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is held between calls."""

    # --- looking ---

    def status(self) -> models.Status:
        """Every app and instance, and its state."""
        return self._call("GET", "/v1/status", models.Status)

    def ports(self) -> dict[str, dict[str, int]]:
        """The ports of each instance: {"web.0": {"http": 40001}}."""
        return self._call("GET", "/v1/ports", dict[str, dict[str, int]])

    def events(self, since: int = 0, *, lines: int | None = None, follow: bool = False) -> Iterator[models.Event]:
        """What has happened after the event of that number, or the last `lines` of it; with `follow` it stays, until
        the supervisor ends.
        """
        query = {"since": since} | ({} if lines is None else {"n": lines})
        if follow:
            return self._stream("/v1/events", query, models.Event)
        return iter(self._call("GET", f"/v1/events?{urlencode(query | {'follow': 0})}", list[models.Event]))

    def logs(
        self, targets: Sequence[str] = ("all",), lines: int = 100, *, follow: bool = False
    ) -> Iterator[models.Line]:
        """The last `lines` lines of these apps and instances; with `follow` those that come as well.

        A reader that is slower than they are written misses some: a Line of no instance says how many.
        """
        query = {"target": ",".join(targets), "n": lines}
        if follow:
            return self._stream("/v1/logs", query, models.Line)
        return iter(self._call("GET", f"/v1/logs?{urlencode(query | {'follow': 0})}", list[models.Line]))

    def metrics(self) -> str:
        """The metrics in Prometheus text."""
        with closing(self._connect(self.timeout)) as connection, self._ask(connection, "GET", "/metrics") as answer:
            return answer.read().decode()

    # --- doing ---

    def start(self, targets: Sequence[str]) -> models.Done:
        """Start them ("web", "web.1", "all"), and what they wait for; returns when they are up or have failed."""
        return self._do(targets, "start")

    def stop(self, targets: Sequence[str]) -> models.Done:
        """Stop them; returns when nothing of them is left."""
        return self._do(targets, "stop")

    def restart(self, targets: Sequence[str]) -> models.Done:
        """Restart them one after the other; returns when all are up again."""
        return self._do(targets, "restart")

    def signal(self, targets: Sequence[str], signal: str, scope: Scope = "group") -> models.Done:
        """Send them a signal: to the command ("child"), its process group, or its whole tree."""
        return self._do(targets, "signal", asked.Signal(signal=signal, scope=scope))

    def scale(self, app: str, instances: int) -> models.Done:
        """Let an app have so many instances; returns when it has."""
        return self._do([app], "scale", asked.Scale(instances=instances))

    def reload(self) -> models.Changes:
        """Apply the difference between the file and what runs."""
        return self._call("POST", "/v1/reload", models.Changes, timeout=None)

    def down(self, *, leave: bool = False) -> models.Done:
        """Begin to stop everything, or with `leave` the supervisor alone. A second call leaves no more time."""
        return self._call("POST", "/v1/down", models.Done, asked.Down(leave=leave))

    def hold(self) -> int:
        """A pidfd of the supervisor, which the caller closes: it becomes readable when the supervisor has ended.

        Only at a socket. Raises NotRunning, and SextonError where its process cannot be seen from here.
        """
        if self.socket is None:
            raise SextonError(f"{self.url}: the supervisor's process cannot be held over TCP")
        with closing(_Unix(self.socket, self.timeout)) as connection:
            self._open(connection)
            pid = connection.peer()
            try:
                return os.pidfd_open(pid)
            except ProcessLookupError:
                raise NotRunning(f"the supervisor, process {pid}, has just ended") from None
            except OSError as error:
                raise SextonError(f"the supervisor's process cannot be seen from here: {error.strerror}") from None

    # --- how ---

    def _do(self, targets: Sequence[str], verb: str, body: msgspec.Struct | None = None) -> models.Done:
        for target in targets:
            if not target or "," in target or "/" in target:
                raise UsageError(f"{target!r}: expected an app, an instance or all; of several each by itself")
        return self._call("POST", f"/v1/apps/{quote(','.join(targets))}/{verb}", models.Done, body, timeout=None)

    def _call(
        self, method: str, path: str, kind: type[T], body: msgspec.Struct | None = None, *, timeout: float | None = -1
    ) -> T:
        with closing(self._connect(self.timeout if timeout == -1 else timeout)) as connection:
            try:
                with self._ask(connection, method, path, body) as answer:
                    return msgspec.json.decode(answer.read(), type=kind)
            except msgspec.MsgspecError as error:
                raise SextonError(f"{self}: an answer that is not understood: {error}") from None
            except (OSError, HTTPException) as error:
                raise SextonError(f"{self}: the supervisor went away in the midst of its answer: {error!r}") from None

    def _stream(self, path: str, query: Mapping[str, object], kind: type[T]) -> Iterator[T]:
        where = f"{path}?{urlencode({**query, 'follow': 1})}"
        with closing(self._connect(None)) as connection, self._ask(connection, "GET", where) as answer:
            rest = b""
            while data := _read(answer):
                *frames, rest = (rest + data).split(b"\n\n")
                for one in frames:
                    name, _, content = one.rpartition(b"\ndata: ")
                    if name.endswith(b"event: missed"):
                        yield _missed(kind, content)
                    elif content and name:
                        yield msgspec.json.decode(content, type=kind)

    def _connect(self, timeout: float | None) -> HTTPConnection:
        if self.socket is not None:
            return _Unix(self.socket, timeout)
        assert self._parts.hostname
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        return kind(self._parts.hostname, self._parts.port, timeout=timeout)

    def _open(self, connection: HTTPConnection) -> None:
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            whose = f" of {self.file}" if self.file else ""
            raise NotRunning(f"no supervisor{whose} listens at {self}; {self._remedy()}") from None
        except BlockingIOError:
            raise self._hangs() from None
        except OSError as error:
            raise SextonError(f"{self}: {error.strerror or error}") from None

    def _remedy(self) -> str:
        left = len(list((self.socket.parent / "run").glob("*.guard"))) if self.socket else 0
        if not left:
            return "`sexton up` starts one"
        if left == 1:
            return "an instance of the last one runs on for its lease: `sexton up` takes it over, `sexton down` ends it"
        what = "`sexton up` takes them over, `sexton down` ends them"
        return f"{left} instances of the last one run on for their lease: {what}"

    def _hangs(self) -> SextonError:
        return SextonError(f"{self}: no answer within {self.timeout:g} s: the supervisor hangs")

    def _ask(
        self, connection: HTTPConnection, method: str, path: str, body: msgspec.Struct | None = None
    ) -> HTTPResponse:
        headers = {"Connection": "close"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        self._open(connection)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
        except TimeoutError:
            raise self._hangs() from None
        except (OSError, HTTPException) as error:
            raise SextonError(f"{self}: the supervisor went away without an answer: {error}") from None
        if answer.status >= 400:
            with answer:
                raise self._problem(answer)
        return answer

    def _problem(self, answer: HTTPResponse) -> SextonError:
        try:
            said = msgspec.json.decode(answer.read(), type=models.Problem).error
        except (msgspec.MsgspecError, OSError, HTTPException):
            said = f"{self}: {answer.status} {answer.reason}"
        return UsageError(said) if answer.status in {400, 404, 413, 422} else SextonError(said)

    def __str__(self) -> str:
        return str(self.socket or self.url)


class _Unix(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if self.timeout is not None:  # one that settimeout() has made non-blocking does not wait where many wait
            patience = struct.pack("ll", int(self.timeout), int(self.timeout % 1 * 1e6))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)

    def peer(self) -> int:
        """Its pid, by SO_PEERCRED (see unix(7)): of the process that began to listen."""
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])


def _read(answer: HTTPResponse) -> bytes:
    """What is there now; nothing at the end, also where the supervisor was killed."""
    try:
        return answer.read1(1 << 16)
    except (HTTPException, ConnectionResetError):
        return b""


def _missed(kind: type[T], content: bytes) -> T:
    count = msgspec.json.decode(content, type=dict[str, int]).get("count", 0)
    said = f"{count} of them are missing here: they came faster than they were read"
    about: dict[str, Any] = {"time": 0.0}
    if kind is models.Line:
        about |= {"app": "", "instance": "", "stream": "err", "text": said}
    else:
        about |= {"number": 0, "kind": "missed", "message": said}
    return msgspec.convert(about, kind)
