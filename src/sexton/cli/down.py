"""`sexton down`: stop everything, and the supervisor."""

from __future__ import annotations

import select
import signal
import sys
from typing import TYPE_CHECKING

import click

from sexton.cli._up import chosen, client, file_option, state_of
from sexton.errors import NotRunning

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@file_option
@click.option("--leave", is_flag=True, help="End the supervisor alone: the apps go on for their lease.")
def down(*, file: Path | None, leave: bool) -> None:
    """Stop every app, and end the supervisor.

    Those that others do not need are stopped first. Returns when nothing is left. Called again meanwhile, it leaves
    them no more time. Where the supervisor is dead, what it left is ended. With --leave the next `sexton up` takes the
    apps over as they run.
    """
    try:
        _ask(file, leave=leave)
    except NotRunning:
        if leave:
            raise
    if not leave:
        _sweep(file)


def _ask(file: Path | None, *, leave: bool) -> None:
    """Ask the supervisor, and wait for its end. Raises NotRunning."""
    supervisor = client(file)
    held = supervisor.hold()  # to our end
    _mind_the_init(held)
    supervisor.down(leave=leave)
    select.select([held], [], [])


def _mind_the_init(held: int) -> None:
    """Where the supervisor is what a container runs, its end is that of all: the init then sends us SIGTERM too.

    We are about to end by then, and with a better exit status.
    """

    def terminate(_number: int, _frame: object) -> None:
        if not select.select([held], [], [], 0)[0]:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)


def _sweep(file: Path | None) -> None:
    """End what is in the ledger of a supervisor that is no more."""
    from sexton.supervise.remains import end_all

    state = state_of(file)
    if not state.is_dir():
        raise NotRunning(f"there is nothing to stop: {chosen(file)} was never up")
    failed = False
    for fate in end_all(state):
        failed = failed or fate.failed
        print(f"{fate.instance}: {fate.text}", file=sys.stderr if fate.failed else sys.stdout)
    sys.exit(failed)
