"""A pseudo-terminal with a session leader on it, driven as a person would: type, then read what comes."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support.lines import DEADLINE, DeadlineError
from tests.support.processes import Handle

CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"


class Terminal:
    """A pty whose session leader is `argv`: an interactive shell, or an init in a namespace; for `with`."""

    def __init__(self, argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None = None) -> None:
        words = [os.fspath(word) for word in argv]
        base = {key: value for key, value in os.environ.items() if not key.startswith(("SEXTON_", "TINI_"))}
        environment = base | {"PS1": "$ ", "TERM": "dumb", "HISTFILE": ""} | dict(env or {})
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execvpe(words[0], words, environment)
        self.leader = Handle(pid)
        self.seen = ""
        self._taken = 0
        self.code: int | None = None

    def keys(self, text: str) -> None:
        """Type these keys; see CTRL_C and CTRL_Z."""
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Wait until the output after the last match matches (re.MULTILINE; the terminal ends lines in CR LF)."""
        until = time.monotonic() + deadline
        while not (match := re.compile(pattern, re.MULTILINE).search(self.seen, self._taken)):
            if not self._read(until):
                raise AssertionError(f"the terminal ended before {pattern!r}: {self.seen!r}")
        self._taken = match.end()
        return match

    def _read(self, until: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise DeadlineError(f"the terminal says nothing more; so far: {self.seen!r}")
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: no process has it open any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def foreground(self) -> int:
        """The terminal's foreground process group; as seen out here."""
        return os.tcgetpgrp(self.fd)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Read until the leader has ended; its exit code as in waitstatus_to_exitcode."""
        until = time.monotonic() + deadline
        while self._read(until):
            pass
        return self._reap()

    def _reap(self) -> int:
        if self.code is None:
            self.leader.wait_dead()
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.leader.pid, 0)[1])
        return self.code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            self.leader.kill()
        os.close(self.fd)  # hangs up: the rest of the session gets SIGHUP
        self._reap()
        self.leader.close()
