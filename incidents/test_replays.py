"""Every incident: the damage is there without sexton, and is not there with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from incidents.replaying import FOLDERS, load, show
from tests.containers.podman import WantsRootError


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
@pytest.mark.release_only("a replay is about the program that is shipped")
def test_replay(folder: Path, sexton_init: Path) -> None:
    replay = load(folder)
    try:
        table = replay.replay(sexton_init)
    except WantsRootError as error:
        pytest.skip(str(error))
    print(show(table))
    replay.check(table)
