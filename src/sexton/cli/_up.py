"""What the commands of `sexton up` share: the option -f, the client of the supervisor, what a command has done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from sexton.errors import SextonError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from sexton.supervise import models
    from sexton.supervise.client import Client

    F = TypeVar("F", bound=Callable[..., object])

BAD = frozenset({"backoff", "fatal", "stuck"})
STYLES = {
    "ready": ("green",),
    "fatal": ("red",),
    "stuck": ("red",),
    "backoff": ("yellow",),
    "starting": ("cyan",),
    "waiting": ("cyan",),
    "stopping": ("cyan",),
    "stopped": ("dim",),
    "completed": ("dim",),
    "idle": ("dim",),
}


def file_option(command: F) -> F:
    """-f FILE, as the keyword `file`; None: where it is not given."""
    option = click.option(
        "-f", "--file", type=click.Path(path_type=Path), metavar="FILE",
        help="The file; otherwise sexton.toml here or in the nearest directory above.",
    )  # fmt: skip
    return option(command)


def targets_argument(command: F) -> F:
    """APP[.N]..., as the keyword `targets`."""
    return click.argument("targets", nargs=-1, required=True, metavar="APP[.N]...|all")(command)


def chosen(file: Path | None) -> Path:
    """The file that is meant. Raises UsageError."""
    from sexton.supervise.where import default_path

    return default_path() if file is None else file


def state_of(file: Path | None) -> Path:
    """The state directory of its supervisor. Raises UsageError."""
    from sexton.supervise import where

    return where.state_of(chosen(file))


def client(file: Path | None) -> Client:
    """The client of its supervisor, which may run or not. Raises UsageError."""
    from sexton.supervise import where
    from sexton.supervise.client import Client

    path = chosen(file)
    return Client(where.state_of(path) / where.SOCKET, file=path)


def ports_of(ports: Mapping[str, int]) -> str:
    """`http=40001`, for people."""
    return " ".join(f"{name}={port}" for name, port in ports.items())


def done(answer: models.Done) -> None:
    """Print what a command did; ends with 1 where an instance is not well after it."""
    if answer.message:
        print(answer.message)
    failed = tuple(f"{name} is {state}" for name in answer.instances for state in BAD)
    if any(line.startswith(failed) for line in answer.message.splitlines()):
        sys.exit(1)


def fail(error: Exception) -> NoReturn:
    """Say it on stderr, and end with the exit code of its class."""
    print(f"sexton: {error}", file=sys.stderr)
    sys.exit(error.exit_code if isinstance(error, SextonError) else 1)
