"""sexton.spawn beside subprocess and asyncio, in one run: `python -m bench.spawn`.

Each figure is the median of rounds taken in turn, so that a busy machine is busy for all.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import sexton
from sexton import aio

TREES = 500
STOPPED = 1000
FORKS = (
    "import os, signal\nfor _ in range({n}):\n    if os.fork() == 0: signal.pause()\nprint(flush=True)\nsignal.pause()"
)


def seconds(function: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def in_turn(rounds: int, *functions: Callable[[], object]) -> list[float]:
    """The median of each, in seconds."""
    taken = [[seconds(function) for function in functions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def memory(pids: list[int]) -> int:
    """Private bytes of those processes: what there is more of memory because of them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                total += int(line.split()[1]) * 1024
    return total


def switches(pid: int) -> int:
    """How often every thread of a process has been given the processor."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if "ctxt_switches" in line
    )


def line(name: str, ours: str, theirs: str, wanted: str) -> None:
    print(f"{name:44}{ours:>16}{theirs:>16}   {wanted}")


LEAST = """
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv, char **envp)
{
	int status;
	pid_t pid = argc > 1 ? vfork() : -1;
	if (pid == 0) {
		execve(argv[1], argv + 1, envp);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid ? WEXITSTATUS(status) : 125;
}
"""


def runs() -> None:
    """run(["true"]); and what no guard can be below: a static program that forks, executes and waits, no more."""
    true = shutil.which("true") or "/bin/true"
    with tempfile.TemporaryDirectory() as directory:
        least = Path(directory, "least")
        compiler = shutil.which("musl-gcc") or "cc"  # a static glibc takes longer to begin than all of sexton-init
        words = [compiler, "-O2", "-static", "-x", "c", "-", "-o", str(least)]
        subprocess.run(words, input=LEAST, text=True, check=True)
        ours, theirs, floor = in_turn(
            15,
            lambda: [sexton.run(["true"]) for _ in range(20)],
            lambda: [subprocess.run(["true"], check=False) for _ in range(20)],
            lambda: [subprocess.run([str(least), true], check=False) for _ in range(20)],
        )
    line("run true", f"{ours / 20 * 1e6:.0f} us", f"{theirs / 20 * 1e6:.0f} us", f"{ours / theirs:.2f} (<= 1.25)")
    line("the least guard by subprocess.run", f"{floor / 20 * 1e6:.0f} us", "", f"{floor / theirs:.2f}")


def many() -> None:
    """500 at once: memory of owner and guards, threads, wake-ups."""
    me, threads = os.getpid(), threading.active_count()
    before = memory([me])
    popens = [subprocess.Popen(["sleep", "1000"]) for _ in range(TREES)]
    theirs = memory([me]) - before
    for popen in popens:
        popen.kill()
        popen.wait()
    before = memory([me])
    trees = [sexton.Tree(["sleep", "1000"]) for _ in range(TREES)]
    guards = [tree.guard for tree in trees]
    ours = memory([me, *guards]) - before
    line(f"{TREES} at once, owner and guards", f"{ours / 1e6:.1f} MB", f"{theirs / 1e6:.1f} MB", "<= 40 MB more")
    line("threads more", str(threading.active_count() - threads), "0", "0")
    before_idle = sum(map(switches, guards))
    signal.sigtimedwait([], 2)
    line("wake-ups of the guards in 2 s idle", str(sum(map(switches, guards)) - before_idle), "", "0")
    taken = seconds(lambda: [tree.kill() for tree in trees])
    line("to kill them one by one", f"{taken:.2f} s", "", "")


def family(start: Callable[..., subprocess.Popen[bytes] | sexton.Tree]) -> subprocess.Popen[bytes] | sexton.Tree:
    """A process with so many children."""
    started = start([sys.executable, "-S", "-c", FORKS.format(n=STOPPED - 1)], stdout=subprocess.PIPE)
    assert started.stdout
    started.stdout.readline()
    return started


def stops() -> None:
    """To stop a tree of 1,000, beside the least that can be done: kill and reap each, as their own parent."""
    ours, theirs = [], []
    for _ in range(3):
        pids = []
        for _ in range(STOPPED):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            pids.append(pid)
        began = time.perf_counter()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        theirs.append(time.perf_counter() - began)
        tree = family(sexton.Tree)
        assert isinstance(tree, sexton.Tree)
        ours.append(seconds(tree.stop))
        assert tree.receipt.empty
        assert tree.stdout
        tree.stdout.close()
    mine, bare = statistics.median(ours), statistics.median(theirs)
    line(f"stop of {STOPPED}", f"{mine * 1e3:.0f} ms", f"{bare * 1e3:.0f} ms", f"{mine / bare:.2f} (<= 2)")


def starts() -> None:
    """Starts and ends a second in asyncio, twenty at a time."""

    async def theirs() -> None:
        async def one() -> None:
            await (await asyncio.create_subprocess_exec("true")).wait()

        for _ in range(5):
            await asyncio.gather(*(one() for _ in range(20)))

    async def ours() -> None:
        for _ in range(5):
            await asyncio.gather(*(aio.run(["true"]) for _ in range(20)))

    mine, asyncios = in_turn(5, lambda: asyncio.run(ours()), lambda: asyncio.run(theirs()))
    line("aio starts a second", f"{100 / mine:.0f}", f"{100 / asyncios:.0f}", f"{asyncios / mine:.2f} (>= 0.8)")


if __name__ == "__main__":
    line("", "sexton", "without", "")
    for measure in (runs, many, stops, starts):
        measure()
