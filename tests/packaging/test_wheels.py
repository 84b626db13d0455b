"""The wheels of both machines, built from the sdist on this one, and what pip makes of them."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sexton import __version__
from tests.packaging.conftest import CHECKOUT, must, run

pytestmark = pytest.mark.timeout(900)  # the first test waits for the builds

MACHINES = ["x86_64", "aarch64"]
each_machine = pytest.mark.parametrize("machine", MACHINES)


def readelf(program: Path) -> str:
    return must(run("readelf", "--file-header", "--program-headers", "--wide", program))


@each_machine
def test_the_tag_says_both_c_libraries_of_one_machine(wheels: dict[str, Path], machine: str) -> None:
    platforms = [f"manylinux_2_17_{machine}", f"musllinux_1_1_{machine}"]
    assert wheels[machine].name == f"sexton-{__version__}-py3-none-{'.'.join(platforms)}.whl"
    with zipfile.ZipFile(wheels[machine]) as archive:
        wheel = email.message_from_bytes(archive.read(f"sexton-{__version__}.dist-info/WHEEL"))
    assert sorted(wheel.get_all("Tag", [])) == [f"py3-none-{platform}" for platform in platforms]
    assert wheel["Root-Is-Purelib"] == "false"


@each_machine
@pytest.mark.parametrize("platform", ["manylinux_2_17", "musllinux_1_1"])
def test_pip_takes_it_on_glibc_and_on_musl(
    wheels: dict[str, Path], machine: str, platform: str, tmp_path: Path
) -> None:
    wanted = ["--platform", f"{platform}_{machine}", "--only-binary", ":all:", "--target", str(tmp_path), "--no-deps"]
    must(run(sys.executable, "-m", "pip", "install", "--dry-run", *wanted, wheels[machine]))


@each_machine
def test_it_holds_the_package_the_program_the_manual_and_nothing_else(wheels: dict[str, Path], machine: str) -> None:
    with zipfile.ZipFile(wheels[machine]) as archive:
        names = set(archive.namelist())
    package = {str(path.relative_to(CHECKOUT / "src")) for path in (CHECKOUT / "src/sexton").rglob("*.py")}
    info = f"sexton-{__version__}.dist-info"
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    licences = {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"}
    data = f"sexton-{__version__}.data"
    manual = {f"{data}/data/share/man/man{page.suffix[1:]}/{page.name}" for page in (CHECKOUT / "man").iterdir()}
    program = {f"{data}/scripts/sexton-init"}
    assert names == package | {"sexton/py.typed"} | about | licences | program | manual


@each_machine
def test_the_program_is_static_small_and_of_its_machine(programs: dict[str, Path], machine: str) -> None:
    headers = readelf(programs[machine])
    assert f"Machine: {'Advanced Micro Devices X86-64' if machine == 'x86_64' else 'AArch64'}" in " ".join(
        headers.split()
    )
    assert "INTERP" not in headers
    assert "DYNAMIC" not in headers
    assert programs[machine].stat().st_size <= {"x86_64": 64_000, "aarch64": 70_000}[machine]  # its code is less dense
    assert os.access(programs[machine], os.X_OK)


@each_machine
def test_the_program_runs(programs: dict[str, Path], machine: str) -> None:
    """The other machine's under qemu, which runs sexton-init alone: `sh` is this machine's own."""
    emulator = [] if machine == os.uname().machine else [f"qemu-{machine}-static"]
    if emulator and shutil.which(emulator[0]) is None:
        pytest.skip(f"{emulator[0]} is not installed (Debian: qemu-user-static)")
    program = [*emulator, str(programs[machine])]
    assert must(run(*program, "--version")) == f"sexton-init {__version__}\n"
    assert run(*program, "--", "sh", "-c", "exit 7").returncode == 7
    assert run(*program, "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert run(*program, "/no/such/command").returncode == 127


@each_machine
def test_the_same_source_gives_the_same_program(programs: dict[str, Path], machine: str, tmp_path: Path) -> None:
    """Byte for byte, whatever directory it is built in."""
    again = tmp_path / "sexton-init"
    must(run(sys.executable, "hatch_build.py", again, env={"SEXTON_TARGET": machine}))
    assert again.read_bytes() == programs[machine].read_bytes()


@pytest.mark.usefixtures("wheels")
def test_building_leaves_nothing_beside_the_build_directory(unpacked: Path, sdist: Path, home: Path) -> None:
    shipped = {line.split("/")[1] for line in must(run("tar", "tzf", sdist)).splitlines()}
    assert {path.name for path in unpacked.iterdir()} == shipped | {"build"}
    assert list(home.rglob("*")) == []


def test_installed_it_is_two_commands_on_path(wheels: dict[str, Path], fresh: Path) -> None:
    pip = [str(fresh / "python"), "-m", "pip", "--disable-pip-version-check"]
    must(run(*pip, "install", wheels[os.uname().machine]))
    path = {"PATH": f"{fresh}:{os.environ['PATH']}"}
    assert run("sh", "-c", "sexton init -- sh -c 'exit 7'", env=path).returncode == 7
    assert run("sh", "-c", "sexton-init -- sh -c 'exit 7'", env=path).returncode == 7
    assert must(run("sh", "-c", "sexton --version", env=path)) == f"sexton {__version__}\n"
    find = "from sexton._binary import find; print(find())"
    assert must(run(fresh / "python", "-c", find)) == f"{fresh}/sexton-init\n"
    assert (fresh / "../share/man/man5/sexton.toml.5").is_file(), "where man(1) looks for what is on PATH"
    must(run(*pip, "uninstall", "--yes", "sexton"))
    assert not [path.name for path in fresh.iterdir() if path.name.startswith("sexton")]


def test_installed_into_a_directory_it_is_found_there(wheels: dict[str, Path], fresh: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    must(run(fresh / "python", "-m", "pip", "install", "--no-deps", "--target", target, wheels[os.uname().machine]))
    find = "from sexton._binary import find; print(find())"
    found = must(run(fresh / "python", "-c", find, env={"PYTHONPATH": str(target), "PATH": "/nowhere"}))
    assert found == f"{target}/bin/sexton-init\n"
    assert subprocess.run([found.strip(), "--", "sh", "-c", "exit 7"], check=False).returncode == 7
