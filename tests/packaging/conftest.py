"""An sdist, and from it a wheel for each machine, each built once for all the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / "build" / "zig-cache"
BUILD_DEADLINE = 300.0  # seconds; from nothing, zig compiles a C library first


def run(
    *words: str | Path, cwd: Path = CHECKOUT, env: dict[str, str] | None = None, deadline: float = BUILD_DEADLINE
) -> subprocess.CompletedProcess[str]:
    """Run to the end, without what the caller's environment says of building."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SEXTON_", "ZIG_"))}
    return subprocess.run(
        words,
        cwd=cwd,
        env=inherited | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )


def must(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed; a failure is the test's, with all that it said."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sdist")
    must(run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", directory, "."))
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="session")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist's own tree, which shares zig's cache with the checkout: half a minute of compiling a C library."""
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    (tree,) = directory.iterdir()
    CACHE.mkdir(parents=True, exist_ok=True)
    (tree / "build").mkdir()
    (tree / "build" / "zig-cache").symlink_to(CACHE)
    return tree


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home directory for the builds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def wheels(unpacked: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By machine; both from one machine, with zig."""
    built = {}
    for machine in ("x86_64", "aarch64"):
        directory = tmp_path_factory.mktemp(machine)
        env = {"SEXTON_TARGET": machine, "HOME": str(home)}
        must(run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory, unpacked, env=env))
        (built[machine],) = directory.iterdir()
    return built


@pytest.fixture(scope="session")
def programs(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sexton-init out of each wheel."""
    return {machine: extract(wheel, tmp_path_factory.mktemp("program")) for machine, wheel in wheels.items()}


def extract(wheel: Path, directory: Path) -> Path:
    """The sexton-init out of a wheel, with the mode that the wheel gives it."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".data/scripts/sexton-init"))
        program = Path(archive.extract(name, directory))
        program.chmod(archive.getinfo(name).external_attr >> 16 & 0o777)
    return program


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The bin directory of a new virtual environment."""
    venv.create(tmp_path / "venv", with_pip=True)
    return tmp_path / "venv" / "bin"
