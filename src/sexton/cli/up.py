"""`sexton up`: run the apps of a file."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from sexton.cli._up import chosen, file_option, ports_of
from sexton.cli.events import said
from sexton.errors import SextonError

if TYPE_CHECKING:
    from pathlib import Path

    from sexton.supervise import models
    from sexton.supervise.config import Config
    from sexton.supervise.supervisor import Supervisor

LONGEST_LOG = 1 << 20  # bytes of supervisor.log; a new supervisor begins a new one then


@click.command()
@file_option
@click.option("-d", "--detach", is_flag=True, help="Go on in the background; return when all is up or has failed.")
@click.option("--tell-fd", type=int, hidden=True, help="Where a detached one says that it is up.")
def up(*, file: Path | None, detach: bool, tell_fd: int | None) -> None:
    """Run the apps of FILE until they are told to stop.

    SIGTERM and SIGINT stop them, those first that others do not need; a second SIGINT leaves them no more time.
    SIGHUP applies what the file says then. Apps that an earlier supervisor left are taken over as they run. As PID 1 it
    puts itself behind sexton-init.
    """
    from sexton.supervise.load import load

    path = chosen(file)
    try:
        config = load(path)
    except SextonError as error:
        if tell_fd is not None:
            _tell(tell_fd, {"error": str(error), "code": error.exit_code})
        raise
    if os.getpid() == 1:
        _behind_init(config)
    if detach:
        _detach(config)
    sys.exit(_stay(path, config, tell_fd))


def _behind_init(config: Config) -> NoReturn:
    """What orphans itself in this container comes to an init, and not to us."""
    from sexton._binary import become

    # The supervisor stops its trees itself: what is left when it has ended has its grace from the init.
    grace = max((app.stop.grace for app in config.apps.values()), default=5.0)
    become(["--signal", "child", "--grace", f"{grace:.3f}", "--", sys.executable, *sys.orig_argv[1:]])


def _stay(path: Path, config: Config, tell_fd: int | None) -> int:
    """Be the supervisor, here or in the background; the exit code."""
    import asyncio

    from sexton.supervise import limits
    from sexton.supervise.load import load
    from sexton.supervise.run import run

    terminal = sys.stdout.isatty()

    def watch(supervisor: Supervisor) -> None:
        if tell_fd is not None:
            supervisor.events.listen(lambda event: _write_down(_told(event, supervisor)))
            return
        from sexton.cli._lines import Printer

        printer = Printer(supervisor.instances)
        supervisor.capture.listen(printer.show)
        supervisor.events.listen(
            lambda event: None if event.state == "waiting" else printer.show(_as_line(event, supervisor))
        )

    def begun(supervisor: Supervisor) -> None:
        if tell_fd is not None:
            _tell(tell_fd, _summary(supervisor.status()))

    if tell_fd is not None:
        os.set_inheritable(tell_fd, False)
        limits.STARTER = os.getppid()
    try:
        return asyncio.run(run(config, lambda: load(path), watch=watch, up=begun, hung_up=lambda: terminal and _gone()))
    except (SextonError, OSError) as error:
        code = error.exit_code if isinstance(error, SextonError) else 1
        if tell_fd is not None:
            _tell(tell_fd, {"error": str(error), "code": code})
        print(f"sexton: {error}", file=sys.stderr)
        return code


def _gone() -> bool:
    """The terminal that we were started on has hung up."""
    try:
        os.tcgetpgrp(1)
    except OSError:
        return True
    return False


def _told(event: models.Event, supervisor: Supervisor) -> str:
    """An event for people; of an instance that is ready its ports as well."""
    text = said(event, clock=False)
    one = supervisor.instances.get(event.instance) if event.state == "ready" else None
    return f"{text}, {ports_of(one.ports)}" if one and one.ports else text


def _as_line(event: models.Event, supervisor: Supervisor) -> models.Line:
    """What happens, among what the apps write."""
    from sexton.supervise.models import Line

    return Line(time=event.time, app="", instance="", stream="err", text=_told(event, supervisor))


# --- in the background ---


def _write_down(text: str) -> None:
    """What happens, into supervisor.log."""
    try:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return  # the disk is full: the apps go on


def _summary(status: models.Status) -> dict[str, object]:
    everybody = [one for app in status.apps for one in app.instances]
    well = {"ready", "idle", "completed"}
    failed = [one for one in everybody if one.state not in {*well, "stopped"}]
    return {
        "pid": status.pid,
        "up": sum(one.state in well for one in everybody),
        "failed": [f"{one.name} is {one.state}" + (f": {one.message}" if one.message else "") for one in failed],
    }


def _tell(fd: int, said: dict[str, object]) -> None:
    try:
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(said, file)
    except OSError:
        return  # who started us has not waited


def _detach(config: Config) -> NoReturn:
    """Start another process that is the supervisor, and wait until it says that all is up."""
    import subprocess
    from pathlib import Path

    from sexton.supervise.where import LOG, make

    state = Path(config.state)
    make(state)
    path = state / LOG
    if path.exists() and path.stat().st_size > LONGEST_LOG:
        path.replace(path.with_name(f"{LOG}.1"))
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "sexton", "up", "--file", config.path, "--tell-fd", str(writer)]
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[writer], start_new_session=True
        )
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    if not text:
        code = process.wait()
        print(f"sexton: the supervisor ended with {code} before all was up; see {path}", file=sys.stderr)
        sys.exit(128 - code if code < 0 else code or 1)
    said = json.loads(text)
    if "error" in said:
        process.wait()
        print(f"sexton: {said['error']}", file=sys.stderr)
        sys.exit(said["code"])
    process.returncode = 0  # it goes on, and nobody waits for it
    missing = f", {len(said['failed'])} not" if said["failed"] else ""
    print(f"{config.name}: {said['up']} up{missing}; supervisor {said['pid']}, log {path}")
    for line in said["failed"]:
        print(line, file=sys.stderr)
    if said["failed"]:
        print("`sexton logs` shows what they wrote, `sexton status` how they are now", file=sys.stderr)
    sys.exit(1 if said["failed"] else 0)
