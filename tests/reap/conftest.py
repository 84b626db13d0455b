from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reap.culprit import Culprit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent / "culprits"


@pytest.fixture(scope="session")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of `culprits/steady.c`."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed: apt-get install gcc"
    built = tmp_path_factory.mktemp("culprits") / "steady"
    source = HERE / "steady.c"
    subprocess.run(
        [compiler, "-O1", "-no-pie", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", built, source],
        check=True,
    )
    return built


@pytest.fixture
def culprit() -> Iterator[Callable[..., Culprit]]:
    """Starts a program that inherits zombies, as a shell's `job & exec app` leaves them."""
    with ExitStack() as stack:

        def start(command: list[str | Path], zombies: int) -> Culprit:
            return stack.enter_context(Culprit([str(word) for word in command], zombies))

        yield start
