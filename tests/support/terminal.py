"""A pseudo-terminal with processes on it, driven as a person would: type, then read what comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support.lines import DEADLINE, Lines, Pipe
from tests.support.processes import Handle, children

CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x04", "\x1a", "\x1c"


class Terminal:
    """A pty with `argv` on it; use it with `with`: the end kills argv and its child (a namespace's PID 1).

    `controls`: argv is the session's leader and the pty its controlling terminal, as for a login shell. Without, it is
    but the standard streams, free to become another's: `setsid --ctty` further down, in a namespace.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        controls: bool = True,
        env: Mapping[str, str] | None = None,
        pipes: Sequence[Pipe] = (),
    ) -> None:
        base = {key: value for key, value in os.environ.items() if not key.startswith(("SEXTON_", "TINI_"))}
        fd, slave = pty.openpty()
        self.output = Lines(fd, "the terminal")
        self.popen = subprocess.Popen(
            [os.fspath(word) for word in argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=base | {"PS1": "$ ", "TERM": "dumb", "HISTFILE": ""} | dict(env or {}),
            pass_fds=[pipe.write_fd for pipe in pipes],
            start_new_session=True,
            preexec_fn=_take_terminal if controls else None,  # noqa: PLW1509  # the tests have one thread
        )
        os.close(slave)
        for pipe in pipes:
            pipe.close_writer()
        self._taken = 0

    @property
    def seen(self) -> str:
        """All that it has said."""
        return self.output.seen.decode(errors="replace")

    def keys(self, text: str) -> None:
        """Type these keys; see CTRL_C and CTRL_Z."""
        os.write(self.output.fd, text.encode())

    def expect(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Wait until the output after the last match matches (re.MULTILINE; the terminal ends lines in CR LF)."""
        until = time.monotonic() + deadline
        while not (match := re.compile(pattern, re.MULTILINE).search(self.seen, self._taken)):
            if self.output.ended:
                raise AssertionError(f"the terminal ended before {pattern!r}: {self.seen!r}")
            self.output.fill(until)
        self._taken = match.end()
        return match

    def foreground(self) -> int:
        """The terminal's foreground process group; as seen out here."""
        return os.tcgetpgrp(self.output.fd)

    def hang_up(self) -> None:
        """Close our side: the line is cut."""
        self.output.close()

    def wait(self, deadline: float = DEADLINE) -> int:
        """Read until argv has ended; its exit code as subprocess gives it."""
        if self.output.fd >= 0:
            self.output.rest(deadline)
        return self.popen.wait(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            for pid in children(self.popen.pid):
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                    below = Handle(pid)
                    below.kill()
                    below.close()
            self.popen.kill()
        self.hang_up()
        self.popen.wait(DEADLINE)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
