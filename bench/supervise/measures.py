"""What is measured. Each measure takes the supervisors in turn, so that a busy machine is busy for all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.init.figures import Bar, Figure, Row, median
from bench.init.programs import SEXTON, CannotMeasure
from bench.supervise.peers import Apps, Supervisor
from bench.supervise.running import DEADLINE, Running, running

RIVAL = "supervisord"


@dataclass
class Bench:
    """What the measures share. `helper`: the app; quick: few of everything, to see whether it works."""

    supervisors: list[Supervisor]
    helper: Path
    folder: Path
    quick: bool
    _runs: int = field(default=0)

    @property
    def many(self) -> int:
        return 10 if self.quick else 200

    def rounds(self, count: int) -> int:
        return 2 if self.quick else count

    def start(self, supervisor: Supervisor, apps: Callable[[Path], Apps]) -> contextlib.AbstractContextManager[Running]:
        """Start it in a folder of its own."""
        self._runs += 1
        return running(supervisor, self.folder / str(self._runs), apps)

    @contextlib.contextmanager
    def together(self, apps: Callable[[Path], Apps]) -> Iterator[list[Running]]:
        """All of them at once, with their apps up."""
        with contextlib.ExitStack() as stack:
            runs = []
            for supervisor in self.supervisors:
                run = stack.enter_context(self.start(supervisor, apps))
                run.up = [pid for pid, _ in run.announced.take(len(apps(run.announced.path)))]
                runs.append(run)
            yield runs

    def sleepers(self, fifo: Path) -> Apps:
        return {f"app{number:03}": (str(self.helper), str(fifo)) for number in range(self.many)}

    def one(self, fifo: Path) -> Apps:
        return {"app": (str(self.helper), str(fifo))}

    def bar(self, limit: float, to: str | None = None) -> Bar | None:
        """None where one of those that it compares is not measured."""
        return Bar(limit, to) if {SEXTON, to or SEXTON} <= {each.name for each in self.supervisors} else None

    def empty(self) -> dict[str, list[float]]:
        return {supervisor.name: [] for supervisor in self.supervisors}


def restart(bench: Bench) -> list[Row]:
    """From SIGKILL to the app that runs again."""
    found = bench.empty()
    with bench.together(bench.one) as runs:
        for _ in range(bench.rounds(11)):
            time.sleep(1.2)  # so that nobody takes the app for one that dies at once
            for run in runs:
                killed = time.monotonic_ns()
                os.kill(run.up[0], signal.SIGKILL)
                ((run.up[0], when),) = run.announced.take()
                found[run.supervisor.name].append((when - killed) / 1e6 - run.supervisor.backoff * 1e3)
    title = "restart: from SIGKILL to the app running again, beyond the configured backoff"
    return [row("restart", title, found, bench.bar(30), unit="ms", digits=0)]


def up(bench: Bench) -> list[Row]:
    """From the start of the supervisor to the last of the apps."""
    found = bench.empty()
    for _ in range(bench.rounds(5)):
        for supervisor in bench.supervisors:
            with bench.start(supervisor, bench.sleepers) as run:
                last = max(when for _, when in run.announced.take(bench.many))
                found[supervisor.name].append((last - run.began) / 1e6)
    title = f"{bench.many} apps up: from the start of the supervisor to the last of {bench.many} sleeping apps"
    return [row("up", title, found, bench.bar(1, RIVAL), unit="ms", digits=0)]


def crowd(bench: Bench) -> list[Row]:
    """With the apps asleep: processor time, memory, and how long a status takes."""
    idle, resident, everything, status = bench.empty(), bench.empty(), bench.empty(), bench.empty()
    with bench.together(bench.sleepers) as runs:
        for run in runs:
            run.status()  # whatever is made at the first time
        settle(runs)
        for run, share in zip(runs, processor(runs, 1 if bench.quick else 20), strict=True):
            idle[run.supervisor.name].append(share)
        for run in runs:
            resident[run.supervisor.name].append(memory(run.pid, "status", "VmRSS") / 1e6)
            total = sum(memory(pid, "smaps_rollup", "Pss") for pid in run.helpers())
            everything[run.supervisor.name].append(total / 1e6)
        for _ in range(bench.rounds(9)):
            for run in runs:
                began = time.perf_counter()
                run.status()
                status[run.supervisor.name].append((time.perf_counter() - began) * 1e3)
    idle_title = "idle: processor time of the supervisor and its helpers, of one core"
    rss_title = "resident: of the supervisor itself"
    all_title = "with helpers: proportional memory of the supervisor and its helpers"
    status_title = f"status: the status command for {bench.many} apps"
    return [
        row("idle", idle_title, idle, bench.bar(0.2), unit="%", digits=3),
        row("resident", rss_title, resident, bench.bar(60), unit="MB", digits=1),
        row("memory", all_title, everything, None, unit="MB", digits=1),
        row("status", status_title, status, bench.bar(200), unit="ms", digits=0),
    ]


def logs(bench: Bench) -> list[Row]:
    """From the first byte that an app writes to the last that is in its file."""
    size = 2_000_000 if bench.quick else 100_000_000
    found = bench.empty()
    for _ in range(bench.rounds(5)):
        for supervisor in bench.supervisors:
            with bench.start(supervisor, lambda fifo: {"app": (str(bench.helper), str(fifo), str(size))}) as run:
                ((_, began),) = run.announced.take()
                wait_for(supervisor.log(run.folder, "app"), size)
                found[supervisor.name].append((time.monotonic_ns() - began) / 1e6)
    title = (
        f"{size // 10**6} MB logged: from the first byte that an app writes, in lines of 100, to the last in its file"
    )
    return [row("logs", title, found, bench.bar(1, RIVAL), unit="ms", digits=0)]


MEASURES: dict[str, Callable[[Bench], list[Row]]] = {"restart": restart, "up": up, "crowd": crowd, "logs": logs}


def row(key: str, titles: str, samples: Mapping[str, list[float]], bar: Bar | None, *, unit: str, digits: int) -> Row:
    """One row; `titles`: its short name, a colon, and what it is."""
    short, _, title = titles.partition(": ")
    return Row(key, f"{short}, {unit}", title, unit, figures(samples), bar, digits=digits)


def figures(samples: Mapping[str, list[float]]) -> dict[str, Figure]:
    """The median of each, with its quartiles if there are several."""
    return {name: median(found) if len(found) > 1 else Figure(found[0]) for name, found in samples.items()}


def wait_for(log: Path, size: int) -> None:
    """Until a file has so many bytes. Raises CannotMeasure."""
    until, there = time.monotonic() + DEADLINE, 0
    while there < size:
        if time.monotonic() > until:
            raise CannotMeasure(f"{log} has {there} bytes of {size} after {DEADLINE:g} s")
        time.sleep(0.001)
        with contextlib.suppress(FileNotFoundError):
            there = log.stat().st_size


def settle(runs: list[Running]) -> None:
    """Until what is done after a start is done: a second in which nobody was given much of the processor."""
    for _ in range(30):
        if max(processor(runs, 1)) < 1:
            return


def processor(runs: list[Running], seconds: float) -> list[float]:
    """Per cent of a core that each used, its helpers too, over so long."""
    pids = [run.helpers() for run in runs]
    before = [sum(map(ran, each)) for each in pids]
    began = time.monotonic_ns()
    time.sleep(seconds)
    taken = time.monotonic_ns() - began
    return [(sum(map(ran, each)) - was) / taken * 100 for each, was in zip(pids, before, strict=True)]


def ran(pid: int) -> int:
    """Nanoseconds that every thread of a process has run (proc_pid_schedstat of the kernel's sched-stats.rst)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def memory(pid: int, file: str, key: str) -> int:
    """Bytes that a line of a file of /proc says, such as "VmRSS:  1234 kB"."""
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    assert found, f"/proc/{pid}/{file} has no {key}"
    return int(found[1]) * 1024
