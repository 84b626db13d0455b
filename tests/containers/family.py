"""A family of monsters in a container: what they logged, what sexton-init reported, and how it ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.containers.podman import Container, Podman
from tests.support.lines import Lines, events
from tests.support.monsters import Note, await_notes, join, parse

MONSTER = "/bin/monster"

in_images = pytest.mark.release_only(
    "the sanitizer build is dynamic, and there are no shared libraries in these images"
)


class Fifo(Lines):
    """A FIFO to be mounted into a container; the end comes when the last process there has closed it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        path.chmod(0o666)  # any user in the container may write
        self.path = path
        super().__init__(os.open(path, os.O_RDONLY | os.O_NONBLOCK), path.name)


@dataclass
class Ending:
    """How a container ended. `said` is what it wrote to stdout and stderr."""

    code: int
    said: str
    notes: list[Note]
    events: list[dict[str, Any]]

    def got(self, sig: int) -> Counter[str]:
        """How often the monsters of each label got that signal."""
        return Counter(note.label for note in self.notes if note.word == "got" and note.signal == sig)

    def received(self, sig: int) -> Counter[int]:
        """How often each pid, as seen in the container, got that signal."""
        return Counter(note.pid for note in self.notes if note.word == "got" and note.signal == sig)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of that kind."""
        return [event for event in self.events if event["event"] == kind]


@dataclass
class Family:
    """A started container, the FIFO that its monsters log to, and the FIFO of the events."""

    container: Container
    log: Fifo
    stream: Fifo

    def await_note(self, word: str, count: int = 1) -> list[Note]:
        """Wait for that many notes of that word."""
        return await_notes(self.log, word, count)

    def await_events(self, kind: str, count: int = 1) -> None:
        """Wait for that many events of that kind."""
        self.stream.until(lambda line: events([line])[0]["event"] == kind, count)

    def stop(self, seconds: int = 20) -> Ending:
        """`podman stop`, then the ending."""
        self.container.stop(seconds)
        return self.end()

    def end(self) -> Ending:
        """Wait until the container has ended, and every monster with it."""
        code = self.container.wait()
        for fifo in (self.log, self.stream):
            fifo.rest()
        notes = [parse(line) for line in self.log.seen.decode().splitlines()]
        return Ending(code, self.container.logs(), notes, events(self.stream.seen.decode().splitlines()))


class Starter:
    """Starts families in containers of `image`, with sexton-init as the engine's --init or in the image."""

    def __init__(self, podman: Podman, init: Path, image: str, folder: Path, stack: ExitStack) -> None:
        self.podman = podman
        self.init = init
        self.image = image
        self.folder = folder
        self.stack = stack
        self._count = 0

    def __call__(
        self,
        *statements: str,
        options: Sequence[str | Path] = (),
        image: str = "",
        before: Sequence[str] = (),
        by_engine: bool = True,
    ) -> Family:
        """Start `podman run OPTIONS IMAGE BEFORE monster /log STATEMENTS`; with --init, if by_engine."""
        self._count += 1
        log, stream = (Fifo(self.folder / f"{name}{self._count}") for name in ("log", "events"))
        self.stack.callback(log.close)
        self.stack.callback(stream.close)
        words = [f"--volume={log.path}:/log", f"--volume={stream.path}:/events", "--env=SEXTON_EVENTS=/events"]
        if by_engine:
            words += self.with_init()
        container = self.podman.start(
            *words, *options, image or self.image, *before, MONSTER, "/log", *join(*statements)
        )
        self.stack.callback(container.remove)
        return Family(container, log, stream)

    def with_init(self) -> list[str]:
        """The words that make the engine put sexton-init in front."""
        return ["--init", f"--init-path={self.init}"]
