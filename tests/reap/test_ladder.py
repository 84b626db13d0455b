"""The rungs of sexton reap, each on a culprit that it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sexton import proc
from sexton.doctor.cure_evidence import judge
from sexton.doctor.look import collect
from tests.reap.culprit import Culprit
from tests.support.lines import DEADLINE
from tests.support.processes import await_end

Start = Callable[..., Culprit]

DEAF = [sys.executable, "-c", "print('up', flush=True); import sys; sys.stdin.read()"]

# Has a handler for SIGCHLD, and lost the one that came before it was there.
CARING = """
import os, signal, sys
def bury(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, bury)
print("up", flush=True)
sys.stdin.read()
"""

# A subreaper without a handler; each line makes an orphan in a session that was never its own.
SUBREAPER = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
print("up", flush=True)
for line in sys.stdin:
    subprocess.run(["setsid", "sh", "-c", "true & exec true"])
    print("done", flush=True)
"""


def sexton(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sexton", "reap", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def deeds(done: subprocess.CompletedProcess[str]) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def orphan(culprit: Culprit) -> proc.Process:
    culprit.write("orphan\n")
    assert culprit.line() == "done"
    for pid in proc.children(culprit.pid):
        await_end(pid)
    return culprit.zombies()[-1]


def test_tell_does_nothing(culprit: Start) -> None:
    subject = culprit([sys.executable, "-c", SUBREAPER], 0)
    zombie = orphan(subject)
    done = sexton(zombie.pid)
    assert done.returncode == 1
    assert "nothing was done: --yes does it" in done.stdout
    assert f"would    {zombie.name} of {subject.process.name}: certain: its session" in done.stdout
    assert subject.zombies() == [zombie]


def test_nudge(culprit: Start) -> None:
    subject = culprit([sys.executable, "-c", CARING], 3)
    done = sexton("--parent", subject.pid, "--yes", "--json")
    assert done.returncode == 0, done
    assert {(one["rung"], one["result"]) for one in deeds(done)} == {("nudge", "reaped")}
    assert not subject.zombies()


def test_inject(culprit: Start) -> None:
    subject = culprit([sys.executable, "-c", SUBREAPER], 0)
    zombie = orphan(subject)
    done = sexton(zombie.pid, "--yes", "--json")
    assert done.returncode == 0, done
    [deed] = deeds(done)
    assert (deed["pid"], deed["rung"], deed["result"]) == (zombie.pid, "inject", "reaped")
    assert deed["parent"] == {"pid": subject.pid, "comm": subject.process.comm}
    assert 0 < deed["stopped_for"] < DEADLINE
    assert not subject.zombies()
    assert orphan(subject)  # and it goes on


def test_what_may_be_its_own_is_left_unless_forced(culprit: Start) -> None:
    subject = culprit(DEAF, 2)
    done = sexton("--parent", subject.pid, "--yes")
    assert done.returncode == 1
    assert "Popen.wait() and poll() would say 0" in done.stdout
    assert len(subject.zombies()) == 2
    done = sexton("--parent", subject.pid, "--yes", "--force")
    assert done.returncode == 0
    assert "2 zombies reaped, 0 left." in done.stdout


def test_what_it_holds_a_pidfd_on_is_tracked(culprit: Start) -> None:
    program = (
        "import os, sys\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.setsid()\n"
        "    os._exit(0)\n"
        "held = os.pidfd_open(child)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    subject = culprit([sys.executable, "-c", program], 0)
    await_end(proc.children(subject.pid)[0])
    [deed] = deeds(sexton("--parent", subject.pid, "--yes", "--json"))
    assert deed["result"] == "refused"
    assert "holds a pidfd on it" in deed["why"]


def test_node_that_has_no_child_of_its_own(culprit: Start) -> None:
    program = "console.log('up'); setInterval(() => {}, 1000)"
    subject = culprit(["node", "-e", program], 2)
    done = sexton("--parent", subject.pid, "--yes")
    assert done.returncode == 0, done
    assert ": it has none" in done.stdout


def test_node_that_waits_for_its_own(culprit: Start) -> None:
    """It catches SIGCHLD, so it is nudged first; what it leaves then is none of its children."""
    program = (
        "const { spawn } = require('child_process');"
        "spawn('sh', ['-c', 'echo up; read line'], { stdio: ['pipe', 'inherit', 'inherit'] });"
    )
    subject = culprit(["node", "-e", program], 2)
    done = sexton("--parent", subject.pid, "--yes", "--json")
    assert done.returncode == 0, done
    assert [(one["rung"], one["result"]) for one in deeds(done)] == [
        ("nudge", "left"),
        ("nudge", "left"),
        ("inject", "reaped"),
        ("inject", "reaped"),
    ]


def test_a_zombie_older_than_its_parent(culprit: Start) -> None:
    subject = culprit(DEAF, 1)
    [zombie] = subject.zombies()
    evidence = collect(choose=lambda _, __: {zombie.pid})
    facts = evidence.facts(subject.pid)
    assert facts is not None
    judgement = judge(zombie._replace(start=1), facts, evidence.at)
    assert judgement.level == "certain"
    assert "older than its parent" in judgement.why


def test_kill_parent() -> None:
    """Only what was asked for ends: in a namespace of its own, whose init adopts the zombie and reaps it."""
    program = (
        "import json, os, signal, subprocess, sys\n"
        "culprit = subprocess.Popen([sys.executable, '-c', 'import os, time\\nif os.fork() == 0: os._exit(0)\\n"
        "print(1, flush=True)\\ntime.sleep(1000)'], stdout=subprocess.PIPE)\n"
        "culprit.stdout.read(1)\n"
        "command = [sys.executable, '-m', 'sexton', 'reap', '--parent', str(culprit.pid), '--yes']\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_DFL)\n"
        "first = subprocess.run(command, capture_output=True, text=True)\n"
        "signal.signal(signal.SIGCHLD, lambda *_: None)\n"
        "second = subprocess.Popen([*command, '--kill-parent'], stdout=subprocess.PIPE, text=True)\n"
        "while (found := os.wait())[0] != second.pid:\n"
        "    pass\n"
        "code = os.waitstatus_to_exitcode(found[1])\n"
        "print(json.dumps([first.returncode, first.stdout, code, second.stdout.read()]))\n"
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    first, told, second, did = json.loads(done.stdout)
    assert first == 1
    assert "kill-parent" not in told
    assert second == 0, did
    assert "kill-parent reaped" in did


def test_never_its_own_ancestors() -> None:
    """The parent of the zombie is this test: --kill-parent leaves it alone."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        await_end(child)
        done = sexton(child, "--yes", "--kill-parent")
        assert done.returncode == 1
        assert "is an ancestor of this sexton" in done.stdout
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name one of"),
        (["--all", "--parent", "1"], "name one of"),
        (["x"], "is no pid"),
        (["--parent", "4194303"], "no process 4194303"),
        (["--container", "feedfeed"], "no container or pod is called"),
        (["--keep", "--all"], "--keep takes the pid of a parent"),
    ],
)
def test_usage(arguments: list[str], words: str) -> None:
    done = sexton(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_living_process_is_no_target() -> None:
    done = sexton(os.getpid(), "--yes")
    assert done.returncode == 2
    assert f"--parent {os.getpid()}" in done.stderr
