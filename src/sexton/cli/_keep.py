"""`sexton reap --keep`, the part that prints."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from sexton import proc
from sexton.cli._scope import of_container, of_pid
from sexton.cli._table import plural
from sexton.cli.reap import document, line
from sexton.doctor.keep import Keeper

if TYPE_CHECKING:
    from sexton.doctor.cure import Deed


def stay(target: str, *, force: bool, as_json: bool) -> int:
    """Bury each new zombie until the target ends or SIGINT or SIGTERM comes; the exit code."""
    at = proc.snapshot()
    culprit = _culprit(at, target)
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    buried: list[Deed] = []
    with Keeper(culprit, reading, force=force) as keeper:
        deeds = keeper.deeds()
        how = keeper.how()
        print(f"sexton: keeping {culprit.name}: {how}", file=sys.stderr, flush=True)
        for deed in deeds:
            buried += [deed] if deed.result == "reaped" else []
            print(json.dumps(document(deed)) if as_json else line([deed]), flush=True)
        left = len(keeper.refused)
    ended = isinstance(now := proc.stat(culprit.pid), proc.Missing) or now.start != culprit.start or now.zombie
    end = f"{culprit.name} ended" if ended else "told to stop"
    print(f"sexton: {end}: {plural(len(buried), 'zombie')} reaped, {left} left alone", file=sys.stderr, flush=True)
    return 0


def _culprit(at: proc.Snapshot, target: str) -> proc.Process:
    """The process that is named, or the PID 1 of the container that is."""
    if target.isdecimal() and int(target) in at:
        of_pid(at, int(target))
        return at.processes[int(target)]
    inside = of_container(at, proc.containers(at), target)
    tops = [at.processes[pid] for pid in inside if at.processes[pid].ppid not in inside]
    return min(tops, key=lambda process: (process.start, process.pid))
