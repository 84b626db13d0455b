"""Lines of many instances as people read them: each behind the name of its instance, in a colour of its own."""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import stat
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sexton.cli._table import screen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sexton.cli._table import Screen
    from sexton.supervise import models

COLORS = (("cyan",), ("yellow",), ("green",), ("magenta",), ("bold", "cyan"), ("bold", "yellow"), ("bold", "green"))
ROOM = 4 << 20  # bytes that wait for a terminal that is slow, or stopped
PATIENCE = 1000  # milliseconds for it at the very end


class Prefixes:
    """`web.0  | ready`: aligned as far as the names are known; `instances` may grow meanwhile.

    timestamps   each line has its time too
    """

    def __init__(self, instances: Iterable[str], on: Screen, *, timestamps: bool = False) -> None:
        self._on = on
        self._timestamps = timestamps
        self._width = max((len(name) for name in instances), default=0)
        self._styles: dict[str, tuple[str, ...]] = {}
        for name in instances:
            self._style(name)

    def _style(self, name: str) -> tuple[str, ...]:
        return self._styles.setdefault(name, COLORS[len(self._styles) % len(COLORS)])

    def line(self, line: models.Line) -> str:
        """With its end. What went to stderr has a red bar."""
        name = line.instance or "sexton"
        self._width = max(self._width, len(name))
        text = line.text.removesuffix("\r")
        if self._timestamps:
            text = f"{self._on.paint(_moment(line.time), 'dim')} {text}"
        if not self._on.color:
            return f"{name:{self._width}} | {text}\n"
        bar = self._on.paint("|", "red") if line.stream == "err" else self._on.paint("|", *self._style(name))
        return f"{self._on.paint(f'{name:{self._width}}', *self._style(name))} {bar} {text}\n"


def _moment(time: float) -> str:
    """Here, by RFC 3339; - where it is not known."""
    if not time:
        return f"{'-':29}"
    return datetime.fromtimestamp(time, UTC).astimezone().isoformat(timespec="milliseconds")


class Printer:
    """Prints lines from within an asyncio loop, and never waits for who reads them: a terminal that is stopped by
    Ctrl-S, or a pager, stops nobody. What it does not take in time is left out, and that is said.
    """

    def __init__(self, instances: Iterable[str]) -> None:
        self._fd = sys.stdout.fileno()
        self._prefixes = Prefixes(instances, screen())
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._missing = 0
        self._due = False  # the next write is arranged
        self._gone = False  # nobody reads any more
        self._endless = stat.S_ISREG(os.fstat(self._fd).st_mode)  # a file takes whatever comes
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        sys.stdout.flush()
        atexit.register(self.close)

    def show(self, line: models.Line) -> None:
        """Print it soon."""
        if self._gone:
            return
        if len(self._waiting) > ROOM:
            self._missing += 1
            return
        if self._missing:
            self._waiting += f"sexton | {self._missing} lines are missing here\n".encode()
            self._missing = 0
        self._waiting += self._prefixes.line(line).encode(errors="replace")
        if not self._due:
            self._due = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._due = False
        if self._put(0) or self._gone:
            self._loop.remove_writer(self._fd)
        else:
            self._due = True
            self._loop.add_writer(self._fd, self._write)

    def _put(self, patience: int) -> bool:
        """Write what is taken without waiting; says whether that was all."""
        done = 0
        try:
            while done < len(self._waiting):
                if not self._endless and not self._poll.poll(patience):
                    break
                # What poll(2) promises is room for so much; more would wait.
                part = self._waiting[done:] if self._endless else self._waiting[done : done + select.PIPE_BUF]
                done += os.write(self._fd, part)
        except OSError:
            self._gone = True
            self._waiting.clear()
        del self._waiting[:done]
        return not self._waiting

    def close(self) -> None:
        """Write what is left, as far as it is taken within a second; done at the exit of the process as well."""
        atexit.unregister(self.close)
        if self._due and not self._loop.is_closed():
            self._loop.remove_writer(self._fd)
        if not self._gone:
            self._put(PATIENCE)
        self._gone = True
