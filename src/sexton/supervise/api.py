"""The control API: HTTP and JSON over a Supervisor. What it says is in `models`; what it takes, in OPERATIONS."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sexton.errors import SextonError, UsageError
from sexton.supervise import models, openapi
from sexton.supervise.asked import Down, Scale, Signal
from sexton.supervise.happenings import KEEP
from sexton.supervise.metrics import Metrics
from sexton.supervise.server import Server, read_token
from sexton.supervise.streams import Streams, Tap, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.requests import Request

    from sexton.supervise import config
    from sexton.supervise.supervisor import Supervisor

BODY = 1 << 16  # bytes of a request; the longest that makes sense has some fifty
LINES = 10_000  # that a listener gets again, at most

T = TypeVar("T", bound=msgspec.Struct)

log = logging.getLogger("sexton.supervise")


class TooLarge(SextonError):
    """The body of a request is not one that this API takes."""


class Api:
    """Serves one supervisor: listen(), and close() when it is over."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self._streams = Streams()
        self._changing = asyncio.Lock()  # reload and scale: one after the other
        self._metrics = Metrics(supervisor)
        self._server = Server(self._app())

    async def listen(self, path: Path, tcp: config.Api | None = None) -> None:
        """On the unix socket, and on TCP if that is asked for. Raises OSError, UsageError."""
        await self._server.listen(path)
        await self._follow(tcp)

    async def _follow(self, tcp: config.Api | None) -> bool:
        """Listen on TCP as it is asked for now; whether that is another way than before. Raises UsageError."""
        if tcp is None:
            return await self._server.follow(None, b"")
        token = read_token(tcp.token_file)
        try:
            return await self._server.follow(tcp.listen, token)
        except OSError as error:
            raise UsageError(f"api.listen: {tcp.listen}: {error.strerror or error}") from None

    def addresses(self) -> list[Any]:
        """Of each socket that it listens on, as getsockname(2) has it."""
        return self._server.addresses()

    async def close(self) -> None:
        """Say what there is to say, and be gone."""
        self._streams.end()
        await self._server.close()

    async def reload(self) -> models.Changes:
        """Apply what the file says now; one reload at a time. Raises SextonError."""
        async with self._changing:
            return await self.supervisor.reload(self._follow)

    def _app(self) -> Starlette:
        calls: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "status": self._status,
            "ports": self._ports,
            "events": self._events,
            "logs": self._logs,
            "metrics": self._tell_metrics,
            "openapi": self._openapi,
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "signal": self._signal,
            "scale": self._scale,
            "reload": self._reload,
            "down": self._down,
        }
        routes = [
            Route(one.path, _guarded(calls[one.name]), methods=[one.method.upper()]) for one in openapi.OPERATIONS
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_problem})

    # --- looking ---

    async def _status(self, _request: Request) -> Response:
        return _json(self.supervisor.status())

    async def _ports(self, _request: Request) -> Response:
        return _json(self.supervisor.ports())

    async def _openapi(self, _request: Request) -> Response:
        return _json(openapi.document())

    async def _tell_metrics(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type=self._metrics.media_type)

    async def _events(self, request: Request) -> Response:
        events, epoch = self.supervisor.events, self.supervisor.epoch
        since, count = _number(request, "since", 0), _number(request, "n", KEEP)
        if last := request.headers.get("last-event-id"):
            then, _, number = last.partition("-")
            if not (_is_number(then) and _is_number(number)):
                raise UsageError(f"Last-Event-ID: {last[:80]!r}: expected EPOCH-NUMBER, as in 3-17")
            # What an earlier supervisor said is gone.
            since, count = int(number) if int(then) == epoch else 0, KEEP
        been = events.since(since)
        been = been[max(len(been) - count, 0) :]
        if not _follows(request):
            return _json(been)

        def framed(event: models.Event) -> bytes:
            return frame(event.kind, event, f"{epoch}-{event.number}")

        tap = Tap(map(framed, been))
        leave = events.listen(lambda event: tap.put(framed(event)))
        return self._stream(tap, leave)

    async def _logs(self, request: Request) -> Response:
        targets = [one for one in request.query_params.get("target", "all").split(",") if one]
        names = {one.name for one in self.supervisor.find(targets or ["all"])}
        count = min(_number(request, "n", 100), LINES)
        capture = self.supervisor.capture
        last = request.headers.get("last-event-id")
        lines = capture.tail(sorted(names), LINES if last else count) if count or last else []
        if last:
            try:
                after = float(last)
            except ValueError:
                raise UsageError(f"Last-Event-ID: {last[:80]!r}: expected the time of a line") from None
            lines = [line for line in lines if line.time > after]
        if not _follows(request):
            return _json(lines)

        def framed(line: models.Line) -> bytes:
            return frame("line", line, f"{line.time:.6f}")

        def put(line: models.Line) -> None:
            if line.instance in names:
                tap.put(framed(line))

        tap = Tap(map(framed, lines))
        leave = capture.listen(put)
        return self._stream(tap, leave)

    def _stream(self, tap: Tap, leave: Callable[[], None]) -> Response:
        return StreamingResponse(
            self._streams.follow(tap, leave), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    # --- doing ---

    async def _start(self, request: Request) -> Response:
        return _json(await self.supervisor.start(_targets(request)))

    async def _stop(self, request: Request) -> Response:
        return _json(await self.supervisor.stop(_targets(request)))

    async def _restart(self, request: Request) -> Response:
        return _json(await self.supervisor.restart(_targets(request)))

    async def _signal(self, request: Request) -> Response:
        asked = await _body(request, Signal)
        return _json(await self.supervisor.signal(_targets(request), asked.signal, asked.scope))

    async def _scale(self, request: Request) -> Response:
        asked = await _body(request, Scale)
        async with self._changing:
            return _json(await self.supervisor.scale(request.path_params["app"], asked.instances))

    async def _reload(self, _request: Request) -> Response:
        return _json(await self.reload())

    async def _down(self, request: Request) -> Response:
        asked = await _body(request, Down)
        self.supervisor.down(leave=asked.leave)
        return _json(models.Done(message="it is on its way down"), 202)


def _guarded(call: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Whatever goes wrong in it is an answer, and never the end of the supervisor."""

    async def guarded(request: Request) -> Response:
        try:
            return await call(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except TooLarge as error:
            return _problem(413, str(error), close=True)
        except UsageError as error:
            return _problem(400, str(error))
        except SextonError as error:
            return _problem(409, str(error))
        except Exception as error:
            log.exception("%s %s", request.method, request.url.path)
            return _problem(500, f"{type(error).__name__}: {error}; the supervisor's log has more")

    return guarded


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _problem(error.status_code, f"{error.detail}; GET /v1/openapi.json lists what there is")
    answer.headers.update(error.headers or {})
    return answer


def _problem(status: int, error: str, *, close: bool = False) -> Response:
    answer = _json(models.Problem(error=error), status)
    if close:
        answer.headers["connection"] = "close"
    return answer


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _body(request: Request, kind: type[T]) -> T:
    """What was sent, as that struct; nothing sent is an empty object. Raises UsageError, TooLarge."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > BODY:
            raise TooLarge(f"the body has more than {BODY} bytes")
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the body: {error}") from None


def _targets(request: Request) -> list[str]:
    """The apps and instances that are meant: web,api.1"""
    return [one for one in request.path_params["target"].split(",") if one]


def _follows(request: Request) -> bool:
    """A stream is asked for, not what is there now."""
    asked = request.query_params.get("follow")
    if asked not in {None, "0", "1", "false", "true"}:
        raise UsageError(f"follow: {asked!r}: expected 0 or 1")
    return asked in {"1", "true"} or (asked is None and "text/event-stream" in request.headers.get("accept", ""))


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _is_number(text):
        raise UsageError(f"{name}: {text[:80]!r}: expected a number, 0 or more")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
