"""What these tests stand on: nothing outlives them, not even when the test run itself is killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.podman import Podman
from tests.support.lines import DEADLINE
from tests.support.processes import Handle, children

CHECKOUT = Path(__file__).parents[2]

CRASHING = """
import sys
from tests.containers.podman import Podman
podman = Podman()
container = podman.start("--rootfs", sys.argv[1] + ":O", "sleep", "1000")
print(podman.keeper, podman.home, container.id, flush=True)
sys.stdin.read()
"""


def family_of(pid: int) -> list[int]:
    """Every descendant of pid."""
    below = children(pid)
    return below + [each for child in below for each in family_of(child)]


@pytest.mark.usefixtures("podman")  # another one than the one that crashes
def test_a_crash_leaves_no_container(rootfs: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CRASHING, rootfs],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as crashing:
        assert crashing.stdout
        keeper, home, container = crashing.stdout.readline().decode().split()
        everybody = [Handle(pid) for pid in [int(keeper), *family_of(int(keeper))]]
        assert {"conmon", "sleep"} <= {Path(f"/proc/{each.pid}/comm").read_text().strip() for each in everybody}
        crashing.kill()
        for each in everybody:
            each.wait_dead(DEADLINE)
            each.close()
    # Files and the empty cgroups are all that is left, and nothing of them is busy.
    for cgroup in Path("/sys/fs/cgroup").glob(f"**/libpod-{container}"):
        cgroup.rmdir()
    shutil.rmtree(home)


def test_the_system_s_podman_hears_nothing(podman: Podman, image: str) -> None:
    """Its storage, its settings and its runtime directories are its own."""
    podman.do("run", "--rm", image, "true")
    places = podman.do("info", "--format", "{{.Store.GraphRoot}} {{.Store.RunRoot}} {{.Store.VolumePath}}").split()
    assert len(places) == 3
    assert all(Path(place).is_relative_to(podman.home) for place in places)
