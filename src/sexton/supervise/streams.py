"""Server-sent events: what happens and what is written, to whoever listens, each at the pace that suits it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

ROOM = 4 << 20  # bytes that wait for a slow listener; what is more is dropped, counted, and said


def frame(kind: str, data: object, number: str = "") -> bytes:
    """One event as the HTML standard has it: its id, its type and its data."""
    head = f"id: {number}\nevent: {kind}\ndata: " if number else f"event: {kind}\ndata: "
    return head.encode() + msgspec.json.encode(data) + b"\n\n"


class Tap:
    """What one listener has not got yet."""

    def __init__(self, begin: Iterable[bytes] = ()) -> None:
        self._frames = list(begin)
        self._size = 0
        self._lost = 0
        self._news = asyncio.Event()
        self._ended = False
        if self._frames:
            self._news.set()

    def put(self, data: bytes) -> None:
        """One frame more."""
        if self._lost or self._size + len(data) > ROOM:
            self._lost += 1
            return
        self._frames.append(data)
        self._size += len(data)
        self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._news.set()

    async def take(self) -> bytes:
        """All that is there, at least one frame; nothing: that was the end."""
        await self._news.wait()
        data = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        if self._lost:
            data += frame("missed", {"count": self._lost})
            self._lost = 0
        if not self._ended:
            self._news.clear()
        return data


class Streams:
    """All listeners of a server."""

    def __init__(self) -> None:
        self._taps: set[Tap] = set()
        self._ended = False

    async def follow(self, tap: Tap, leave: Callable[[], None]) -> AsyncIterator[bytes]:
        """What comes out of a tap, until it ends or the listener goes; `leave` is then called."""
        self._taps.add(tap)
        if self._ended:
            tap.end()
        try:
            yield b": sexton\n\n"  # so that the listener knows at once that it is heard
            while data := await tap.take():
                yield data
        finally:
            self._taps.discard(tap)
            leave()

    def end(self) -> None:
        """Send what there is, and no more."""
        self._ended = True
        for tap in self._taps:
            tap.end()
