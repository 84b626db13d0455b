"""The programs that are measured, started as PID 1 of a namespace of their own or as plain children."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SEXTON = "sexton"
PEERS = {"tini": ["-s", "--"], "dumb-init": ["--"], "catatonit": ["--"]}
PLACES = ("pid1", "beside")


class CannotMeasure(Exception):
    """Something that a measure needs is missing; the message says what to do."""


@dataclass(frozen=True)
class Program:
    """One init; `words` is what stands before its COMMAND, `asks` what prints its version (none: with --version)."""

    name: str
    path: Path
    words: tuple[str, ...]
    asks: tuple[str, ...] = ()


def find(sexton: Path) -> list[Program]:
    """sexton-init first, then the peers as Debian installs them; raises CannotMeasure."""
    if not sexton.is_file():
        raise CannotMeasure(f"{sexton} is not there: run `make build`")
    programs = [Program(SEXTON, sexton.resolve(), (str(sexton.resolve()), "--"))]
    for name, options in PEERS.items():
        path = shutil.which(name)
        if not path:
            raise CannotMeasure(f"{name} is not there: apt-get install tini dumb-init catatonit")
        programs.append(Program(name, Path(path), (path, *options)))
    return programs


def version(program: Program) -> str:
    """What it says of its own version, without its name."""
    said = subprocess.run(program.asks or [program.path, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "?"


def environment() -> dict[str, str]:
    """A container's: small, the same everywhere, and nothing in it that changes how one of the programs behaves."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "HOSTNAME": "bench"}


def build_helpers(folder: Path) -> Path:
    """Compile every C file beside this one into `folder`, and return it."""
    for source in Path(__file__).parent.glob("*.c"):
        compile_helper(source, folder / source.stem)
    return folder


def compile_helper(source: Path, target: Path) -> Path:
    """Compile a C file to a static program, and return that; raises CannotMeasure."""
    compiler = shutil.which("cc")
    if not compiler:
        raise CannotMeasure("there is no C compiler: apt-get install gcc libc6-dev")
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", str(source)]
    subprocess.run([*command, "-o", str(target)], check=True)
    return target


def namespace() -> list[str]:
    """The words that make what follows them PID 1 of a namespace; it dies with them."""
    user = ["--user", "--map-root-user"] if os.geteuid() != 0 else []
    return ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc", "--"]


def children(pid: int) -> list[int]:
    """The pids of the children of `pid`: by ppid, since not every kernel lists them."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(entry.path, "stat").read_text(errors="replace")
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


class Running:
    """An init with a COMMAND that answers each line on its stdin with one; `pid`: the init's, as seen from here."""

    def __init__(self, process: subprocess.Popen[str], place: str) -> None:
        self.process = process
        self.pid = process.pid
        self.ask("0")  # when COMMAND answers, the init is what stands before it, and no longer unshare's fork
        if place == "pid1":
            (self.pid,) = children(process.pid)

    def ask(self, line: str) -> str:
        """Send a line to COMMAND and wait for its answer; raises CannotMeasure when it has ended."""
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise CannotMeasure(f"this ended before its time: {self.process.args!r}")
        return answer

    def read(self, name: str) -> str:
        """/proc/PID/`name` of the init."""
        return Path(f"/proc/{self.pid}", name).read_text()


@contextlib.contextmanager
def running(program: Program, place: str, command: list[str]) -> Iterator[Running]:
    """Start `program` with `command`, which must end when its stdin does: so it is stopped."""
    words = [*(namespace() if place == "pid1" else []), *program.words, *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment()) as process:
        yield Running(process, place)


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """Whatever is started meanwhile shares the last CPU that we may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def output(words: list[str]) -> list[list[int]]:
    """Run a helper to its end: its lines of numbers; raises CannotMeasure with what it said when it failed."""
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise CannotMeasure(f"{Path(words[0]).name} failed: {done.stderr.strip()}")
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]
