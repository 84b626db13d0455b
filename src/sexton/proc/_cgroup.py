"""Containers and cgroup files: from the lines of a `cgroup` file to an id, an engine and a directory."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

from sexton.proc import _parse, _read
from sexton.proc._model import Container, Membership, Missing, Mount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sexton.proc._snapshot import Snapshot

_HEX = frozenset("0123456789abcdef")

# What the engines put before the id in a cgroup's name, with systemd ("docker-ID.scope") and without
# ("/docker/ID").
_PREFIXES = {
    "docker": "docker",
    "libpod": "podman",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "containerd": "containerd",
    "crio": "cri-o",
}
_PARENTS = {
    "docker": "docker",
    "libpod_parent": "podman",
    "machine.slice": "podman",
    "default": "containerd",
    "k8s.io": "containerd",
}
# The monitor of a container has a cgroup with the container's id in its name, and is not in the container.
_MONITORS = ("libpod-conmon-", "crio-conmon-")


def from_path(path: str) -> Container | None:
    """The container that a cgroup path is in; the innermost one where containers run in containers."""
    engine = found = pod = ""
    before = ""
    for segment in path.split("/"):
        name = segment.rpartition(":")[2]  # SLICE:PREFIX:ID, when systemd's form is used without systemd
        if segment.startswith(_MONITORS):
            return None
        name = name.removesuffix(".scope").removesuffix(".service")
        pod = _pod(segment) or pod
        if _is_id(name):
            prefix = segment.split(":")[-2] if segment.count(":") >= 2 else ""
            found, engine = name, _PREFIXES.get(prefix, _PARENTS.get(before, ""))
        else:
            prefix, dash, tail = name.rpartition("-")
            if dash and _is_id(tail):
                found, engine = tail, _PREFIXES.get(prefix, "")
        before = segment
    return Container(found, engine, pod) if found else None


def _is_id(name: str) -> bool:
    return len(name) == 64 and _HEX.issuperset(name)


def _pod(segment: str) -> str:
    """kubepods-burstable-podUID.slice (with _ for -), podUID."""
    name = segment.partition(":")[0].removesuffix(".slice")
    at = name.rfind("pod")
    uid = name[at + 3 :].replace("_", "-")
    if at < 0 or (at > 0 and not name.startswith("kubepods")) or name.endswith("kubepods"):
        return ""
    # A static pod's uid is the hash of its manifest: 32 digits without the dashes of a UUID.
    return uid if len(uid.replace("-", "")) == 32 and _HEX.issuperset(uid.replace("-", "")) else ""


def from_memberships(lines: Iterable[Membership]) -> Container | None:
    """The container that any of the hierarchies names: on a hybrid machine not all do."""
    best = None
    for line in lines:
        found = from_path(line.path)
        if found and (best is None or (found.engine != "", found.pod != "") > (best.engine != "", best.pod != "")):
            best = found
    return best


def from_mounts(mounts: Iterable[Mount]) -> Container | None:
    """The container whose files are mounted at /etc/hostname and the like: what is left to see from inside of
    one.
    """
    for mount in mounts:
        if mount.point not in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"):
            continue
        parts = mount.root.split("/")
        for before, name in pairwise(parts):
            if _is_id(name) and before in (
                "containers",
                "overlay-containers",
                "vfs-containers",
                "btrfs-containers",
            ):
                return Container(name, "docker" if before == "containers" else "podman", "")
        if "pods" in parts[:-1] and "etc-hosts" in parts[-1:]:
            pod = _pod("pod" + parts[parts.index("pods") + 1])
            return Container("", "", pod) if pod else None
    return None


def container(pid: int, root: str = _read.PROC, at: Snapshot | None = None) -> Container | None:
    """The container of a process, None when it is in none or cannot be told.

    A zombie's cgroup on version 1 is `/`, so a zombie is looked up through its parent; `at` spares the
    reading of the parents.
    """
    for _ in range(64):
        lines = _read.cgroups(pid, root)
        found = None if isinstance(lines, Missing) else from_memberships(lines)
        if found:
            return found
        process = at.processes.get(pid) if at else _read.stat(pid, root)
        if process is None or isinstance(process, Missing) or not process.zombie:
            break
        pid = process.ppid
    mounts = _read.mounts(pid, root)
    return None if isinstance(mounts, Missing) else from_mounts(mounts)


def memberships(at: Snapshot) -> dict[int, tuple[Membership, ...]]:
    """The cgroups of each process but the kernel's, by pid; processes of the same cgroups share one tuple."""
    known: dict[bytes, tuple[Membership, ...]] = {}
    found: dict[int, tuple[Membership, ...]] = {}
    for process in at:
        data = b"" if process.kernel else _read.read(f"{at.root}/{process.pid}/cgroup")
        if isinstance(data, Missing) or not data:
            continue
        if data not in known:
            try:
                known[data] = _parse.cgroups(data)
            except ValueError:
                known[data] = ()
        found[process.pid] = known[data]
    return found


