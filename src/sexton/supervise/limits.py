"""Memory and number of processes of a whole tree, limited by a cgroup v2 of its own, where that can be had.

Below the cgroup that we are in, the base, each limited tree has one of its own, a cell, with its guard in it. The
kernel lets a cgroup limit those below it only when no process is in it itself: hence we go into one below it too.
See the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.spawn import _processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from sexton.supervise.config import Limits

OURS = "sexton-supervisor"
CELL = "sexton-"
PROC = Path("/proc")
PAUSE = 1.0  # seconds after a look: the kernel would wake us a hundred times in one, of a tree that lives at its limit
STARTER = 0  # the process that started us in the background, as long as it is our parent: it waits until all is up
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
    """A new cell with as many of the limits as can be had; None: with none at all.

    `name`: ends with @ and the mark of the tree, by which it is found when its guard was killed.
    Raises OSError where the kernel will not; then there is none.
    """
    base = _base(proc)
    wishes = [wish for wish in _wishes(limits) if base and not _obstacle(base, wish.controller)]
    if not wishes or base is None:
        return None
    missing = [wish.controller for wish in wishes if wish.controller not in _words(base / "cgroup.subtree_control")]
    if missing:
        _make_room(base)
        _write(base / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in missing))
    cell = base / f"{CELL}{name}"
    cell.mkdir()
    try:
        for wish in wishes:
            _write(cell / wish.file, str(wish.value))
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


def told(cell: Path) -> str:
    """What the limits have done so far, for people; "" where nothing."""
    return "; ".join(filter(None, (tell(cell) for tell in TELLERS.values())))


def _of_memory(cell: Path) -> str:
    events = cell / "memory.events"
    killed = _count(events, "oom_kill")
    if not killed:
        return ""
    number = "1 process" if killed == 1 else f"{killed} processes"
    limit = _read(cell / "memory.max")
    # oom counts where the limit is; oom_kill counts a death wherever its cause is.
    if not limit.isdecimal() or not _count(events, "oom"):
        return f"the kernel killed {number}: the memory of the machine, or of a cgroup above this one's, was used up"
    return f"limits.memory of {int(limit) / 1e6:.4g} MB was reached: the kernel killed {number}"


def _of_processes(cell: Path) -> str:
    refused, limit = _count(cell / "pids.events", "max"), _read(cell / "pids.max")
    if not refused or not limit.isdecimal():  # before Linux 6.11 it is counted here too if a cgroup above has the limit
        return ""
    number = "1 process or thread" if refused == 1 else f"{refused} processes or threads"
    return f"limits.processes of {int(limit) - 1} was reached: {number} could not be started"


TELLERS = {"memory.events": _of_memory, "pids.events": _of_processes}


class Cell:
    """The cgroup of one tree, from its start, or its adoption, to its end.

    A file of events can be polled; asyncio cannot ask for that kind of readiness, an epoll of our own can.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tell: Callable[[str], None] = lambda _: None
        self._files: dict[str, TextIO] = {}  # of the limits that have not done anything yet
        self._epoll: select.epoll | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, tell: Callable[[str], None]) -> None:
        """Call it when a limit does something for the first time: the kernel wakes us."""
        self._tell, self._epoll = tell, select.epoll()
        for name in TELLERS:
            with contextlib.suppress(OSError):  # there is no such limit here
                self._files[name] = (self.path / name).open()
                self._epoll.register(self._files[name], select.EPOLLPRI)
        self._look()
        self._wait()

    def _wait(self) -> None:
        if self._epoll and self._files:
            asyncio.get_running_loop().add_reader(self._epoll, self._wake, self._epoll)

    def _wake(self, epoll: select.epoll) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(epoll)
        self._look()
        self._timer = loop.call_later(PAUSE, self._wait)

    def _look(self) -> None:
        for name, file in list(self._files.items()):
            with contextlib.suppress(OSError):
                file.seek(0)
                file.read()  # from now on what is new in it wakes us
            if said := TELLERS[name](self.path):
                self._files.pop(name).close()
                self._tell(said)

    def unwatch(self) -> None:
        """Leave it as it is."""
        if self._timer:
            self._timer.cancel()
        if self._epoll:
            asyncio.get_running_loop().remove_reader(self._epoll)
            self._epoll.close()
            self._epoll = None
        for file in self._files.values():
            file.close()
        self._files.clear()

    def end(self) -> str:
        """Take it away; gives what its limits have done, which has been told by then."""
        self._look()
        self.unwatch()
        said = told(self.path)
        remove(self.path)
        return said


def remove(cell: Path) -> None:
    """Take an empty cell away, with those that its tree made below it; one that is not stays."""
    for path, _, _ in os.walk(cell, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


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
    """Whom we may take with us: ourselves, what we started, who waits for us, the sexton-init that we are behind."""
    me = os.getpid()
    found = {me, *(process.pid for process in _processes.descendants(me))}
    if os.getppid() == STARTER:
        found.add(STARTER)
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


def _write(path: Path, text: str) -> None:
    """Raises OSError that names the file, which that of write(2) does not."""
    try:
        path.write_text(text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


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
