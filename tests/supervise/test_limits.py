"""Limits: what is read and written, on directories that look like cgroups, and on the kernel's, if it has some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sexton.supervise import limits
from sexton.supervise.config import Limits
from tests.supervise.cgroups import room
from tests.support.lines import DEADLINE

BOTH = Limits(memory=1 << 26, processes=10)


class Fixture:
    """A /proc and a cgroup file system of plain files. The base is not the root."""

    def __init__(self, directory: Path, *, controllers: str = "cpu memory pids", enabled: str = "") -> None:
        self.proc = directory / "proc"
        self.mount = directory / "cgroup für alle"
        self.base = self.mount / "user.slice" / "ours"
        (self.proc / "self").mkdir(parents=True)
        self.base.mkdir(parents=True)
        self.place("/user.slice/ours")
        self.mounted("/")
        for name, text in (
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", enabled),
            ("cgroup.procs", str(os.getpid())),
            ("cgroup.type", "domain"),
        ):
            (self.base / name).write_text(text + "\n")

    def place(self, path: str) -> None:
        (self.proc / "self/cgroup").write_text(f"4:memory:/elsewhere\n0::{path}\n")

    def mounted(self, root: str) -> None:
        point = str(self.mount).replace(" ", "\\040")
        (self.proc / "self/mountinfo").write_text(
            "20 1 0:5 / /proc rw - proc proc rw\n"
            f"31 23 0:26 {root} {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        )


@pytest.fixture
def fixture(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path)


def test_nothing_is_asked_for(fixture: Fixture) -> None:
    assert limits.unavailable(Limits(), fixture.proc) == ()
    assert limits.make("x", Limits(), fixture.proc) is None
    assert sorted(path.name for path in fixture.base.iterdir()) == [
        *("cgroup.controllers", "cgroup.procs", "cgroup.subtree_control", "cgroup.type")
    ]


def test_a_cell(fixture: Fixture) -> None:
    assert limits.unavailable(BOTH, fixture.proc) == ()
    (fixture.base / limits.OURS).mkdir()
    (fixture.base / limits.OURS / "cgroup.procs").touch()
    cell = limits.make("web.0-1", BOTH, fixture.proc)
    assert cell == fixture.base / "sexton-web.0-1"
    assert (fixture.base / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (fixture.base / limits.OURS / "cgroup.procs").read_text() == str(os.getpid())
    assert (cell / "memory.max").read_text() == "67108864"
    assert (cell / "pids.max").read_text() == "11"


def test_what_is_enabled_already_moves_nobody(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, enabled="memory pids")
    fixture.place(f"/user.slice/ours/{limits.OURS}")
    (fixture.base / limits.OURS).mkdir()
    (fixture.base / limits.OURS / "cgroup.procs").touch()
    assert limits.make("a", BOTH, fixture.proc) == fixture.base / "sexton-a"
    assert (fixture.base / limits.OURS / "cgroup.procs").read_text() == ""
    assert (fixture.base / "cgroup.subtree_control").read_text() == "memory pids\n"


def test_the_root_of_all_may_have_processes(fixture: Fixture) -> None:
    (fixture.base / "cgroup.type").unlink()
    (fixture.base / "cgroup.procs").write_text("1\n2\n3\n")
    assert limits.unavailable(BOTH, fixture.proc) == ()
    limits.make("a", BOTH, fixture.proc)
    assert not (fixture.base / limits.OURS).exists()


@pytest.mark.parametrize(("root", "path"), [("/user.slice", "/user.slice/x"), ("/user.slice/x", "/user.slice/x")])
def test_a_part_of_the_hierarchy_is_mounted(fixture: Fixture, root: str, path: str) -> None:
    fixture.mounted(root)
    fixture.place(path)
    found = fixture.mount / path.removeprefix(root).lstrip("/")
    found.mkdir(exist_ok=True)
    (found / "cgroup.procs").touch()
    assert limits.unavailable(Limits(memory=1), fixture.proc) == (
        f"limits.memory: the controller memory is not in {found / 'cgroup.controllers'}",
    )


@pytest.mark.parametrize("missing", ["mount", "place", "directory"])
def test_without_cgroup_v2(fixture: Fixture, missing: str) -> None:
    if missing == "mount":
        (fixture.proc / "self/mountinfo").write_text("30 1 0:5 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    elif missing == "place":
        (fixture.proc / "self/cgroup").write_text("4:memory:/\n")
    else:
        fixture.place("/../outside")
    assert limits.unavailable(BOTH, fixture.proc) == (
        "limits.memory: no cgroup v2 is mounted here that we are in",
        "limits.processes: no cgroup v2 is mounted here that we are in",
    )
    assert limits.make("a", BOTH, fixture.proc) is None


def test_one_of_two_can_be_had(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, controllers="cpu pids", enabled="pids")
    (said,) = limits.unavailable(BOTH, fixture.proc)
    assert said == f"limits.memory: the controller memory is not in {fixture.base / 'cgroup.controllers'}"
    cell = limits.make("a", BOTH, fixture.proc)
    assert cell
    assert sorted(path.name for path in cell.iterdir()) == ["pids.max"]


def test_strangers_are_not_moved(fixture: Fixture) -> None:
    (fixture.base / "cgroup.procs").write_text(f"{os.getpid()}\n1\n{1 << 22}\n")
    name = Path("/proc/1/comm").read_text().strip()
    (said, _) = limits.unavailable(BOTH, fixture.proc)
    assert said.startswith(f"limits.memory: process 1 ({name}) and 1 others are in {fixture.base} too; start it in")
    assert limits.make("a", BOTH, fixture.proc) is None


def test_who_started_us_in_the_background_is_moved(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    (fixture.base / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n")
    assert limits.unavailable(BOTH, fixture.proc) != ()
    monkeypatch.setattr(limits, "STARTER", os.getppid())
    assert limits.unavailable(BOTH, fixture.proc) == ()


def test_what_the_limits_did_is_told(tmp_path: Path) -> None:
    assert limits.told(tmp_path) == ""
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 17\noom 1\noom_kill 0\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    assert limits.told(tmp_path) == ""
    (tmp_path / "memory.events").write_text("max 17\noom 1\noom_kill 1\noom_group_kill 0\n")
    (tmp_path / "memory.max").write_text("67108864\n")
    assert limits.told(tmp_path) == "limits.memory of 67.11 MB was reached: the kernel killed 1 process"
    (tmp_path / "memory.events").write_text("oom 2\noom_kill 4\n")
    (tmp_path / "pids.events").write_text("max 3\n")
    (tmp_path / "pids.max").write_text("11\n")
    assert limits.told(tmp_path) == (
        "limits.memory of 67.11 MB was reached: the kernel killed 4 processes; "
        "limits.processes of 10 was reached: 3 processes or threads could not be started"
    )


def test_what_limits_of_others_did_is_not_told_as_ours(tmp_path: Path) -> None:
    (tmp_path / "pids.events").write_text("max 3\n")  # so it was before Linux 6.11
    (tmp_path / "pids.max").write_text("max\n")
    assert limits.told(tmp_path) == ""
    (tmp_path / "memory.events").write_text("oom 0\noom_kill 1\n")
    assert limits.told(tmp_path) == (
        "the kernel killed 1 process: the memory of the machine, or of a cgroup above this one's, was used up"
    )


def test_what_cannot_be_removed_stays(tmp_path: Path) -> None:
    (tmp_path / "used/below").mkdir(parents=True)
    (tmp_path / "used/file").touch()
    limits.remove(tmp_path / "used")
    limits.remove(tmp_path / "none")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]


# --- the kernel's ---

SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
from sexton.spawn import Tree
from sexton.supervise import limits
from sexton.supervise.config import Limits
from tests.supervise.cgroups import STAND_IN
FIVE = Limits(processes=5)
(Path(sys.argv[1]) / "cgroup.procs").write_text("0")
if user := int(sys.argv[2]):
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if sys.argv[3:] == ["stand-in"]:
    limits._wishes = lambda _: [STAND_IN]
unavailable = limits.unavailable(FIVE)
cell = limits.make("a", FIVE)
forks = "for n in 1 2 3 4 5 6 7 8; do (sleep 1000 &) || break; done"
command = ["sh", "-c", "cat /proc/self/cgroup; read _; " + forks]
with Tree(command, preexec_fn=limits.entering(cell), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
    said = b""
    while b"0::" not in said:
        said += tree.stdout.readline()
    inside = limits._pids(cell)
    tree.stdin.close()
    tree.wait_command()
after = [limits.told(cell), (limits.remove(cell), cell.exists())[1]]
print(json.dumps([unavailable, said.decode(), Path("/proc/self/cgroup").read_text(), inside, tree.guard, *after]))
"""


@pytest.mark.parametrize("user", [0, 65534] if os.geteuid() == 0 else [0])
def test_the_kernel_does_it(user: int) -> None:
    """Or it is said why not. Another user (0: we ourselves) has the cgroup as systemd would give it to him."""
    with room() as found:
        if found is None:
            assert limits.unavailable(BOTH)
            return
        if user:
            for path in (".", "cgroup.procs", "cgroup.subtree_control"):
                os.chown(found.path / path, user, user)
        words = [sys.executable, "-c", SCRIPT, str(found.path), str(user), *([] if found.limits else ["stand-in"])]
        done = subprocess.run(words, capture_output=True, timeout=DEADLINE, check=False, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr.decode()
        unavailable, tree, ours, inside, guard, told, left = json.loads(done.stdout)
        assert unavailable == []
        assert tree.splitlines()[-1].endswith(f"/{found.path.name}/sexton-a")
        assert ours.splitlines()[-1].endswith(f"/{found.path.name}/{limits.OURS}")
        assert guard in inside
        assert (told != "") == found.limits
        assert left is False
