"""The monsters by name: each function gives a statement of monster.c's language, for `join`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.lines import Lines

SOURCE = Path(__file__).with_name("monster.c")


def build(target: Path) -> Path:
    """Compile monster.c to a static program at `target`: it also runs in an empty root directory."""
    compiler = shutil.which("cc") or "gcc"
    flags = ["-std=gnu11", "-O1", "-static", "-pthread", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(target)], check=True, timeout=120)
    return target


def join(*statements: str) -> list[str]:
    """Statements ("times 20 daemon stubborn", "exit 3") as the words of one monster command line."""
    words: list[str] = []
    for number, text in enumerate(statements):
        words += [","] * (number > 0) + text.split()
    return words


def orphan(action: str = "polite") -> str:
    """A grandchild whose parent ends at once: it is adopted by the next subreaper."""
    return f"fork fork {action}"


def setsid_daemon(action: str = "polite") -> str:
    """A child in a session of its own."""
    return f"fork setsid {action}"


def double_forked(action: str = "polite") -> str:
    """A daemon by the book: fork, setsid, fork."""
    return f"daemon {action}"


def group_changer(action: str = "polite") -> str:
    """A child in a process group of its own."""
    return f"fork group {action}"


def thread_child(action: str = "polite") -> str:
    """A child of a thread that is not the group's leader: listed only under task/TID/children."""
    return f"thread fork {action}"


def stubborn() -> str:
    """A child that logs every signal and ends at none but SIGKILL."""
    return "fork stubborn"


def stopped() -> str:
    """A child in state T; polite when it is continued."""
    return "fork stopped"


def comet(forks: int) -> str:
    """A child that is always another process: it forks and ends, `forks` times, ignoring stop signals."""
    return f"fork setsid comet {forks}"


def bomb(births: int) -> str:
    """A child whose every descendant forks on until `births` were born, ignoring stop signals."""
    return f"fork bomb {births}"


@dataclass(frozen=True)
class Note:
    """One line of a monster's log; pid is its own, as seen in its namespace; word: "ready", "got", "left", ..."""

    word: str
    pid: int
    label: str
    rest: tuple[str, ...]

    @property
    def signal(self) -> int:
        """The signal of a "got"."""
        return int(self.rest[0])

    @property
    def value(self) -> int | None:
        """The value queued with the signal of a "got", or None."""
        return None if self.rest[1] == "-" else int(self.rest[1])


def parse(line: str) -> Note:
    """One log line as a Note."""
    word, pid, label, *rest = line.split(" ")
    return Note(word, int(pid), label, tuple(rest))


def await_notes(log: Lines, word: str, count: int = 1) -> list[Note]:
    """Wait for `count` lines of that word; gives those alone."""
    return [
        note for note in map(parse, log.until(lambda line: line.startswith(word + " "), count)) if note.word == word
    ]


def rest_of(log: Lines) -> list[Note]:
    """Every note until the last holder of the log is gone, that is until the whole tree is dead."""
    return [parse(line) for line in log.rest()]
