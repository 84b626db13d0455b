"""An instance as probes see it, and a server that answers as it is told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from sexton.supervise import config, models
from sexton.supervise.notify import Notify
from sexton.supervise.probes import ProbeFailed, until_ready
from tests.support.lines import DEADLINE

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 11\r\n\r\nno database"
SOON = 0.3  # seconds of a deadline that is to be missed


APP = config.App(name="web", command=("true",))


@dataclass
class Subject:
    """An instance, as probes see it: here the test itself."""

    app: config.App = APP
    name: str = "web.3"
    ports: dict[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    notify: Notify | None = None
    family: set[int] = field(default_factory=lambda: {os.getpid()})
    written: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)

    @property
    def cwd(self) -> str | None:
        return self.app.cwd

    def pids(self) -> set[int]:
        return self.family

    async def lines(self) -> AsyncIterator[models.Line]:
        while (text := await self.written.get()) is not None:
            yield models.Line(time=time.time(), app="web", instance=self.name, stream="out", text=text)


def play(act: Callable[[], Awaitable[None]]) -> None:
    """Run it to its end; one that hangs fails."""
    asyncio.run(asyncio.wait_for(act(), DEADLINE))


class Server:
    """Answers each connection with the next of `answers`, and with the last one for ever; None: with nothing."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.heard: list[bytes] = []
        self.port = 0
        self._kept: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def listen(self, host: str = "127.0.0.1", path: Path | None = None, **settings: Any) -> None:
        if path:
            self._server = await asyncio.start_unix_server(self._serve, path)
        else:
            self._server = await asyncio.start_server(self._serve, host, self.port, **settings)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self._kept.append(writer)
        if answer is None:
            return
        try:
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._kept:
            writer.close()
        if self._server:
            self._server.close()


async def failure(probe: config.Probe, subject: Subject) -> str:
    """Why it did not get ready."""
    with pytest.raises(ProbeFailed) as caught:
        await until_ready(probe, subject)
    return str(caught.value)
