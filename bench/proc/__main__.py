"""Seeing and explaining 10,000 processes of which half are zombies, beside psutil and `ps -e`, in one run.

The crowd lives in a PID namespace of its own and so does everything that is measured; it dies with that
namespace. Each figure is the best of some rounds, taken in turn, so that a busy machine is busy for all.
psutil keeps what it has read from one call to the next; it is measured without that, as a command would
find it, and with it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
LIVING, ZOMBIES = 5000, 5000
ROUNDS = 5
SEXTON = "import sys; from sexton.cli import main; sys.argv[0] = 'sexton'; main()"


def main() -> None:
    """Build the crowd's program, move into a namespace, and measure."""
    with tempfile.TemporaryDirectory() as directory:
        crowd = Path(directory) / "crowd"
        compiler = shutil.which("cc") or "gcc"
        subprocess.run([compiler, "-O1", "-static", "-o", crowd, HERE / "crowd.c"], check=True)
        small = best(lambda: shell("ps"))
        namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = [*namespace, sys.executable, "-m", "bench.proc", "inside", str(crowd), str(small)]
        sys.exit(subprocess.run(inside, check=False).returncode)


def inside(crowd: str, small: float) -> None:
    """Measure, as PID 1 of the namespace."""
    with subprocess.Popen([crowd, str(LIVING), str(ZOMBIES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"ready\n"
        figures = measure()
        figures["ps on the small machine outside, shell to shell, ms"] = small * 1000
        popen.kill()
    show(figures)


def measure() -> dict[str, float]:
    """Seconds and bytes by name."""
    import psutil

    from sexton import proc

    fields = ["pid", "ppid", "status", "name", "create_time"]

    def fresh() -> list[object]:
        psutil.process_iter.cache_clear()
        return [process.info for process in psutil.process_iter(fields)]

    subjects: dict[str, Callable[[], object]] = {
        "sexton.proc.snapshot": proc.snapshot,
        "psutil.process_iter, fresh": fresh,
        "psutil.process_iter, cached": lambda: [process.info for process in psutil.process_iter(fields)],
        "ps -e": lambda: subprocess.run(["ps", "-e"], stdout=subprocess.DEVNULL, check=True),
    }
    count = len(proc.snapshot())
    assert count >= LIVING + ZOMBIES, count
    times = dict.fromkeys(subjects, float("inf"))
    for _ in range(ROUNDS):
        for name, subject in subjects.items():
            times[name] = min(times[name], burnt(subject))
    figures = {f"{name}, µs of CPU a process": seconds / count * 1e6 for name, seconds in times.items()}
    ours = times["sexton.proc.snapshot"]
    figures["snapshot / psutil, fresh (at most 0.25)"] = ours / times["psutil.process_iter, fresh"]
    figures["snapshot / psutil, cached"] = ours / times["psutil.process_iter, cached"]
    figures["snapshot / ps -e (at most 0.3)"] = ours / times["ps -e"]
    figures["sexton doctor, s (at most 1.5)"] = best(lambda: shell("doctor", "--json"), 3)
    figures["sexton doctor, peak MB (at most 100)"] = peak("doctor", "--json") / 1e6
    figures["sexton ps of all, s"] = best(lambda: shell("ps"), 3)
    return figures


def shell(*words: str) -> None:
    """One command, from fork to exit."""
    subprocess.run([sys.executable, "-c", SEXTON, *words], stdout=subprocess.DEVNULL, check=False)


def peak(*words: str) -> int:
    """Bytes of memory at the most, of one command."""
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", SEXTON, *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, _, usage = os.wait4(pid, 0)
    return int(usage.ru_maxrss) * 1024


def burnt(subject: Callable[[], object]) -> float:
    """Seconds of CPU of one call, its children's too."""
    before = spent()
    subject()
    return spent() - before


def spent() -> float:
    """Seconds of CPU until now, of this process and of the children that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(subject: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    subject()
    return time.perf_counter() - begun


def best(subject: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Seconds of the quickest of some calls."""
    return min(timed(subject) for _ in range(rounds))


def show(figures: dict[str, float]) -> None:
    """A table for people; with JSON= in the environment, a file for programs."""
    for name, value in figures.items():
        print(f"{name:55} {value:10.3f}")
    if path := os.environ.get("JSON"):
        Path(path).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NPROC, (resource.getrlimit(resource.RLIMIT_NPROC)[1],) * 2)
    if sys.argv[1:2] == ["inside"]:
        inside(sys.argv[2], float(sys.argv[3]))
    else:
        main()
