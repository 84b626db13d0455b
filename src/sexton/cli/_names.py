"""Names of containers and pods, which the kernel does not know: from what the engines leave to be read.

Nothing of it is an engine's promise, so each file may be missing, or of another form, and then tells nothing.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from sexton import proc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# Seconds for an engine to answer, the last resort.
_PATIENCE = 10.0
_INSPECT = {"podman": "podman", "docker": "docker", "nerdctl": "containerd"}
_ID = 64

# What containerd and CRI-O write into config.json of a container: its name, its pod's, and the namespace of that.
_ANNOTATIONS = (
    ("io.kubernetes.cri.container-name", "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"),
    ("io.kubernetes.container.name", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"),
    ("nerdctl/name", "", ""),
)


class Name(NamedTuple):
    """What an engine calls a container; `pod` and `namespace` are "" outside of Kubernetes."""

    name: str
    pod: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        """NAME, or NAMESPACE/POD/NAME."""
        return f"{self.namespace}/{self.pod}/{self.name}" if self.pod else self.name

    def answers(self, wanted: str) -> bool:
        """Whether it is called so: NAME, POD, NAMESPACE/POD, POD/NAME or NAMESPACE/POD/NAME."""
        pods = {self.pod, f"{self.namespace}/{self.pod}"} if self.pod else set()
        return wanted in {self.name, *pods, *(f"{pod}/{self.name}" for pod in pods)}


def read(at: proc.Snapshot, known: Mapping[int, proc.Container], fs: str = "") -> dict[str, Name]:
    """The names of those containers by id, as far as they can be read; `fs` is put before the paths."""
    ids = {one.id for one in known.values() if one.id}
    found: dict[str, Name] = {}
    if ids:
        for source in (
            _monitors(at, known),
            _storages(fs),
            _dockers(fs, ids),
            _bundles(fs, ids),
            _logs(fs),
            _nerdctls(fs),
        ):
            for name_of, name in source:
                if name_of in ids and name.name:
                    found.setdefault(name_of, name)
    return found


def ask(wanted: str, known: Collection[proc.Container]) -> str:
    """The id, among those, that an engine gives for the name; "" where none does.

    Only an engine that may have one of them is asked: podman makes itself a storage when it is first asked anything.
    """
    if not wanted or wanted.startswith("-"):
        return ""
    for program, engine in _INSPECT.items():
        ids = {one.id for one in known if one.id and one.engine in {"", engine}}
        if not ids or not shutil.which(program):
            continue
        words = [program, "container", "inspect", "--format", "{{.Id}}", wanted]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and (found := done.stdout.strip()) in ids:
            return found
    return ""


def _monitors(at: proc.Snapshot, known: Mapping[int, proc.Container]) -> Iterator[tuple[str, Name]]:
    """Podman's and CRI-O's conmon, one a container, is told id and name on its command line, whatever the storage."""
    for process in at:
        if process.comm != "conmon" or process.state in "ZD":
            continue
        words = proc.cmdline(process.pid, at.root)
        if isinstance(words, proc.Missing) or "-c" not in words[:-1] or "-n" not in words[:-1]:
            continue
        one = words[words.index("-c") + 1]
        # Anybody may call a program conmon; the one that has the container for a child is its own.
        if any(child.pid in known and known[child.pid].id == one for child in at.children(process.pid)):
            yield one, _kubernetes(words[words.index("-n") + 1])


def _kubernetes(name: str) -> Name:
    """k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT, as Docker's and CRI-O's containers of a pod are called."""
    parts = name.split("_")
    return Name(parts[1], parts[2], parts[3]) if len(parts) == 6 and parts[0] == "k8s" else Name(name)


def _storages(fs: str) -> Iterator[tuple[str, Name]]:
    """Podman's and CRI-O's storage, where no conmon is seen."""
    for path in glob.glob(f"{fs}/var/lib/containers/storage/*-containers/containers.json"):
        containers = _json(path)
        for one in containers if isinstance(containers, list) else ():
            if isinstance(one, dict) and isinstance(one.get("names"), list) and one["names"]:
                yield str(one.get("id")), _kubernetes(str(one["names"][0]))


def _dockers(fs: str, ids: Collection[str]) -> Iterator[tuple[str, Name]]:
    settings = _json(f"{fs}/etc/docker/daemon.json")
    root = settings.get("data-root") if isinstance(settings, dict) else None
    for one in ids:
        config = _json(f"{fs}{root or '/var/lib/docker'}/containers/{one}/config.v2.json")
        if isinstance(config, dict):
            yield one, _kubernetes(str(config.get("Name", "")).removeprefix("/"))


def _bundles(fs: str, ids: Collection[str]) -> Iterator[tuple[str, Name]]:
    """What the engine gave its runtime: containerd's, k3s's and CRI-O's places."""
    for one in ids:
        places = (
            *glob.glob(f"{fs}/run/containerd/io.containerd.runtime.v2.task/*/{one}/config.json"),
            *glob.glob(f"{fs}/run/k3s/containerd/io.containerd.runtime.v2.task/*/{one}/config.json"),
            *glob.glob(f"{fs}/run/containers/storage/*-containers/{one}/userdata/config.json"),
        )
        for config in map(_json, places):
            notes = config.get("annotations") if isinstance(config, dict) else None
            if not isinstance(notes, dict):
                continue
            for name, pod, namespace in _ANNOTATIONS:
                if name in notes:
                    yield one, Name(str(notes[name]), str(notes.get(pod, "")), str(notes.get(namespace, "")))


def _logs(fs: str) -> Iterator[tuple[str, Name]]:
    """The kubelet's links: POD_NAMESPACE_CONTAINER-ID.log."""
    for path in glob.glob(f"{fs}/var/log/containers/*.log"):
        head, _, one = os.path.basename(path).removesuffix(".log").rpartition("-")
        parts = head.split("_")
        if len(parts) == 3:
            yield one, Name(parts[2], parts[0], parts[1])


def _nerdctls(fs: str) -> Iterator[tuple[str, Name]]:
    """The names that nerdctl has given away: a file NAME with the id in it."""
    for path in glob.glob(f"{fs}/var/lib/nerdctl/*/names/*/*"):
        text = proc.read(path)
        if isinstance(text, bytes) and len(text.strip()) == _ID:
            yield text.strip().decode("ascii", "replace"), Name(os.path.basename(path))


def _json(path: str) -> object:
    data = proc.read(path)
    try:
        return json.loads(data) if isinstance(data, bytes) else None
    except ValueError:
        return None
