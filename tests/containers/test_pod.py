"""A pod whose containers share a PID namespace, with sexton-init as its pause process (podman play kube)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.containers.family import MONSTER, Fifo, in_images
from tests.containers.podman import Container, Podman, eventually
from tests.support.monsters import await_notes, double_forked, join

pytestmark = in_images

TREE = join("times 10 fork fork exit 0", "times 2 as daemon " + double_forked(), "as app polite")

ENTRYPOINTS = {
    "pause": ["/pause"],
    "sexton-init": ["/sexton-init", "--pause"],
    "catatonit": ["/catatonit", "-P"],
}


@pytest.fixture(params=ENTRYPOINTS.values(), ids=list(ENTRYPOINTS))
def pause_image(request: pytest.FixtureRequest, podman: Podman, sexton_init: Path, tmp_path: Path) -> str:
    """An image with nothing in it but the pause process: sexton-init under a name that says so, or told to be one."""
    entrypoint: list[str] = request.param
    name = Path(entrypoint[0]).name
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(sexton_init, root / name)
    return podman.image("pause", root, f"ENTRYPOINT {json.dumps(entrypoint)}")  # the infra_image of the settings


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Fifo]:
    """What the monsters of both containers say."""
    log = Fifo(tmp_path / "log")
    yield log
    log.close()


@pytest.fixture
def pod(podman: Podman, image: str, pause_image: str, log: Fifo, tmp_path: Path) -> Iterator[Container]:  # noqa: ARG001 (the engine's settings name it)
    """A pod of two containers full of orphans and daemons; gives the one that runs the pause process."""
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "yard"},
        "spec": {
            "shareProcessNamespace": True,
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "command": [MONSTER, "/log", *TREE],
                    "volumeMounts": [{"name": "log", "mountPath": "/log"}],
                }
                for name in ("one", "two")
            ],
            "volumes": [{"name": "log", "hostPath": {"path": str(log.path)}}],
        },
    }
    file = tmp_path / "pod.yaml"
    file.write_text(json.dumps(manifest))  # JSON is YAML
    with ExitStack() as stack:
        stack.callback(podman.call, "pod", "rm", "--force", "--time=0", "yard")
        podman.do("play", "kube", "--network=none", file)
        infra = json.loads(podman.do("pod", "inspect", "yard"))["InfraContainerID"]
        yield Container(podman, infra)


def test_the_pause_process_reaps_for_every_container(pod: Container, log: Fifo) -> None:
    await_notes(log, "ready", 6)
    everybody = pod.processes()
    assert (everybody[0].pid, everybody[0].ppid) == (1, 0)
    assert everybody[0].comm in ENTRYPOINTS
    apps = [each.pid for each in everybody if each.comm == "monster" and each.ppid == 0]
    assert len(apps) == 2
    # What the apps did not reap of their own stays theirs; whatever they orphaned is the pause process's, and gone.
    eventually(lambda: not [each for each in pod.zombies() if each.ppid not in apps], "the orphans of both are reaped")
    daemons = [each for each in pod.processes() if each.comm == "monster" and each.ppid == 1]
    assert len(daemons) == 4


def test_it_reaps_what_a_container_leaves(pod: Container, log: Fifo, podman: Podman) -> None:
    """The engine kills the rest of a container whose app has ended: the pause process buries them."""
    await_notes(log, "ready", 6)
    podman.do("stop", "--time=30", "yard-one")
    assert [note.label for note in await_notes(log, "got")] == ["app"]
    eventually(lambda: not [each for each in pod.zombies() if each.ppid == 1], "what it left is reaped")
    assert len([each for each in pod.processes() if each.comm == "monster" and each.state != "Z"]) == 3


def test_a_stop_ends_it_with_0(pod: Container, log: Fifo) -> None:
    await_notes(log, "ready", 6)
    pod.stop()
    assert pod.wait() == 0
    log.rest()
