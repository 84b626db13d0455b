"""Incident 5: see README.md."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import string
from pathlib import Path

from incidents.replaying import Table, output
from tests.containers.podman import Container, Podman, eventually
from tests.support.lines import DEADLINE

TITLE = "containers used as virtual machines, and the pod's pause process"
HERE = Path(__file__).parent
SERVICE = HERE.parent / "02-node-as-pid-1"

PAGES = 25


def images(podman: Podman, init: Path) -> None:
    """The pods' image, whose programs are this machine's /usr; and sexton-init as the pause process."""
    bare, pause = podman.home / "bare", podman.home / "pause"
    for name in ("usr", "dev", "proc", "sys", "tmp", "etc"):
        (bare / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (bare / name).symlink_to(f"usr/{name}")
    podman.image("bare", bare, f"ENV PATH={os.environ['PATH']}")
    pause.mkdir()
    shutil.copy(init, pause / "pause")
    podman.image("pause", pause, 'ENTRYPOINT ["/pause"]')  # the infra_image of this podman's settings


def page(container: Container) -> None:
    """Have PAGES pages measured by the service in this container."""
    with output(container) as lines:
        port = int(lines.until(lambda line: line.startswith("listening"))[-1].split()[1])
    for _ in range(PAGES):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", "/page")
        assert connection.getresponse().read() == b"measured"
        connection.close()


def run(podman: Podman, *, shared: bool) -> dict[str, object]:
    """A pod of two services; counts what their processes leave in it."""
    manifest = podman.home / "pod.yaml"
    words = {"SHARED": str(shared).lower(), "SERVICE": SERVICE}
    manifest.write_text(string.Template((HERE / "pod.yaml").read_text()).safe_substitute(words))
    podman.do("play", "kube", manifest)
    services = [Container(podman, f"yard-{name}") for name in ("one", "two")]
    pause = Container(podman, json.loads(podman.do("pod", "inspect", "yard"))["InfraContainerID"])
    for service in services:
        page(service)
    spaces = [pause] if shared else services
    expected = 0 if shared else 2 * PAGES
    eventually(lambda: sum(len(each.zombies()) for each in spaces) == expected, f"there are {expected} zombies")
    counts: dict[str, object] = {
        "PID 1 of the services": ", ".join(sorted({each.processes()[0].comm for each in services})),
        "zombies": sum(len(each.zombies()) for each in spaces),
        "processes": len({str(each) for space in spaces for each in space.processes()}),
    }
    # A program that has no handler for SIGTERM ignores it as PID 1, so the engine kills it: here after 1 s, not 10.
    podman.do("stop", f"--time={20 if shared else 1}", *(each.id for each in services))
    counts["exit codes of the services"] = ", ".join(str(each.wait()) for each in services)
    pause.stop()
    counts["exit code of the pause process"] = pause.wait()
    podman.do("pod", "rm", "--force", "--time=0", "yard")
    return counts


def replay(init: Path) -> Table:
    """The same pod twice, but for shareProcessNamespace."""
    with Podman() as podman:
        images(podman, init)
        return {"each for itself": run(podman, shared=False), "sexton-init as pause": run(podman, shared=True)}


def check(table: Table) -> None:
    """Each service keeps its own zombies; the shared pause process has none."""
    before, after = table.values()
    assert before["PID 1 of the services"] == "node"
    assert before["zombies"] == 2 * PAGES
    assert after["PID 1 of the services"] == "pause"
    assert after["zombies"] == 0
    assert after["processes"] == 3
    assert before["exit codes of the services"] == "137, 137"
    assert after["exit codes of the services"] == "143, 143"
    assert after["exit code of the pause process"] == 0
