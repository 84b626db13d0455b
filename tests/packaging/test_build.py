"""The sdist, the choice of a compiler, and the binaries that are refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from sexton import __version__
from tests.packaging.conftest import CHECKOUT, extract, must, run

pytestmark = pytest.mark.timeout(900)  # the first test waits for the builds

HERE = os.uname().machine
OTHER = "aarch64" if HERE == "x86_64" else "x86_64"


def build(output: Path, **env: str) -> str:
    """What a build that is refused says; it leaves no file."""
    done = run(sys.executable, "hatch_build.py", output, env=env)
    assert done.returncode == 1, done
    assert list(output.parent.iterdir()) == []
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "sexton-init"


def compiler(directory: Path, script: str) -> str:
    """A compiler of our own, for SEXTON_CC."""
    path = directory / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_the_sdist_holds_what_a_build_needs_and_no_more(sdist: Path) -> None:
    assert sdist.name == f"sexton-{__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "init").iterdir()}
    assert sources <= names
    assert {"pyproject.toml", "hatch_build.py", "LICENSE", "NOTICE", "PKG-INFO", "src/sexton/__init__.py"} <= names
    known = {"src", "init", "man", *(name for name in names if "/" not in name)}
    assert {name.split("/")[0] for name in names} <= known
    assert not {name for name in names if name.startswith((".venv", "build", "tests")) or name.endswith(".pyc")}


def test_pip_builds_the_sdist_with_a_compiler_of_ones_own_and_no_zig(sdist: Path, tmp_path: Path) -> None:
    """In an environment of its own, from PyPI's hatchling, as a distribution without zig would."""
    if shutil.which("musl-gcc") is None:
        pytest.skip("musl-gcc is not installed (Debian: musl-tools)")
    cache = {"ZIG_GLOBAL_CACHE_DIR": "/dev/null/none"}  # zig, if it ran after all, would fail on it
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--wheel-dir", tmp_path, sdist),
        env={"SEXTON_CC": "musl-gcc"} | cache,
    )
    said = must(done) + done.stderr
    assert "hatchling" in said
    assert "ziglang" not in said
    (wheel,) = tmp_path.glob("*.whl")
    program = extract(wheel, tmp_path)
    assert must(run(program, "--version")) == f"sexton-init {__version__}\n"
    assert run(program, "--", "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize(("env", "wanted"), [({}, ["ziglang"]), ({"SEXTON_CC": "musl-gcc"}, [])])
def test_zig_is_required_only_where_it_compiles(unpacked: Path, env: dict[str, str], wanted: list[str]) -> None:
    script = "import json, hatchling.build as backend; print(json.dumps(backend.get_requires_for_build_wheel()))"
    required = json.loads(must(run(sys.executable, "-c", script, cwd=unpacked, env=env)))
    assert [name.partition("==")[0] for name in required] == wanted


def test_a_dynamic_program_is_refused(output: Path, tmp_path: Path) -> None:
    forgets = 'for a; do shift; [ "$a" = @ldflags ] || set -- "$@" "$a"; done; exec gcc "$@"'
    said = build(output, SEXTON_CC=compiler(tmp_path, forgets))
    assert "linked dynamic" in said
    assert "SEXTON_CC=musl-gcc" in said


def test_a_program_for_another_machine_is_refused(output: Path, tmp_path: Path, programs: dict[str, Path]) -> None:
    """Whoever names a compiler and a target that do not fit is told so, and gets no wheel that cannot run."""
    copies = f'while [ "$1" != -o ]; do shift; done; cp {programs[OTHER]} "$2"'
    said = build(output, SEXTON_CC=compiler(tmp_path, copies))
    assert f"was built for {OTHER}, not {HERE}" in said
    assert "SEXTON_CC or SEXTON_TARGET" in said


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('while [ "$1" != -o ]; do shift; done; echo hello >"$2"', "not a 64-bit little-endian ELF program"),
        ("echo 'no, thank you' >&2; exit 3", "the compiler failed with 3"),
        (":", "No such file"),
    ],
    ids=["not a program", "a compiler that fails", "a compiler that makes nothing"],
)
def test_no_program_is_an_error_that_says_why(output: Path, tmp_path: Path, script: str, message: str) -> None:
    assert message in build(output, SEXTON_CC=compiler(tmp_path, script))


def test_a_compiler_that_is_not_there_is_named(output: Path) -> None:
    assert "/no/such/cc" in build(output, SEXTON_CC="/no/such/cc")


def test_a_machine_that_we_do_not_know_is_refused_with_those_that_we_do(output: Path) -> None:
    said = build(output, SEXTON_TARGET="vax")
    assert "vax" in said
    assert "x86_64, aarch64" in said
