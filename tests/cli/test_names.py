"""What containers are called: from the files of the engines, laid out as they lay them out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sexton import proc
from sexton.cli import _names
from sexton.cli._scope import of_container
from sexton.errors import CannotLook
from tests.proc.fixture import Tree

ONE, TWO, THREE = "1a" * 32, "1b" * 32, "2c" * 32
KNOWN = {
    10: proc.Container(ONE, "docker", ""),
    11: proc.Container(ONE, "docker", ""),
    20: proc.Container(TWO, "containerd", "0123456789abcdef0123456789abcdef"),
    30: proc.Container(THREE, "containerd", "0123456789abcdef0123456789abcdef"),
}


@pytest.fixture
def at(tmp_path: Path) -> proc.Snapshot:
    """A machine of which nothing but the containers' processes matters."""
    tree = Tree(tmp_path / "proc")
    for pid in KNOWN:
        tree.add(pid)
    return proc.snapshot(tree.root)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def docker(fs: Path) -> None:
    write(fs / "var/lib/docker/containers" / ONE / "config.v2.json", {"Name": "/web"})


def docker_elsewhere(fs: Path) -> None:
    write(fs / "etc/docker/daemon.json", {"data-root": "/data"})
    write(fs / "data/containers" / ONE / "config.v2.json", {"Name": "/web"})


def storage(fs: Path) -> None:
    write(fs / "var/lib/containers/storage/overlay-containers/containers.json", [{"id": ONE, "names": ["web"]}])


def nerdctl(fs: Path) -> None:
    write(fs / "var/lib/nerdctl/1935db59/names/default/web", ONE)


def nerdctl_bundle(fs: Path) -> None:
    path = fs / "run/containerd/io.containerd.runtime.v2.task/default" / ONE / "config.json"
    write(path, {"annotations": {"nerdctl/name": "web"}})


@pytest.mark.parametrize("engine", [docker, docker_elsewhere, storage, nerdctl, nerdctl_bundle])
def test_the_name_of_a_container(at: proc.Snapshot, tmp_path: Path, engine: object) -> None:
    assert callable(engine)
    engine(tmp_path)
    assert _names.read(at, KNOWN, str(tmp_path)) == {ONE: _names.Name("web")}
    assert of_container(at, KNOWN, "web", str(tmp_path)) == {10, 11}


def containerd(fs: Path) -> None:
    for one, name in ((TWO, "app"), (THREE, "side")):
        notes = {
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.sandbox-name": "shop-1",
            "io.kubernetes.cri.sandbox-namespace": "prod",
        }
        write(fs / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / one / "config.json", {"annotations": notes})


def crio(fs: Path) -> None:
    for one, name in ((TWO, "app"), (THREE, "side")):
        notes = {
            "io.kubernetes.container.name": name,
            "io.kubernetes.pod.name": "shop-1",
            "io.kubernetes.pod.namespace": "prod",
        }
        path = fs / "run/containers/storage/overlay-containers" / one / "userdata/config.json"
        write(path, {"annotations": notes})


def kubelet(fs: Path) -> None:
    folder = fs / "var/log/containers"
    folder.mkdir(parents=True)
    for one, name in ((TWO, "app"), (THREE, "side")):
        (folder / f"shop-1_prod_{name}-{one}.log").symlink_to("/var/log/pods/gone")


def old_names(fs: Path) -> None:
    uid = "01234567-89ab-cdef-0123-456789abcdef"
    containers = [
        {"id": one, "names": [f"k8s_{name}_shop-1_prod_{uid}_0"]} for one, name in ((TWO, "app"), (THREE, "side"))
    ]
    write(fs / "var/lib/containers/storage/overlay-containers/containers.json", containers)


@pytest.mark.parametrize("engine", [containerd, crio, kubelet, old_names])
@pytest.mark.parametrize(
    ("wanted", "pids"),
    [
        ("app", {20}),
        ("shop-1", {20, 30}),
        ("prod/shop-1", {20, 30}),
        ("shop-1/side", {30}),
        ("prod/shop-1/side", {30}),
        (THREE[:6], {30}),
        ("01234567", {20, 30}),  # the pod's uid
    ],
)
def test_names_of_kubernetes(at: proc.Snapshot, tmp_path: Path, engine: object, wanted: str, pids: set[int]) -> None:
    assert callable(engine)
    engine(tmp_path)
    assert of_container(at, KNOWN, wanted, str(tmp_path)) == pids


def test_a_name_is_stronger_than_the_beginning_of_an_id(at: proc.Snapshot, tmp_path: Path) -> None:
    """As it is for the engines themselves."""
    write(tmp_path / "var/lib/docker/containers" / ONE / "config.v2.json", {"Name": "/2c"})
    assert of_container(at, KNOWN, "2c", str(tmp_path)) == {10, 11}


def test_a_name_of_two(at: proc.Snapshot, tmp_path: Path) -> None:
    folder = tmp_path / "var/log/containers"
    folder.mkdir(parents=True)
    for one, pod in ((TWO, "shop-1"), (THREE, "shop-2")):
        (folder / f"{pod}_prod_app-{one}.log").touch()
    with pytest.raises(CannotLook, match=r"2 containers: prod/shop-1/app \(1b1b1b1b1b1b\), prod/shop-2/app"):
        of_container(at, KNOWN, "app", str(tmp_path))
    assert of_container(at, KNOWN, "shop-2/app", str(tmp_path)) == {30}


def test_who_is_there_is_said(at: proc.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no engine to ask
    docker(tmp_path)
    with pytest.raises(CannotLook, match=r"Seen: 1b1b1b1b1b1b, 2c2c2c2c2c2c, web \(1a1a1a1a1a1a\)"):
        of_container(at, KNOWN, "wbe", str(tmp_path))


def broken(fs: Path) -> Iterator[Path]:
    yield fs / "etc/docker/daemon.json"
    yield fs / "var/lib/docker/containers" / ONE / "config.v2.json"
    yield fs / "var/lib/containers/storage/overlay-containers/containers.json"
    yield fs / "run/containerd/io.containerd.runtime.v2.task/default" / ONE / "config.json"
    yield fs / "var/lib/nerdctl/1935db59/names/default/web"
    yield fs / "var/log/containers/x.log"


@pytest.mark.parametrize("content", ["", "{", "[1]", "7", '{"annotations": 3, "Name": 4}', '[{"id": 1, "names": [2]}]'])
def test_files_of_another_form_tell_nothing(at: proc.Snapshot, tmp_path: Path, content: str) -> None:
    for path in broken(tmp_path):
        write(path, content)
    found = _names.read(at, KNOWN, str(tmp_path))
    assert {str(name) for name in found.values()} <= {"4"}  # that of Docker, of whatever it is made
