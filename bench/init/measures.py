"""The measures. Each interleaves the programs, so that what else the machine does meets them all alike."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.init.figures import BEST_PEER, Bar, Figure, Row, median
from bench.init.programs import PLACES, CannotMeasure, Program, Running, namespace, one_cpu, output, running

KIB = 1024  # what the kernel calls a kB


@dataclass(frozen=True)
class Bench:
    """What every measure needs. `quick`: few repetitions, to see that all works; its figures mean nothing."""

    programs: list[Program]
    helpers: Path
    quick: bool

    def helper(self, name: str) -> str:
        return str(self.helpers / name)

    def times(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def commas(commands: list[list[str]]) -> list[str]:
    """Commands as the helpers take them: a comma before each."""
    return [word for command in commands for word in [",", *command]]


def start(bench: Bench) -> Iterator[Row]:
    """What each adds to starting `true`: the difference to the start of `true` alone in the same round."""
    true = shutil.which("true")
    if not true:
        raise CannotMeasure("there is no `true`")
    commands = [[true], *([*program.words, true] for program in bench.programs)]
    rounds = [str(bench.times(4000, 8)), str(bench.times(100, 2))]
    samples = output([bench.helper("start"), *rounds, *commas(commands)])
    figures = {
        program.name: median([(sample[nth] - sample[0]) / 1000 for sample in samples])
        for nth, program in enumerate(bench.programs, 1)
    }
    bare = median([sample[0] / 1000 for sample in samples])
    yield Row("start", "start `true`, added us", "added to starting `true`", "us", figures, Bar(0.4, "tini"), bare=bare)


def memory(started: Running) -> dict[str, int]:
    """Bytes of resident memory: Rss, Pss and Private (what would be free if it ended), exact (proc_pid_smaps(5))."""
    kb = {}
    for line in started.read("smaps_rollup").splitlines()[1:]:
        name, value, *_ = line.split()
        kb[name.rstrip(":")] = int(value) * KIB
    return {"Rss": kb["Rss"], "Pss": kb["Pss"], "Private": kb["Private_Clean"] + kb["Private_Dirty"]}


def switches(started: Running) -> int:
    """How often it has given the CPU up or lost it: each wake-up ends with one."""
    lines = started.read("status").splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def wait_idle(everyone: list[Running]) -> None:
    """Until nobody has run for half a second, but for those who wake up by themselves (no longer than 3 s)."""
    for _ in range(6):
        before = [switches(each) for each in everyone]
        time.sleep(0.5)
        if before == [switches(each) for each in everyone]:
            return


def idle(bench: Bench) -> Iterator[Row]:
    """Memory and wake-ups while COMMAND sleeps, after a forwarded signal; as PID 1 of a namespace and as a child."""
    seconds = bench.times(10, 1)
    with contextlib.ExitStack() as stack:
        all_running = {
            (program.name, place): stack.enter_context(running(program, place, ["cat"]))
            for program in bench.programs
            for place in PLACES
        }
        for started in all_running.values():
            os.kill(started.pid, signal.SIGWINCH)  # nobody minds it, and to pass it on is part of an init's idle life
        wait_idle(list(all_running.values()))
        used = {key: memory(started) for key, started in all_running.items()}
        before = {key: switches(started) for key, started in all_running.items()}
        time.sleep(seconds)
        woken = {key: switches(started) - before[key] for key, started in all_running.items()}
    names = [program.name for program in bench.programs]
    for place in PLACES:
        where = "PID 1" if place == "pid1" else "not PID 1"
        figures = {name: Figure(used[name, place]["Rss"] / KIB) for name in names}
        yield Row(f"rss-{place}", f"idle, {where}, kB", f"resident memory while idle ({where})", "kB", figures, Bar(64))
    figures = {name: Figure(used[name, "beside"]["Private"] / KIB) for name in names}
    yield Row("private", "one more of it, kB", "of it private: what one more costs", "kB", figures)
    figures = {name: Figure(max(woken[name, place] for place in PLACES)) for name in names}
    yield Row("wakeups", f"wake-ups in {seconds} s", f"wake-ups while idle, in {seconds} s", "", figures, Bar(0))


def orphans(bench: Bench) -> Iterator[Row]:
    """CPU time of the init for each orphan it buries, as PID 1; and what its memory has grown by after them all."""
    chunks, size = bench.times(20, 2), bench.times(5000, 50)
    samples: dict[str, list[float]] = {program.name: [] for program in bench.programs}
    with one_cpu(), contextlib.ExitStack() as stack:
        all_running = {
            program.name: stack.enter_context(running(program, "pid1", [bench.helper("orphans")]))
            for program in bench.programs
        }
        for started in all_running.values():
            started.ask(str(bench.times(500, 5)))
        before = {name: memory(started)["Rss"] for name, started in all_running.items()}
        for _ in range(chunks):
            for name, started in all_running.items():
                began = cpu_ns(started)
                started.ask(str(size))
                samples[name].append((cpu_ns(started) - began) / size / 1000)
        growth = {name: Figure((memory(started)["Rss"] - before[name]) / KIB) for name, started in all_running.items()}
    count = f"{chunks * size:,}"
    figures = {name: median(taken) for name, taken in samples.items()}
    yield Row(
        "orphans",
        "CPU an orphan, us",
        f"CPU per reaped orphan, {count} of them, one CPU",
        "us",
        figures,
        Bar(1.15, BEST_PEER),
        digits=2,
    )
    yield Row("growth", "grown by them, kB", f"memory grown by after {count} orphans", "kB", growth, Bar(0))


def cpu_ns(started: Running) -> int:
    """CPU time of the init, user and system, in nanoseconds (the kernel's sched-stats.rst)."""
    return int(started.read("schedstat").split()[0])


def signals(bench: Bench) -> Iterator[Row]:
    """From kill() to the command's clock, everybody on one CPU."""
    rounds = [str(bench.times(5000, 20)), str(bench.times(200, 2))]
    inits = [list(program.words) for program in bench.programs]
    with one_cpu():
        samples = output([bench.helper("signals"), *rounds, *commas(inits)])
    microseconds = [[taken / 1000 for taken in column] for column in zip(*samples, strict=True)]
    names = [program.name for program in bench.programs]
    figures = {name: median(taken) for name, taken in zip(names, microseconds[1:], strict=True)}
    late = {
        name: Figure(sorted(taken)[len(taken) * 99 // 100]) for name, taken in zip(names, microseconds[1:], strict=True)
    }
    yield Row(
        "signal-p50",
        "signal p50, us",
        "signal latency to the command, p50, one CPU",
        "us",
        figures,
        Bar(1.2, BEST_PEER),
        bare=median(microseconds[0]),
        digits=1,
    )
    yield Row("signal-p99", "signal p99, us", "signal latency to the command, p99, one CPU", "us", late, digits=1)


@dataclass(frozen=True)
class Stopped:
    """How a tree ended: seconds until the init had, how many were alive then, how many SIGTERM had reached."""

    seconds: float
    alive: int
    told: int


def stop(bench: Bench, shape: str, place: str, size: int, words: tuple[str, ...] = ()) -> Stopped:
    """Grow a tree in a namespace of its own and stop it; see tree.c."""
    command = [*namespace(), bench.helper("tree"), shape, place, str(size), *words]
    ((nanoseconds, alive, told),) = output(command)
    return Stopped(nanoseconds / 1e9, alive, told)


def leftovers(bench: Bench) -> Iterator[Row]:
    """Daemons of COMMAND after a SIGTERM to the init, with its default grace time."""
    size = 20
    for shape, short, title in [
        ("daemon", "20 daemons, alive", "20 setsid'd daemons, alive after a stop"),
        ("stubborn", "20 stubborn, alive", "20 that ignore TERM, alive after a stop"),
    ]:
        found = {program.name: stop(bench, shape, "beside", size, program.words) for program in bench.programs}
        yield Row(shape, short, title, "", {name: Figure(each.alive) for name, each in found.items()}, Bar(0))
    found = {program.name: stop(bench, "daemon", "pid1", size, program.words) for program in bench.programs}
    untold = {name: Figure(size - each.told) for name, each in found.items()}
    yield Row("untold", "PID 1: killed untold", "20 daemons under PID 1, killed without a TERM", "", untold, Bar(0))


def tree(bench: Bench) -> Iterator[Row]:
    """A tree of 1,000, every second one in a session of its own, against a loop that knows every pid."""
    size, rounds = bench.times(1000, 40), bench.times(11, 2)
    sexton, *peers = bench.programs
    bare: list[float] = []
    ours: dict[str, list[float]] = {place: [] for place in PLACES}
    for _ in range(rounds):
        bare.append(stop(bench, "default", "bare", size).seconds * 1000)
        for place in PLACES:
            stopped = stop(bench, "default", place, size, sexton.words)
            if stopped.alive:
                raise CannotMeasure(f"sexton-init left {stopped.alive} of {size} alive: that is no stop to be timed")
            ours[place].append(stopped.seconds * 1000)
    for place in PLACES:
        where = "PID 1" if place == "pid1" else "not PID 1"
        figures = {sexton.name: median(ours[place])}
        for peer in peers:
            stopped = stop(bench, "default", place, size, peer.words)
            text = "SIGKILL" if place == "pid1" else f"{stopped.alive} left"
            figures[peer.name] = Figure(stopped.seconds * 1000, text=text)
        yield Row(
            f"tree-{place}",
            f"{size} as {where}, ms",
            f"a tree of {size:,} stopped, as {where}",
            "ms",
            figures,
            Bar(2, "bare"),
            bare=median(bare),
            digits=1,
        )


def size(bench: Bench) -> Iterator[Row]:
    """The file. tini and dumb-init want a C library besides."""
    figures = {program.name: Figure(program.path.stat().st_size / 1000) for program in bench.programs}
    yield Row("size", "binary, kB", "size of the binary", "kB", figures, Bar(64), digits=1)


MEASURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "start": start,
    "idle": idle,
    "orphans": orphans,
    "signals": signals,
    "leftovers": leftovers,
    "tree": tree,
    "size": size,
}
