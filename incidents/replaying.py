"""What the replays share: finding and loading them, the table of what they counted, containers over the real root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

from tests.containers.podman import Container
from tests.support.lines import DEADLINE, Lines
from tests.support.processes import Stat

HERE = Path(__file__).parent
RELEASE = HERE.parent / "build" / "sexton-init"
FOLDERS = sorted(HERE.glob("[0-9][0-9]-*"))

Table = dict[str, dict[str, object]]
"""How it was run -> what was counted -> the count."""


class Replay(Protocol):
    """What the program of each incident has."""

    TITLE: str
    replay: Callable[[Path], Table]  # takes the path of sexton-init
    check: Callable[[Table], None]  # asserts both sides: the damage without sexton, and none with it


def load(folder: Path) -> Replay:
    """Import 01-some-name/some_name.py."""
    name = folder.name[3:].replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return cast(Replay, module)


def show(table: Table) -> str:
    """The table as text: a column for each way, a line for each count."""
    measures = list(next(iter(table.values())))
    rows = [["", *table], *([measure, *(str(counts[measure]) for counts in table.values())] for measure in measures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def real_root(folder: Path) -> list[str]:
    """Words of `podman run` for a container that is this machine: its root directory, to be written to in vain.

    `folder` is found at /incident, the network is the machine's own, and so is PATH.
    """
    return [f"--volume={folder}:/incident:ro", "--network=host", f"--env=PATH={os.environ['PATH']}", "--rootfs", "/:O"]


def servers(container: Container) -> list[Stat]:
    """The customers' servers of incident 1 that are alive."""
    found = []
    for each in container.processes():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = (container.proc / str(each.pid) / "cmdline").read_bytes().split(b"\0")
            if words[:2] == [b"node", b"server.js"]:
                found.append(each)
    return found


def taken(port: int) -> bool:
    """Is somebody listening there?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def output(container: Container) -> Iterator[Lines]:
    """The lines that a container says from its start on, as they come; they end when it does."""
    following = container.podman.popen("logs", "--follow", container.id)
    assert following.stdout
    assert following.stderr
    lines = Lines(os.dup(following.stdout.fileno()), "the container's output")
    try:
        yield lines
    finally:
        following.terminate()
        following.wait(DEADLINE)
        for closing in (lines, following.stdout, following.stderr):
            closing.close()
