"""Memory and number of processes of a whole tree, limited by a cgroup v2 of its own, where that can be had.

Below the cgroup that we are in, the base, each limited tree has one of its own, a cell, with its guard in it. The
kernel lets a cgroup limit those below it only when no process is in it itself: hence we go into one below it too.
See the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.spawn import _processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sexton.supervise.config import Limits

OURS = "sexton-supervisor"
CELL = "sexton-"
PROC = Path("/proc")
REMEDY = "start it in a cgroup of its own: systemd-run --scope -p Delegate=yes, or a container whose cgroup is writable"


@dataclass(frozen=True, slots=True)
class Wish:
    """One limit: its key in the file, its controller, the file of the cgroup, and what to write there."""

    key: str
    controller: str
    file: str
    value: int


def _wishes(limits: Limits) -> list[Wish]:
    found = []
    if limits.memory is not None:
        found.append(Wish("limits.memory", "memory", "memory.max", limits.memory))
    if limits.processes is not None:  # the guard is one more
        found.append(Wish("limits.processes", "pids", "pids.max", limits.processes + 1))
    return found


def unavailable(limits: Limits, proc: Path = PROC) -> tuple[str, ...]:
    """What of the limits cannot be had here, each with why; () where all can. Changes nothing."""
    wishes = _wishes(limits)
    if not wishes:
        return ()
    base = _base(proc)
    if base is None:
        return tuple(f"{wish.key}: no cgroup v2 is mounted here that we are in" for wish in wishes)
    return tuple(f"{wish.key}: {why}" for wish in wishes if (why := _obstacle(base, wish.controller)))


def make(name: str, limits: Limits, proc: Path = PROC) -> Path | None:
    """A cell with as many of the limits as can be had; None: with none at all.

    `name`: ends with @ and the mark of the tree, by which it is found when its guard was killed.
    Raises OSError where the kernel will not.
    """
    base = _base(proc)
    wishes = [wish for wish in _wishes(limits) if base and not _obstacle(base, wish.controller)]
    if not wishes or base is None:
        return None
    missing = [wish.controller for wish in wishes if wish.controller not in _words(base / "cgroup.subtree_control")]
    if missing:
        _make_room(base)
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in missing))
    cell = base / f"{CELL}{name}"
    cell.mkdir(exist_ok=True)
    try:
        for wish in wishes:
            (cell / wish.file).write_text(str(wish.value))
    except OSError:
        remove(cell)
        raise
    return cell


def entering(cell: Path, then: Callable[[], None] | None = None) -> Callable[[], None]:
    """A preexec_fn that goes into the cell, and then does what another one does."""
    path = os.fsencode(cell / "cgroup.procs")

    def enter() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)
        if then is not None:
            then()

    return enter


def of(guard: int, proc: Path = PROC) -> Path | None:
    """The cell that a guard is in; None where it is in none."""
    found = _directory(_path(proc / str(guard)), proc)
    return found if found and found.name.startswith(CELL) and found.name != OURS else None


def told(cell: Path) -> str:
    """What the limits have done so far, for people; "" where nothing."""
    found = []
    if killed := _count(cell / "memory.events", "oom_kill"):
        number = "1 process" if killed == 1 else f"{killed} processes"
        found.append(f"memory.max of {_read(cell / 'memory.max')} bytes was reached: the kernel killed {number}")
    if refused := _count(cell / "pids.events", "max"):
        found.append(f"pids.max of {_read(cell / 'pids.max')} was reached: {refused} forks failed")
    return "; ".join(found)


def remove(cell: Path) -> None:
    """Take an empty cell away; one that is not stays, and so does one that is gone already."""
    with contextlib.suppress(OSError):
        cell.rmdir()


# --- where we are ---


def _base(proc: Path) -> Path | None:
    """The cgroup below which the cells are; None: no cgroup v2."""
    own = _own(proc)
    return own.parent if own and own.name == OURS else own


def _own(proc: Path) -> Path | None:
    """The directory of the cgroup that we are in."""
    return _directory(_path(proc / "self"), proc)


def _path(process: Path) -> str:
    """The cgroup that a process is in, as the hierarchy names it; "": none."""
    return next((line[3:] for line in _read(process / "cgroup").splitlines() if line.startswith("0::/")), "")


def _directory(path: str, proc: Path) -> Path | None:
    for root, point in _mounts(proc) if path else ():
        if root in {"/", path} or path.startswith(f"{root}/"):
            found = point / path.removeprefix(root if root != "/" else "").lstrip("/")
            if (found / "cgroup.procs").exists():
                return found
    return None


def _mounts(proc: Path) -> Iterator[tuple[str, Path]]:
    """Every mount of cgroup v2: which of its directories, and where. Blanks are octal, see proc_pid_mountinfo(5)."""
    for line in _read(proc / "self/mountinfo").splitlines():
        head, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            root, point = (
                re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), word) for word in head.split(" ")[3:5]
            )
            yield root, Path(point)


def _obstacle(base: Path, controller: str) -> str:
    """Why that controller cannot limit what is below the base; "": it can."""
    if controller not in _words(base / "cgroup.controllers"):
        return f"the controller {controller} is not in {base / 'cgroup.controllers'}"
    if not os.access(base, os.W_OK) or not os.access(base / "cgroup.procs", os.W_OK):
        return f"{base} is not writable for us; {REMEDY}"
    if controller in _words(base / "cgroup.subtree_control") or not (base / "cgroup.type").exists():
        return ""  # the root of all may have processes
    if not os.access(base / "cgroup.subtree_control", os.W_OK):
        return f"{base / 'cgroup.subtree_control'} is not writable for us; {REMEDY}"
    if strangers := set(_pids(base)) - _movable():
        process = _processes.look(min(strangers))
        name = f" ({process.name})" if process else ""
        return f"process {min(strangers)}{name} and {len(strangers) - 1} others are in {base} too; {REMEDY}"
    return ""


def _movable() -> set[int]:
    """Whom we may take with us: ourselves, what we started, and the sexton-init that we are behind."""
    me = os.getpid()
    found = {me, *(process.pid for process in _processes.descendants(me))}
    parent = _processes.look(os.getppid())
    while parent and parent.name == "sexton-init":
        found.add(parent.pid)
        parent = _processes.look(parent.ppid)
    return found


def _make_room(base: Path) -> None:
    """Leave the base, with all who are in it: they are ours."""
    if not (base / "cgroup.type").exists():
        return
    (base / OURS).mkdir(exist_ok=True)
    for _ in range(3):  # somebody may fork meanwhile
        for pid in set(_pids(base)) & _movable():
            with contextlib.suppress(ProcessLookupError):
                (base / OURS / "cgroup.procs").write_text(str(pid))


def _pids(cgroup: Path) -> list[int]:
    return [int(word) for word in _words(cgroup / "cgroup.procs")]


def _words(path: Path) -> list[str]:
    return _read(path).split()


def _count(path: Path, key: str) -> int:
    words = _words(path)
    return int(words[words.index(key) + 1]) if key in words else 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
