"""Starting a command where a test wants it: as PID 1 of a private PID namespace, or beside a plain one."""

from __future__ import annotations

import contextlib
import enum
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.lines import DEADLINE, Lines, Pipe
from tests.support.processes import Handle, children


class Place(enum.Enum):
    """Where the command runs. Both private places die as a whole when the test ends."""

    PID1 = "pid1"  # it is PID 1 of a PID namespace of its own
    BESIDE = "beside"  # in such a namespace, but PID 1 is a monster that only reaps and logs who is left
    HERE = "here"  # a plain child of the test: only for what cannot leave a process behind


class Proc(enum.Enum):
    """What the command finds at /proc (not for Place.HERE)."""

    OWN = "proc"  # the /proc of its PID namespace
    NONE = "noproc"  # an empty directory
    FOREIGN = "foreign-proc"  # the /proc of the namespace outside


@dataclass(frozen=True)
class Result:
    """How a command ended: code as subprocess gives it (128+n or -n for signals), output as text."""

    code: int
    out: str
    err: str


def namespace(proc: Proc = Proc.OWN) -> list[str]:
    """The words that put a command behind them into a PID (and mount) namespace as its PID 1, root or not."""
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount"]
    if os.geteuid() != 0:
        words += ["--user", "--map-root-user"]
    if proc is Proc.OWN:
        return [*words, "--mount-proc", "--"]
    if proc is Proc.NONE:
        return [*words, "--", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    return [*words, "--"]


class Running:
    """A started command, its output, and the init in it; use it with `with`: the end kills what is left."""

    def __init__(self, popen: subprocess.Popen[bytes], place: Place) -> None:
        self.popen = popen
        self.place = place
        self.out = Lines(os.dup(popen.stdout.fileno()), "stdout") if popen.stdout else None
        self.err = Lines(os.dup(popen.stderr.fileno()), "stderr") if popen.stderr else None
        self._handles: list[Handle] = []

    @property
    def init(self) -> Handle:
        """The process that was asked for, by its pid out here; only once it has shown a sign of life."""
        return self._down({Place.HERE: 0, Place.PID1: 1, Place.BESIDE: 2}[self.place])

    @property
    def command(self) -> Handle:
        """The first child of the init: COMMAND."""
        return self.handle(children(self.init.pid)[0])

    def handle(self, pid: int) -> Handle:
        """A Handle that is closed with this Running; pid as seen out here."""
        for known in self._handles:
            if known.pid == pid:
                return known
        self._handles.append(Handle(pid))
        return self._handles[-1]

    def _down(self, levels: int) -> Handle:
        pid = self.popen.pid
        for _ in range(levels):
            below = children(pid)
            assert below, f"process {pid} has no child: ended already? stderr: {self._stderr()}"
            pid = below[0]
        return self.handle(pid)

    def _stderr(self) -> str:
        return self.err.seen.decode(errors="replace") if self.err else ""

    def send(self, sig: int) -> None:
        """Send a signal to the init."""
        self.init.send(sig)

    def tell(self, data: bytes = b"\n") -> None:
        """Write to the command's stdin (stdin=subprocess.PIPE): what a monster's `hold` waits for."""
        assert self.popen.stdin
        self.popen.stdin.write(data)
        self.popen.stdin.flush()

    def wait(self, deadline: float = DEADLINE) -> Result:
        """Wait for the end of the command, then of its output (that is of every holder of it)."""
        code = self.popen.wait(deadline)
        for stream in (self.out, self.err):
            if stream:
                stream.rest(deadline)
        seen = [stream.seen.decode(errors="replace") if stream else "" for stream in (self.out, self.err)]
        return Result(code, *seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.popen.poll() is None and self.place is not Place.HERE:
            for pid in children(self.popen.pid):  # PID 1: --kill-child is lost when it changes its user
                self.handle(pid)
        for handle in self._handles:
            handle.kill()
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(DEADLINE)
        for closing in (
            self.out,
            self.err,
            *self._handles,
            self.popen.stdin,
            self.popen.stdout,
            self.popen.stderr,
        ):
            if closing:
                with contextlib.suppress(BrokenPipeError):
                    closing.close()


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    place: Place = Place.PID1,
    proc: Proc = Proc.OWN,
    host: Sequence[str | os.PathLike[str]] = (),
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    pipes: Sequence[Pipe] = (),
    fds: Sequence[int] = (),
    preexec: Callable[[], None] | None = None,
) -> Running:
    """Start argv at that place; `host` is the plain init that Place.BESIDE wants (see `monster host`).

    env is added to ours, less every SEXTON_ and TINI_ variable. `pipes` are handed down by their number and
    closed here; `fds` are handed down. `preexec` runs in the child before anything of the place does.
    """
    words = [os.fspath(word) for word in argv]
    if place is Place.BESIDE:
        assert host, "Place.BESIDE needs a host"
        words = [os.fspath(word) for word in host] + words
    if place is not Place.HERE:
        words = namespace(proc) + words
    base = {key: value for key, value in os.environ.items() if not key.startswith(("SEXTON_", "TINI_"))}
    popen = subprocess.Popen(
        words,
        bufsize=0,
        env=base | dict(env or {}),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=[pipe.write_fd for pipe in pipes] + list(fds),
        preexec_fn=preexec,  # noqa: PLW1509  # the tests have one thread
    )
    for pipe in pipes:
        pipe.close_writer()
    return Running(popen, place)
