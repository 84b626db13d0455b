"""Fixtures of the container tests: one podman for all of them, an image with little more than busybox, families."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.family import Starter
from tests.containers.podman import Podman, WantsRootError
from tests.support import monsters

APPLETS = ("sh", "cat", "ps", "sleep", "umount", "id", "true")


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """podman and runc on storage of their own. Without root, a skip; where nothing may be skipped, a failure."""
    try:
        own = Podman()
    except WantsRootError as error:
        pytest.skip(str(error))
    with own:
        yield own


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with busybox and the monsters, and no sexton-init."""
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "sbin", "dev", "proc", "sys", "tmp", "run", "etc"):
        (root / name).mkdir()
    root.chmod(0o755)
    shutil.copy("/bin/busybox", root / "bin")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    monsters.build(root / "bin" / "monster")
    return root


@pytest.fixture(scope="session")
def image(podman: Podman, rootfs: Path) -> str:
    """The image of `rootfs`."""
    return podman.image("little", rootfs)


@pytest.fixture
def start(podman: Podman, sexton_init: Path, image: str, tmp_path: Path) -> Iterator[Starter]:
    """Starts families in containers; the end of the test removes them all."""
    with contextlib.ExitStack() as stack:
        yield Starter(podman, sexton_init, image, tmp_path, stack)
