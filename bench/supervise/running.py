"""A supervisor that runs some apps, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sexton
from bench.init.programs import CannotMeasure
from bench.supervise.peers import Apps, Supervisor

DEADLINE = 60.0  # seconds for whatever is waited for
PATIENCE = 5.0  # seconds that a supervisor has to end; circus misses a SIGTERM that comes too soon after its start
APP = "app"  # what the kernel calls an app: the helper's name


class Announcements:
    """What the apps say on their FIFO when they run: (pid, nanoseconds of the monotonic clock)."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._rest = b""
        self._lines: list[tuple[int, int]] = []

    def take(self, count: int = 1) -> list[tuple[int, int]]:
        """The next so many. Raises CannotMeasure when they do not come."""
        until = time.monotonic() + DEADLINE
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while len(self._lines) < count:
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise CannotMeasure(f"of {count} apps only {len(self._lines)} have come up within {DEADLINE:g} s")
            *lines, self._rest = (self._rest + os.read(self._fd, 1 << 16)).split(b"\n")
            self._lines += [(int(pid), int(when)) for pid, when in (line.split() for line in lines)]
        found, self._lines = self._lines[:count], self._lines[count:]
        return found

    def close(self) -> None:
        os.close(self._fd)


class Running:
    """One that was started: `began` in nanoseconds of the monotonic clock; `tree`: all of it; `up`: its apps."""

    def __init__(self, supervisor: Supervisor, folder: Path, announced: Announcements, output: int) -> None:
        self.supervisor = supervisor
        self.folder = folder
        self.announced = announced
        self.up: list[int] = []
        self.began = time.monotonic_ns()
        self.tree = sexton.Tree(
            supervisor.command(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=supervisor.environment(folder),
            cwd=folder,
        )

    @property
    def pid(self) -> int:
        """Of the supervisor itself."""
        return self.tree.pid

    def helpers(self) -> list[int]:
        """The supervisor and every process that it has beside the apps."""
        return [process.pid for process in self.tree.processes() if process.name != APP]

    def status(self) -> str:
        """Ask it how they all are. Raises CannotMeasure."""
        command = self.supervisor.status(self.folder)
        environment = self.supervisor.environment(self.folder)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE, check=False)
        if done.returncode:
            raise CannotMeasure(f"`{' '.join(command)}` failed: {done.stderr or done.stdout}")
        return done.stdout


@contextlib.contextmanager
def running(supervisor: Supervisor, folder: Path, apps: Callable[[Path], Apps]) -> Iterator[Running]:
    """Start it with apps that announce themselves on the FIFO that is given; in the end nothing is left of it."""
    folder.mkdir(parents=True)
    announced = Announcements(folder / "fifo")
    supervisor.configure(folder, apps(announced.path))
    said = folder / "said"
    try:
        with said.open("wb") as output:
            run = Running(supervisor, folder, announced, output.fileno())
        with run.tree as tree:
            try:
                yield run
            finally:
                tree.terminate()
                with contextlib.suppress(sexton.TimeoutExpired):
                    tree.wait_command(PATIENCE)
                tree.kill()
    except CannotMeasure as error:
        tail = said.read_text(errors="replace")[-2000:].strip()
        raise CannotMeasure(f"{supervisor.name}: {error}; it said: {tail}") from None
    finally:
        announced.close()
