"""Incident 3: see README.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from incidents.replaying import Table
from tests.support.lines import DEADLINE
from tests.support.running import namespace

TITLE = "the app manager that stopped start.sh and lost sub.sh"
HERE = Path(__file__).parent

MANAGER = """
import os, select, signal, subprocess, sys
import sexton
way, start = sys.argv[1:]
told, tell = os.pipe()
if way == "as it was":
    app = subprocess.Popen([start], stdout=tell)
    pid = app.pid
else:
    app = sexton.Tree([start], stdout=tell)
    pid = app.pid
os.close(tell)
words = b""
while words.count(b"\\n") < 2: words += os.read(told, 1000)
pids = {line.split()[0]: int(line.split()[1]) for line in words.decode().splitlines()}
print(pids["start"], pids["sub"], flush=True)
if way == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif way == "as it was":
    os.kill(pid, signal.SIGTERM)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is dead, and nobody has waited for it
else:
    app.stop()
print("done", flush=True)
sys.stdin.read()
"""


# PID 1 of the namespace: runs the manager, buries whoever comes to it, and says who is there when all is done.
INIT = """
import os, subprocess, sys
manager = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
pids = [int(word) for word in manager.stdout.readline().split()]
if not manager.stdout.readline():  # killed: its trees end now, and the last of them closes our pipe
    manager.wait()
    while True:
        left = [name for name in os.listdir("/proc") if name.isdecimal() and int(name) > 1]
        if not left: break
        os.waitpid(-1, 0)
def state(pid):
    try: return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError): return "gone"
def word(pid): return {"Z": "a zombie", "gone": "gone"}.get(state(pid), "alive")
print(word(pids[0]), word(pids[1]), sep=",")
"""


def manage(init: Path, way: str) -> dict[str, object]:
    """One manager, one app; what is left after the stop."""
    words = [sys.executable, "-c", INIT, sys.executable, "-c", MANAGER, way, str(HERE / "start.sh")]
    done = subprocess.run(
        [*namespace(), *words],
        env=os.environ | {"SEXTON_INIT": str(init)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    start, sub = done.stdout.strip().split(",")
    return {"start.sh": start, "sub.sh": sub}


def replay(init: Path) -> Table:
    """Three managers."""
    return {
        "as it was": manage(init, "as it was"),
        "with sexton": manage(init, "stopped"),
        "its manager killed": manage(init, "killed"),
    }


def check(table: Table) -> None:
    """The zombie and the orphan; and nothing."""
    assert table["as it was"] == {"start.sh": "a zombie", "sub.sh": "alive"}
    assert table["with sexton"] == table["its manager killed"] == {"start.sh": "gone", "sub.sh": "gone"}
