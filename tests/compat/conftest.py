"""Fixtures of the comparison: the peers' programs and ours under the same names."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compat.twins import NAMES, PEERS, Side, Twins, make_side


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer's shell has set is not part of any case."""
    for name in (
        "DUMB_INIT_DEBUG",
        "DUMB_INIT_SETSID",
        "CATATONIT_DEBUG",
        "CATATONIT_LOG",
        "LISTEN_PID",
        "POSIXLY_CORRECT",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def peer_side(public: Path, monster: Path) -> Side:
    """Debian's programs; missing ones fail the test, with the remedy."""
    found = {name: shutil.which(program) for name, program in PEERS.items()}
    missing = {PEERS[name] for name, path in found.items() if path is None}
    assert not missing, f"no {', '.join(sorted(missing))}: apt-get install tini dumb-init catatonit"
    return make_side(public / "peers", {name: Path(str(path)) for name, path in found.items()}, monster)


@pytest.fixture(scope="session")
def twins(sexton_init: Path, peer_side: Side, public: Path) -> Twins:
    """Both sides."""
    folder = Path(tempfile.mkdtemp(dir=public)) / "ours"
    return Twins(peer_side, make_side(folder, dict.fromkeys(NAMES, sexton_init), peer_side.monster))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what the test has started."""
    with ExitStack() as found:
        yield found