def containers(at: Snapshot, groups: dict[int, tuple[Membership, ...]] | None = None) -> dict[int, Container]:
    """The container of each process that is in one, by pid; a zombie that does not tell is in its parent's.

    From inside of a container, all that does not tell otherwise is in this one. `groups` are the memberships,
    where they were read already.
    """
    groups = memberships(at) if groups is None else groups
    known = {lines: from_memberships(lines) for lines in set(groups.values())}
    inside = None
    if 1 in groups and known[groups[1]] is None:
        mounts = _read.mounts(1, at.root)
        inside = None if isinstance(mounts, Missing) else from_mounts(mounts)
    found: dict[int, Container] = {}
    dead = []
    for pid, lines in groups.items():
        one = known[lines]
        if one is None and at.processes[pid].zombie:
            dead.append(pid)
        elif one := one or inside:
            found[pid] = one
    for pid in dead:
        parent = next((p for p in at.ancestors(pid) if not p.zombie), None)
        if heir := found.get(parent.pid) if parent else inside:
            found[pid] = heir
    return found


def directories(
    lines: Iterable[Membership], mounts: Iterable[Mount], controller: str, fs: str = "", probe: str = ""
) -> tuple[str, ...]:
    """The directories of the cgroup with this controller and of its ancestors, innermost first, as far up
    as is mounted.

    `fs` is put before the mount points, for a file system that is mounted elsewhere. () where the
    hierarchy is not mounted; on version 2, where controllers are not mounted one by one, where no
    directory has the file `probe` (CONTROLLER.current).
    """
    places: list[tuple[str, Mount]] = []
    for line in lines:
        for mount in mounts:
            if mount.kind == "cgroup" and controller in line.controllers and controller in mount.options:
                places.insert(0, (line.path, mount))
            elif mount.kind == "cgroup2" and line.hierarchy == 0:
                places.append((line.path, mount))
    for path, mount in places:
        relative = _below(path, mount.root)
        if relative is None:
            continue
        steps = [step for step in relative.split("/") if step]
        top = fs + mount.point
        found = tuple("/".join([top, *steps[:count]]) for count in range(len(steps), -1, -1))
        name = probe or f"{controller}.current"
        # A hybrid machine has the controller in one of the two hierarchies only.
        if mount.kind == "cgroup" or any(not isinstance(_read.read(f"{d}/{name}"), Missing) for d in found):
            return found
    return ()


def _below(path: str, root: str) -> str | None:
    """The path relative to what is mounted; None when it is outside of that. A cgroup namespace shows outer
    paths as /../x.
    """
    if ".." in path.split("/"):
        return None
    if root == "/":
        return path
    if path == root:
        return ""
    if path.startswith(root + "/"):
        return path[len(root) :]
    return None


def count_dead(directory: str) -> int | None:
    """How many zombies a cgroup and those below it hold: what the controller charges less what the threads
    files list, without a look at any process. None where it cannot be told.
    """
    current = _read.read(f"{directory}/pids.current")
    if isinstance(current, Missing):
        return None
    living = 0
    try:
        for place, _, files in os.walk(directory):
            listed = _read.read(f"{place}/{'cgroup.threads' if 'cgroup.threads' in files else 'tasks'}")
            if isinstance(listed, Missing):
                return None
            living += len(_parse.pid_list(listed))
        return max(0, int(current) - living)
    except ValueError:
        return None
