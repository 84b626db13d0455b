"""What has happened: the events of one supervisor, the last of them kept, each told to whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from sexton.supervise import models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEEP = 10_000


class Events:
    """The events from the start of this supervisor; numbers count up from 1."""

    def __init__(self) -> None:
        self._kept: deque[models.Event] = deque(maxlen=KEEP)
        self._listeners: list[Callable[[models.Event], None]] = []
        self._number = 0
        self._news = asyncio.Event()

    def tell(self, kind: str, **about: Any) -> models.Event:
        """Something has happened; gives the event."""
        self._number += 1
        event = models.Event(number=self._number, time=time.time(), kind=kind, **about)
        self._kept.append(event)
        for listener in list(self._listeners):
            listener(event)
        self._news.set()
        self._news = asyncio.Event()
        return event

    def since(self, number: int) -> list[models.Event]:
        """Those with a greater number, as far as they are kept."""
        return [event for event in self._kept if event.number > number]

    def listen(self, callback: Callable[[models.Event], None]) -> Callable[[], None]:
        """Call it with each event from now on; gives what ends that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def follow(self, number: int) -> AsyncIterator[models.Event]:
        """Those with a greater number, and all that come; without end."""
        while True:
            news = self._news
            for event in self.since(number):
                number = event.number
                yield event
            await news.wait()
