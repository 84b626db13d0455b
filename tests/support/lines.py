"""Waiting for what another process writes: a line, a pattern, the end; never by sleeping, never for ever."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import time
from collections.abc import Callable
from typing import Any

DEADLINE = float(os.environ.get("TEST_DEADLINE", "30"))
"""Seconds after which a wait fails the test: generous, since it only ever passes when something hangs."""


class DeadlineError(AssertionError):
    """What a test waited for did not come within DEADLINE."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again: only for a state of another process whose change the kernel tells nobody of."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise DeadlineError(f"not within {DEADLINE} s: {what}")
        os.sched_yield()


class Lines:
    """The lines of one readable descriptor, which it owns; everything read so far stays in `seen` (bytes)."""

    def __init__(self, fd: int, what: str = "output") -> None:
        self.fd = fd
        self.what = what
        self.seen = b""
        self.ended = False
        self._taken = 0
        os.set_blocking(fd, False)

    def fill(self, latest: float) -> None:
        """Read what there is, waiting for it; raise DeadlineError after `latest` (monotonic seconds)."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        left = latest - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise DeadlineError(f"nothing more on {self.what} within {DEADLINE} s; so far: {self.seen!r}")
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process of a pty has gone
            data = b""
        self.ended = not data
        self.seen += data

    def line(self, deadline: float = DEADLINE) -> str | None:
        """The next line without its newline, or None at the end; a last line without newline counts."""
        latest = time.monotonic() + deadline
        while (end := self.seen.find(b"\n", self._taken)) < 0:
            if self.ended:
                rest = self.seen[self._taken :]
                self._taken = len(self.seen)
                return rest.decode(errors="replace") if rest else None
            self.fill(latest)
        text = self.seen[self._taken : end].decode(errors="replace")
        self._taken = end + 1
        return text

    def until(self, wanted: Callable[[str], bool], count: int = 1, deadline: float = DEADLINE) -> list[str]:
        """Every line up to the count-th one that is wanted, that one included; fails at the end."""
        found: list[str] = []
        while count > 0:
            text = self.line(deadline)
            if text is None:
                raise AssertionError(f"{self.what} ended with {count} wanted lines missing: {self.seen!r}")
            found.append(text)
            count -= wanted(text)
        return found

    def rest(self, deadline: float = DEADLINE) -> list[str]:
        """Every line up to the end, that is until the last writer is gone."""
        found = []
        while (text := self.line(deadline)) is not None:
            found.append(text)
        return found

    def close(self) -> None:
        """Close the descriptor; more than once is allowed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Pipe(Lines):
    """A pipe of a megabyte: the test reads its lines, `write_fd` is for the processes under test."""

    def __init__(self, what: str) -> None:
        reader, self.write_fd = os.pipe()
        super().__init__(reader, what)
        with contextlib.suppress(PermissionError):  # a user over the limit: 64 kB do for most trees
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 1 << 20)

    def close_writer(self) -> None:
        """Our own copy of the write end: closed once the processes have theirs, or the end never comes."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_writer()
        super().close()


def events(lines: list[str]) -> list[dict[str, Any]]:
    """Event lines (--events) as dicts; a line that is not one JSON object fails."""
    parsed = []
    for text in lines:
        event = json.loads(text)
        assert isinstance(event, dict), text
        assert next(iter(event)) == "event", text
        parsed.append(event)
    return parsed
