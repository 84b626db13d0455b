"""Finds sexton-init, and names each place that it looked in.

Imports nothing that Python's own start has not: `sexton init` pays for every line of it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import NoReturn

NAME = "sexton-init"
MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine, see elf(5)


def find() -> Path:
    """Where sexton-init is; BinaryNotFound lists each place that was looked in, and what was wrong there."""
    from pathlib import Path

    return Path(_find())


def become(arguments: list[str]) -> NoReturn:
    """Replace this process by sexton-init with `arguments`, and undo what Python changed at its start.

    Raises BinaryNotFound.
    """
    path = _find()
    import _signal  # type: ignore[import-not-found]  # the builtin, which has no stubs: `signal` costs a millisecond

    # Python ignores both; COMMAND is to have what this process was started with, which is not told to us.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    os.execve(path, [NAME, *arguments], _environment_at_start())


def _find() -> str:
    refused: list[str] = []
    for path in _places():
        fault = _fault(path)
        if fault is None:
            return path
        if f"{path}: {fault}" not in refused:
            refused.append(f"{path}: {fault}")
    from sexton.errors import BinaryNotFound

    places = "".join(f"\n  {line}" for line in refused)
    raise BinaryNotFound(
        f"no usable {NAME}; looked in{places}\n"
        f"Reinstall with `pip install --force-reinstall sexton`, or name one in SEXTON_INIT."
    )


def _places() -> Iterator[str]:
    named = os.environ.get("SEXTON_INIT")
    if named:
        yield named  # and nowhere else: who names one does not want another
        return
    yield os.path.join(os.path.dirname(sys.executable), NAME)
    import sysconfig

    yield os.path.join(sysconfig.get_path("scripts"), NAME)
    yield os.path.join(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")), NAME)
    package = os.path.dirname(os.path.abspath(__file__))
    yield os.path.join(os.path.dirname(package), "bin", NAME)  # pip install --target
    yield os.path.join(os.path.dirname(os.path.dirname(package)), "build", NAME)  # a checkout
    for directory in os.get_exec_path():
        yield os.path.join(directory, NAME)


def _fault(path: str) -> str | None:
    """Why the file at `path` cannot be run here as sexton-init; None where it can."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError as error:
        return error.strerror or str(error)
    if head[:4] != b"\x7fELF":
        return "not an ELF program"
    machine = int.from_bytes(head[18:20], "little")
    here = os.uname().machine
    if MACHINES.get(machine) != here:
        return f"built for {MACHINES.get(machine, f'ELF machine {machine}')}, this machine is {here}"
    if not os.access(path, os.X_OK):
        return "not executable"
    return None


def _environment_at_start() -> dict[bytes, bytes]:
    """The environment without what Python may have added to it: LC_CTYPE, where the locale was C (PEP 538)."""
    environment = dict(os.environb)
    try:
        with open("/proc/self/environ", "rb") as file:
            at_start = file.read().split(b"\0")
    except OSError:  # no /proc: better one variable more than none at all
        return environment
    if not any(entry.startswith(b"LC_CTYPE=") for entry in at_start):
        environment.pop(b"LC_CTYPE", None)
    return environment
