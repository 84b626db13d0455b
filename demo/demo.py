"""What each PID 1 leaves behind: the same tree under bash, python and node, without sexton-init and with it.

Every figure is measured now, on real processes in private PID namespaces; nothing outlives the run.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sexton._binary import find

ORPHANS = 5
DAEMONS = 3
REAPING = 0.5  # seconds that PID 1 has to reap what has ended
PATIENCE = 2.0  # seconds between TERM and KILL; a container engine gives 10
DEADLINE = 30.0  # seconds until a step that never ends fails the demo

# Orphans lose their parent at once and end when the gate opens; daemons leave the session and save at TERM.
# `$$` in `sh -c` is the process's own pid, as its PID namespace sees it.
TREE = f"""
for i in $(seq {ORPHANS}); do
    ( sh -c 'echo orphan $$; exec cat' <"$1" & )
done
for i in $(seq {DAEMONS}); do
    setsid sh -c 'trap "echo saved; exit 0" TERM; echo daemon $$; while :; do sleep 1000 & wait; done' &
done
"""

PYTHON = "import subprocess, sys, threading; subprocess.run(['sh', *sys.argv[1:]]); threading.Event().wait()"
NODE = """
require('child_process').spawnSync('sh', process.argv.slice(1), {stdio: 'inherit'});
setInterval(() => {}, 1e9);
"""
SERVERS = {
    "bash": ["bash", "-c", 'sh "$1" "$2"; sleep infinity; exit', "start.sh"],
    "python": [sys.executable, "-c", PYTHON],
    "node": ["node", "-e", NODE],
}


@dataclass(frozen=True)
class Seen:
    """What one PID 1 did: zombies while it ran, daemons that saved, exit status, seconds that the stop took."""

    zombies: int
    saved: int
    status: int
    seconds: float


class Talk:
    """What the tree says on its standard output, line by line; it ends when the last of the tree has."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.lines: list[str] = []
        self.rest = b""

    def more(self) -> bool:
        """Wait for more; False at the end."""
        if not select.select([self.fd], [], [], DEADLINE)[0]:
            sys.exit(f"demo: nothing happened for {DEADLINE:.0f} s; heard so far: {self.lines}")
        data = os.read(self.fd, 65536)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        return data != b""

    def pids(self, word: str) -> set[str]:
        """The pids of those who said `word`, as their own PID namespace sees them."""
        return {line.split()[1] for line in self.lines if line.startswith(f"{word} ")}


def main() -> None:
    unshare = private_namespace()
    init = str(find())
    print(f"Each PID 1 starts the same tree: {ORPHANS} orphans that end at once, and {DAEMONS} daemons")
    print("that leave its session and save their work when TERM reaches them. Then PID 1")
    print(f"gets TERM, and {PATIENCE:.0f} s later KILL, as container engines do it.\n")
    print(f"{'PID 1':<25}{'zombies':>9}{'work saved':>13}{'cut off':>10}{'exit':>7}{'stopped in':>14}")
    print("─" * 78)
    with tempfile.TemporaryDirectory(prefix="sexton-demo-") as directory:
        tree = Path(directory, "tree.sh")
        tree.write_text(TREE)
        gate = Path(directory, "gate")
        os.mkfifo(gate)
        for name, server in SERVERS.items():
            if shutil.which(server[0]) is None:
                print(f"{name:<25}{'not installed here: left out':>30}")
                continue
            for front in ([], [init, "--"]):
                seen = watch([*unshare, *front, *server, str(tree), str(gate)], gate)
                show(f"sexton-init, then {name}" if front else name, seen, good=bool(front))
    print("\nNothing is left now: the pipe that every one of these processes held has closed.")


def private_namespace() -> list[str]:
    """The command that gives its command a PID namespace of its own and dies with us; exits where there is none."""
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command[4:4] = ["--user", "--map-root-user"]
    trial = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        sys.exit(f"demo: no private PID namespace to be had here; run it as root. {trial.stderr.strip()}")
    return command


def watch(command: list[str], gate: Path) -> Seen:
    """Run `command`, open the gate, count, stop it and wait for the end of the last process."""
    gatekeeper = os.open(gate, os.O_RDWR)  # open on both sides: the orphans' opening does not wait
    reader, writer = os.pipe()
    complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with all the others below
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=complaints)
    os.close(writer)
    talk = Talk(reader)
    try:
        while len(talk.pids("orphan")) < ORPHANS or len(talk.pids("daemon")) < DAEMONS:
            if not talk.more():
                complaints.seek(0)
                sys.exit(f"demo: the tree did not come up: {complaints.read()}")
        (pid1,) = children(process.pid)  # unshare has one, the first of its namespace
        with handles(process.pid, talk.pids("orphan")) as orphans, handle(pid1) as first:
            os.close(gatekeeper)
            gatekeeper = -1
            for orphan in orphans:
                wait_dead(orphan)
            select.select([first], [], [], REAPING)
            zombies = count_zombies(pid1)
            began = time.monotonic()
            signal.pidfd_send_signal(first, signal.SIGTERM)
            in_time = bool(select.select([first], [], [], PATIENCE)[0])
            if not in_time:
                signal.pidfd_send_signal(first, signal.SIGKILL)
            wait_dead(first)
            seconds = time.monotonic() - began
        status = process.wait(DEADLINE) if in_time else 128 + signal.SIGKILL  # unshare itself would say 1
        while talk.more():
            pass
    finally:
        process.kill()  # --kill-child takes PID 1 along, and the kernel its namespace
        process.wait()
        os.close(reader)
        complaints.close()
        if gatekeeper != -1:
            os.close(gatekeeper)
    return Seen(zombies, talk.lines.count("saved"), status, seconds)


@contextlib.contextmanager
def handle(pid: int) -> Iterator[int]:
    """A pidfd of the process, closed at the end."""
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def handles(root: int, inner: set[str]) -> Iterator[list[int]]:
    """Pidfds of those descendants of `root` whose pid in the innermost namespace is in `inner`."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(handle(pid)) for pid in descendants(root) if inner_pid(pid) in inner]


def wait_dead(pidfd: int) -> None:
    """Wait until the process has ended; it may still be a zombie."""
    if not select.select([pidfd], [], [], DEADLINE)[0]:
        sys.exit(f"demo: a process that should have ended lives on after {DEADLINE:.0f} s")


def children(pid: int) -> list[int]:
    """The process's children now; none where it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """Everything below the process, at any depth."""
    below = children(pid)
    return below + [further for child in below for further in descendants(child)]


def inner_pid(pid: int) -> str:
    """The pid as the process itself sees it."""
    return field(pid, "NSpid").split()[-1]


def count_zombies(pid: int) -> int:
    """How many below the process are dead and not reaped."""
    return sum(field(child, "State").startswith("Z") for child in descendants(pid))


def field(pid: int, name: str) -> str:
    """One line of /proc/PID/status; empty where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return " "
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def show(name: str, seen: Seen, *, good: bool) -> None:
    """One line of the table; colour only for a person."""
    line = (
        f"{name:<25}{seen.zombies:>9}{f'{seen.saved} of {DAEMONS}':>13}{DAEMONS - seen.saved:>10}"
        f"{seen.status:>7}{seen.seconds * 1000:>11.0f} ms"
    )
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[{32 if good else 31}m{line}\033[0m" if colour else line, flush=True)


if __name__ == "__main__":
    main()
