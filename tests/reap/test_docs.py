"""The commands of the how-to pages do what the pages say."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.reap.culprit import Culprit
from tests.reap.test_ladder import SUBREAPER, Start, orphan
from tests.support.lines import DEADLINE

PAGES = Path(__file__).parent.parent.parent / "docs" / "how-to"


def commands(page: str, *, parent: int = 0) -> list[list[str]]:
    """Every line of the page that is a command of sexton, as words."""
    lines = re.findall(r"^ +(?:\$ )?sexton (.*)$", (PAGES / page).read_text(), re.MULTILINE)
    return [[sys.executable, "-m", "sexton", *line.replace("PARENT", str(parent)).split()] for line in lines]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_clearing_zombies_without_a_restart(culprit: Start) -> None:
    subject: Culprit = culprit([sys.executable, "-c", SUBREAPER], 0)
    zombie = orphan(subject)
    doctor, tell, reap, keep = commands("clear-zombies-without-a-restart.md", parent=subject.pid)
    seen = run(doctor)
    assert (seen.returncode, zombie.name in seen.stdout) == (1, True), seen
    said = run(tell)
    assert (said.returncode, "nothing was done" in said.stdout) == (1, True), said
    done = run(reap)
    assert (done.returncode, "1 zombie reaped, 0 left." in done.stdout) == (0, True), done
    assert not subject.zombies()
    with subprocess.Popen(keep, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as keeper:
        assert keeper.stderr is not None
        assert f"keeping {subject.process.name}" in keeper.stderr.readline()
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(DEADLINE) == 0


def test_the_transcript_of_a_check() -> None:
    """Word for word, but for the seconds that were measured."""
    page = "find-out-whether-it-can-be-pid-1.md"
    done = run(commands(page)[0])
    assert done.returncode == 0, done
    found = re.search(r"^    \$ sexton check.*\n((?:    .*\n|\n(?=    ))+)", (PAGES / page).read_text(), re.MULTILINE)
    assert found
    shown = "".join(line.removeprefix("    ") for line in found[1].splitlines(keepends=True))
    seconds = re.compile(r"(after|within) \d+\.\d\d s")
    assert seconds.sub(r"\1 …", done.stdout) == seconds.sub(r"\1 …", shown)
