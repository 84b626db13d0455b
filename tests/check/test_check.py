"""The fingerprint table: what sexton check finds out of each PID 1 is what was measured of it by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sexton.doctor import check_trials as trials
from sexton.doctor.check import advise
from sexton.doctor.check_space import Setting
from sexton.doctor.check_trials import Seen

DEADLINE = 110

NODE = "setInterval(() => {}, 1000)"
NODE_HANDLER = "process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1000)"
FOREGROUND = "sleep 1000; true"
TRAP_FOREGROUND = "trap 'exit 0' TERM; sleep 1000; true"
TRAP_WAIT = "trap 'exit 0' TERM; sleep 1000 & wait"


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sexton", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, **options)


def find(*arguments: object, **options: Any) -> dict[str, Any]:
    done = run("--json", *arguments, **options)
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["fit"] else 1)
    found["answers"] = {one["id"]: one["answer"] for one in found["verdicts"]}
    found["why"] = {one["id"]: one["why"] for one in found["verdicts"]}
    return dict(found)


@pytest.fixture
def npm_project(tmp_path: Path) -> Path:
    scripts = {"start": "node server.js"}
    (tmp_path / "package.json").write_text(json.dumps({"name": "served", "version": "1.0.0", "scripts": scripts}))
    (tmp_path / "server.js").write_text(NODE)
    return tmp_path


@pytest.fixture
def java_class(tmp_path: Path) -> Path:
    source = "public class Waits { public static void main(String[] a) throws Exception { Thread.sleep(1000000); } }"
    (tmp_path / "Waits.java").write_text(source)
    subprocess.run(["javac", "Waits.java"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "reaps", "term", "advice"),
    [
        ([sys.executable, "-c", "import time; time.sleep(1000)"], "no", "no", "init"),
        (["sleep", "1000"], "no", "no", "init"),
        (["tail", "-f", "/dev/null"], "no", "no", "init"),
        (["node", "-e", NODE], "no", "no", "init"),
        (["node", "-e", NODE_HANDLER], "no", "yes", "direct"),
        (["bash", "-c", FOREGROUND], "yes", "no", "init-script"),
        (["dash", "-c", FOREGROUND], "yes", "no", "init-script"),
        (["busybox", "sh", "-c", FOREGROUND], "yes", "no", "init-script"),
        (["bash", "-c", TRAP_FOREGROUND], "yes", "no", "init-script"),
        (["dash", "-c", TRAP_FOREGROUND], "yes", "no", "init-script"),
        (["busybox", "sh", "-c", TRAP_FOREGROUND], "yes", "no", "init-script"),
        (["bash", "-c", TRAP_WAIT], "yes", "yes", "init-script"),
        (["dash", "-c", TRAP_WAIT], "yes", "yes", "init-script"),
        (["busybox", "sh", "-c", TRAP_WAIT], "yes", "yes", "init-script"),
        (["tini", "--", "sleep", "1000"], "yes", "yes", "direct"),
        (["dumb-init", "sleep", "1000"], "yes", "yes", "direct"),
        (["catatonit", "--", "sleep", "1000"], "yes", "yes", "direct"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else None,
)
def test_fingerprints(command: list[str], reaps: str, term: str, advice: str) -> None:
    orphans = trials.run(trials.try_orphans, Setting(command))
    stop = trials.run(partial(trials.try_stop, grace=2.0), Setting(command))
    assert not (orphans.failed)
    assert not (stop.failed)
    assert orphans.reaped == (orphans.given if reaps == "yes" else 0), orphans
    assert stop.ended == (term == "yes"), stop
    assert advise(orphans, stop).id == advice


def test_npm_start(npm_project: Path) -> None:
    found = find("--", "npm", "start", "--silent", cwd=npm_project)
    assert found["answers"]["orphans"] == "no", found
    assert found["answers"]["term"] == "yes", found
    assert found["advice"]["id"] == "init-script"


def test_java(java_class: Path) -> None:
    found = find("--", "java", "-cp", java_class, "Waits")
    assert found["answers"]["orphans"] == "no", found
    assert found["answers"]["term"] == "yes", found
    assert "exit 143" in found["why"]["term"]


def test_sexton_init(sexton_init: Path) -> None:
    found = find("--", sexton_init, "sleep", "1000")
    unfit = {name: answer for name, answer in found["answers"].items() if answer != "yes"}
    assert not unfit, found
    assert found["fit"]


def test_what_tini_cannot_do() -> None:
    """It reaps and forwards, and a process that left its child's family is killed unheard."""
    found = find("--", "tini", "--", "sleep", "1000")
    assert found["answers"]["children"] == "yes"
    assert found["answers"]["code"] == "yes"
    assert found["answers"]["daemons"] == "no"


