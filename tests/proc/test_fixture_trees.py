"""What this kernel cannot be made to show, shown by a /proc made of files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sexton import proc
from sexton.errors import CannotLook
from tests.proc.fixture import Tree

if TYPE_CHECKING:
    from pathlib import Path

ID = "0123456789abcdef" * 4


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "proc")


def test_names_of_any_bytes_are_read_from_files(tree: Tree) -> None:
    names = {2: b"a) R (b", 3: b"two\nlines", 4: b"\xff\x00\xfe".replace(b"\x00", b""), 5: b"(sd-pam)"}
    for pid, name in names.items():
        tree.add(pid, name)
    found = proc.snapshot(tree.root)
    assert {pid: os.fsencode(found.processes[pid].comm) for pid in names} == names
    assert not found.vanished
    assert not found.unreadable


def test_what_vanishes_while_it_is_read_is_data(tree: Tree) -> None:
    tree.add(2)
    (tree.path / "3").mkdir()  # listed, and its stat already gone
    place = tree.add(4)
    (place / "stat").write_bytes(b"")  # gone between open and read
    found = proc.snapshot(tree.root)
    assert list(found.processes) == [2]
    assert sorted(found.vanished) == [3, 4]
    assert proc.stat(99, tree.root) is proc.Missing.GONE
    assert proc.status(4, tree.root) != proc.Missing.GONE
    assert proc.cmdline(99, tree.root) is proc.Missing.GONE
    assert proc.threads(99, tree.root) is proc.Missing.GONE
    assert proc.fds(99, tree.root) is proc.Missing.GONE


def test_children_are_found_without_the_lists_of_them(tree: Tree) -> None:
    tree.add(2)
    for pid, ppid in ((3, 2), (4, 3), (5, 2)):
        tree.add(pid, ppid=ppid)
    assert sorted(proc.children(2, tree.root)) == [3, 5]
    (tree.path / "2/task/2/children").write_text("3 ")
    assert proc.children(2, tree.root) == (3,)


def test_a_stat_file_that_is_no_stat_file_is_unreadable(tree: Tree) -> None:
    place = tree.add(2)
    (place / "stat").write_bytes(b"2 (x")
    found = proc.snapshot(tree.root)
    assert found.unreadable == (2,)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("hidepid=invisible", "invisible"),
        ("hidepid=2", "invisible"),
        ("hidepid=1", "noaccess"),
        ("hidepid=off", ""),
        ("gid=3", ""),
    ],
)
def test_hidepid_is_named(tree: Tree, option: str, word: str) -> None:
    tree.add(2)
    (tree.path / "self" / "mountinfo").write_text(f"22 27 0:21 / /proc rw,relatime - proc proc rw,{option}\n")
    assert proc.snapshot(tree.root).hidepid == word


def test_the_mount_on_top_counts(tree: Tree) -> None:
    tree.add(2)
    text = "22 27 0:21 / /proc rw - proc proc rw\n23 22 0:22 / /proc rw - proc proc rw,hidepid=invisible\n"
    (tree.path / "self" / "mountinfo").write_text(text)
    assert proc.hidepid(tree.root) == "invisible"


def test_no_proc_at_all(tmp_path: Path) -> None:
    with pytest.raises(CannotLook, match="is /proc mounted"):
        proc.snapshot(str(tmp_path / "nowhere"))
    with pytest.raises(CannotLook, match="holds no process"):
        proc.snapshot(str(tmp_path))


def test_pids_of_other_namespaces(tree: Tree) -> None:
    tree.add(5, nspid="5\t1")
    tree.add(6, ppid=0, nspid="6\t3\t2")
    init, inner = proc.status(5, tree.root), proc.status(6, tree.root)
    assert isinstance(init, proc.Status)
    assert isinstance(inner, proc.Status)
    assert init.init
    assert inner.ns_pids == (6, 3, 2)
    assert not inner.init
    assert proc.snapshot(tree.root).parent(proc.snapshot(tree.root).processes[6]) is None


def test_a_zombie_of_version_1_is_attributed_through_its_parent(tree: Tree) -> None:
    tree.add(2, cgroup=f"4:memory:/docker/{ID}\n3:pids:/docker/{ID}\n")
    tree.add(3, ppid=2, state="Z", cgroup="4:memory:/\n3:pids:/\n")
    tree.add(4, ppid=1, state="S", cgroup="4:memory:/\n3:pids:/\n")
    at = proc.snapshot(tree.root)
    assert proc.container(3, tree.root) == proc.Container(ID, "docker", "")
    assert proc.container(3, tree.root, at) == proc.Container(ID, "docker", "")
    assert proc.container(4, tree.root, at) is None


def cgroup(path: Path, **files: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("_", ".", 1)).write_text(text)


def test_headroom_at_every_level_of_version_2(tree: Tree, tmp_path: Path) -> None:
    fs = tmp_path / "fs"
    top = fs / "cg"
    cgroup(top)
    cgroup(top / "pod", pids_max="100\n", pids_current="97\n", pids_events="max 4\n", cgroup_threads="1\n2\n")
    cgroup(top / "pod" / "app", pids_max="max\n", pids_current="90\n", cgroup_threads="")
    cgroup(
        top / "pod" / "app" / "x",
        pids_max="50\n",
        pids_current="7\n",
        pids_events="max 0\n",
        cgroup_threads="5\n",
    )
    (tree.path / "self" / "mountinfo").write_text("41 31 0:38 / /cg rw - cgroup2 cgroup2 rw\n")
    tree.add(2, cgroup="0::/pod/app/x\n")
    inner, outer = proc.of_cgroups(2, tree.root, fs=str(fs))
    assert (inner.kind, inner.used, inner.limit, inner.refused, inner.dead) == ("pids.max", 7, 50, 0, 6)
    assert (outer.used, outer.limit, outer.refused, outer.dead) == (97, 100, 4, 94)
    assert outer.where == f"{fs}/cg/pod"


def test_headroom_of_a_hybrid_machine_is_in_version_1(tree: Tree, tmp_path: Path) -> None:
    fs = tmp_path / "fs"
    cgroup(fs / "pids" / "a", pids_max="10\n", pids_current="9\n", tasks="1\n")
    cgroup(fs / "unified" / "a")
    (tree.path / "self" / "mountinfo").write_text(
        "39 31 0:36 / /pids rw - cgroup cgroup rw,pids\n41 31 0:38 / /unified rw - cgroup2 cgroup2 rw\n"
    )
    tree.add(2, cgroup="8:pids:/a\n0::/a\n")
    (level,) = proc.of_cgroups(2, tree.root, fs=str(fs))
    assert (level.used, level.limit, level.dead) == (9, 10, 8)


def test_a_cgroup_outside_of_what_is_mounted(tree: Tree, tmp_path: Path) -> None:
    (tree.path / "self" / "mountinfo").write_text("41 31 0:38 /mine /cg rw - cgroup2 cgroup2 rw\n")
    for pid, path in ((2, "/other"), (3, "/../other"), (4, "/minefield")):
        tree.add(pid, cgroup=f"0::{path}\n")
        assert proc.of_cgroups(pid, tree.root, fs=str(tmp_path)) == ()


def test_headroom_of_users_and_of_the_machine(tree: Tree) -> None:
    words = (
        (b"Limit", b"Soft Limit", b"Hard Limit", b"Units"),
        (b"Max processes", b"4", b"unlimited", b"processes"),
    )
    limits = b"".join(b"%-26s%-21s%-21s%-10s\n" % line for line in words)
    tree.add(2, uid=7, threads=3, files={"limits": limits})
    tree.add(3, uid=7, state="Z")
    tree.add(4, uid=0, files={"limits": limits})
    at = proc.snapshot(tree.root)
    (level,) = proc.of_users(at, {2: 7, 3: 7, 4: 0})
    assert (level.used, level.limit, level.dead) == (4, 4, 1)
    assert level.share == 1.0
    threads, pids = proc.of_machine(at)
    assert (threads.kind, threads.used, threads.limit) == ("threads-max", 50, 1000)
    assert (pids.kind, pids.used, pids.limit) == ("pid_max", 5, 32768)


def test_adopted_is_told_by_the_session(tree: Tree) -> None:
    tree.add(1, b"init")
    tree.add(2, b"shell", ppid=1)
    tree.add(3, b"child", ppid=2, sid=2)
    tree.add(4, b"own session", ppid=1)
    tree.add(5, b"daemon", ppid=1, sid=99)
    tree.add(6, b"late orphan", ppid=1, sid=2)
    at = proc.snapshot(tree.root)
    told = {p.pid: proc.adopted(p, at) for p in at}
    assert [pid for pid, why in told.items() if why] == [5, 6]
    assert "its leader has ended" in told[5]
    assert "led by shell[2]" in told[6]


def test_adopted_is_told_by_an_init_of_one_program(tree: Tree) -> None:
    tree.add(1, b"tini", sid=1)
    tree.add(7, b"app", ppid=1, start=5)
    tree.add(8, b"leftover", ppid=1, start=6)
    at = proc.snapshot(tree.root)
    assert [p.pid for p in at if proc.adopted(p, at)] == [8]
    assert "starts one program" in proc.adopted(at.processes[8], at)


def test_containers_of_all_at_once(tree: Tree) -> None:
    tree.add(1)
    tree.add(2, ppid=1, cgroup=f"0::/docker/{ID}\n")
    tree.add(3, ppid=2, cgroup=f"0::/docker/{ID}\n")
    tree.add(4, ppid=3, state="Z", cgroup="0::/\n")
    tree.add(5, ppid=1, state="Z", cgroup="0::/\n")
    assert proc.containers(proc.snapshot(tree.root)) == dict.fromkeys((2, 3, 4), proc.Container(ID, "docker", ""))


def test_containers_from_inside(tree: Tree) -> None:
    mounts = f"1 2 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
    tree.add(1, files={"mountinfo": mounts.encode()})
    tree.add(2, ppid=1)
    assert proc.containers(proc.snapshot(tree.root)) == dict.fromkeys((1, 2), proc.Container(ID, "docker", ""))


def test_families(tree: Tree) -> None:
    for pid, ppid in ((1, 0), (2, 1), (3, 2), (4, 2), (5, 4)):
        tree.add(pid, ppid=ppid, state="Z" if pid == 3 else "S")
    at = proc.snapshot(tree.root)
    assert [p.pid for p in at.descendants(1)] == [2, 3, 4, 5]
    assert [p.pid for p in at.ancestors(5)] == [4, 2, 1]
    assert {pid: [z.pid for z in zombies] for pid, zombies in at.culprits().items()} == {2: [3]}
    assert at.states() == {"S": 4, "Z": 1}


def test_a_family_that_bites_its_tail_is_walked_once(tree: Tree) -> None:
    tree.add(2, ppid=3)
    tree.add(3, ppid=2)
    at = proc.snapshot(tree.root)
    assert [p.pid for p in at.descendants(2)] == [3]
    assert [p.pid for p in at.ancestors(2)] == [3]
