"""How many processes more there can be: every limit that fork(2) can fail on, from the innermost cgroup to
the machine.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from sexton.proc import _cgroup, _parse, _read
from sexton.proc._model import Missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sexton.proc._snapshot import Snapshot


class Level(NamedTuple):
    """One limit. `used` and `limit` count tasks (threads, and zombies too); `refused` is how often the kernel
    says it said no.

    `kind` is pids.max, RLIMIT_NPROC, threads-max or pid_max; `where` the cgroup directory, the user, or the
    file. `dead` is how many of the used are zombies, None where it is not told.
    """

    kind: str
    where: str
    used: int
    limit: int
    refused: int = 0
    dead: int | None = None

    @property
    def share(self) -> float:
        """Of 1, how much is used."""
        return self.used / self.limit if self.limit else 1.0


def of_cgroups(pid: int, root: str = _read.PROC, fs: str = "") -> tuple[Level, ...]:
    """pids.max of the cgroup of the process and of each ancestor that has one, innermost first."""
    lines, mounts = _read.cgroups(pid, root), _read.mounts("self", root)
    if isinstance(lines, Missing) or isinstance(mounts, Missing):
        return ()
    return of_chains([_cgroup.directories(lines, mounts, "pids", fs)])


def of_chains(chains: Iterable[Sequence[str]]) -> tuple[Level, ...]:
    """The limits among cgroup directories, each chain of which goes from a cgroup up through its ancestors.

    What the kernel refused is counted where the fork was tried (version 1, and version 2 before Linux
    6.10) or where the limit is: the counts of cgroups without a limit are added to the first limit above.
    """
    limits: dict[str, int] = {}
    refused: dict[str, int] = {}
    seen: set[str] = set()
    for chain in chains:
        for at, directory in enumerate(chain):
            if directory in seen:
                break  # and so is everything above
            seen.add(directory)
            limit = _limit(directory)
            if limit is not None:
                limits[directory] = limit
            owner = next((above for above in chain[at:] if above in limits or _limit(above) is not None), None)
            if owner is not None and (count := _refused(directory)):
                refused[owner] = refused.get(owner, 0) + count
    found = []
    for directory, limit in limits.items():
        current = _read.read(f"{directory}/pids.current")
        if not isinstance(current, Missing):
            dead = _cgroup.count_dead(directory)
            found.append(Level("pids.max", directory, int(current), limit, refused.get(directory, 0), dead))
    return tuple(found)


def _limit(directory: str) -> int | None:
    data = _read.read(f"{directory}/pids.max")
    return None if isinstance(data, Missing) or not data.strip().isdigit() else int(data)


def _refused(directory: str) -> int:
    data = _read.read(f"{directory}/pids.events")
    if isinstance(data, Missing):
        return 0
    try:
        return _parse.pairs(data).get("max", 0)
    except ValueError:
        return 0


def of_machine(at: Snapshot) -> tuple[Level, ...]:
    """threads-max and pid_max against the tasks there are. pid_max is of the PID namespace since 6.14."""
    found = []
    running = tasks = sum(process.threads for process in at)
    total = _read.read(f"{at.root}/loadavg")
    if not isinstance(total, Missing):
        # Not of the usual form: the count of what is seen is the floor.
        with suppress(ValueError, IndexError):
            running = max(tasks, int(total.split()[3].partition(b"/")[2]))
    for name, used in (("threads-max", running), ("pid_max", tasks)):
        data = _read.read(f"{at.root}/sys/kernel/{name}")
        if not isinstance(data, Missing):
            dead = sum(process.zombie for process in at)
            found.append(Level(name, f"{at.root}/sys/kernel/{name}", used, int(data), 0, dead))
    return tuple(found)


def of_users(at: Snapshot, uids: dict[int, int]) -> tuple[Level, ...]:
    """`RLIMIT_NPROC`: each user's tasks against the lowest soft limit among its processes. `uids` is pid →
    real uid.

    The first user is left out: the kernel does not hold it to this limit. getrlimit(2).
    """
    tasks: dict[int, int] = {}
    dead: dict[int, int] = {}
    lowest: dict[int, tuple[int, int]] = {}
    for pid, uid in uids.items():
        process = at.processes.get(pid)
        if process is None or uid == 0:
            continue
        tasks[uid] = tasks.get(uid, 0) + process.threads
        if process.zombie:
            dead[uid] = dead.get(uid, 0) + 1
            continue
        limits = _read.limits(pid, at.root)
        soft = None if isinstance(limits, Missing) else limits.get("Max processes", (None, None))[0]
        if soft is not None and (uid not in lowest or soft < lowest[uid][0]):
            lowest[uid] = (soft, pid)
    return tuple(
        Level(
            "RLIMIT_NPROC",
            f"user {uid}, as {at.processes[pid].name} has it",
            tasks[uid],
            soft,
            0,
            dead.get(uid, 0),
        )
        for uid, (soft, pid) in lowest.items()
    )