def test_a_shell_that_ends_without_its_children() -> None:
    found = find("--", "bash", "-c", TRAP_WAIT)
    assert found["answers"]["children"] == "no"
    assert found["answers"]["left"] == "no"
    assert found["why"]["left"] == "the kernel had to kill sleep"
    assert found["answers"]["code"] == "no"


def test_two_services_side_by_side() -> None:
    found = find("--", "sh", "-c", "sleep 1000 & sleep 1000 & wait")
    assert found["advice"]["id"] == "full-init"


def test_ctrl_c() -> None:
    program = "import time\ntry:\n    time.sleep(1000)\nexcept KeyboardInterrupt:\n    raise SystemExit(9)"
    found = find("--", sys.executable, "-c", program)
    assert found["answers"]["ctrl-c"] == "yes"
    assert found["why"]["ctrl-c"].endswith("exit 9")
    assert found["answers"]["sigint"] == "yes"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["true"], "true ended by itself (exit 0) before it could be tried"),
        (
            ["sh", "-c", "echo no such port >&2; exit 3"],
            "(exit 3) before it could be tried; the last that it said: no such",
        ),
        (["/no/such"], "cannot try it: /no/such: No such file or directory"),
    ],
)
def test_what_cannot_be_tried(command: list[str], words: str) -> None:
    done = run("--", *command)
    assert done.returncode == 2
    assert words in done.stderr


def test_unprivileged() -> None:
    """A user without privileges gets a user namespace, and the same answers."""
    source = Path(__file__).parents[2] / "src"
    code = (
        "import ctypes, os\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # PR_SET_DUMPABLE: as after an exec by that user
        "from sexton.doctor.check import check\n"
        "from sexton.doctor.check_space import Setting\n"
        "report = check(Setting(('tini', '--', 'sleep', '1000')))\n"
        "print(*(one.id + '=' + one.answer for one in report.verdicts))\n"
    )
    # Read all of it while it is still allowed to: the tree may be in a home directory.
    code = "import sexton.doctor.check, sexton.doctor.check_trials, fcntl, termios, json\n" + code
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["orphans=yes", "term=yes", "children=yes"], done.stdout


def test_image_rootfs(tmp_path: Path) -> None:
    """The command is found in the image's root directory, and has a /proc of its own there."""
    for name in ("bin", "proc", "dev"):
        (tmp_path / name).mkdir()
    shutil.copy("/usr/bin/busybox", tmp_path / "bin" / "busybox")
    program = (
        "test -e /etc/passwd && exit 9; test -e /proc/1/stat || exit 8; trap 'exit 0' TERM; busybox sleep 99 & wait"
    )
    found = find("--image-rootfs", tmp_path, "--", "/bin/busybox", "sh", "-c", program)
    assert found["answers"]["orphans"] == "yes", found
    assert found["answers"]["term"] == "yes"


def test_usage(tmp_path: Path) -> None:
    assert run("--image-rootfs", tmp_path / "none", "--", "true").returncode == 2
    assert run().returncode == 2


def test_it_leaves_nothing() -> None:
    """Whatever it started is gone with its namespaces: none of it holds this pipe open any more."""
    reading, writing = os.pipe()
    done = run("--", "sh", "-c", "setsid sleep 1000 & sleep 1000; true", pass_fds=[writing])
    os.close(writing)
    assert done.returncode == 1
    with open(reading, "rb") as pipe:
        assert pipe.read() == b""


@pytest.mark.parametrize(
    ("seen", "advice"),
    [
        ({"processes": 1, "given": 27, "reaped": 0, "ended": True}, "direct"),
        ({"processes": 1, "given": 27, "reaped": 0, "ended": False}, "init"),
        ({"processes": 2, "branches": 1, "given": 27, "reaped": 0, "ended": True, "heard": ("x",)}, "init-script"),
        ({"processes": 2, "branches": 1, "given": 27, "reaped": 27, "ended": True, "heard": ("x",)}, "direct"),
        ({"processes": 3, "branches": 2, "given": 27, "reaped": 27, "ended": True, "deaf": ("x",)}, "full-init"),
        ({"processes": 1, "comm": "sh", "given": 27, "reaped": 27, "ended": False}, "init-script"),
    ],
)
def test_the_rule(seen: dict[str, Any], advice: str) -> None:
    stop = Seen(**seen)
    assert advise(stop._replace(ended=False), stop).id == advice
