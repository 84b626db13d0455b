"""Compile sexton-init, and put it among the wheel's scripts under the tag of the machine that it runs on.

    SEXTON_CC      a compiler that links static, such as musl-gcc (default: zig's, from PyPI)
    SEXTON_TARGET  x86_64 or aarch64 (default: this machine)

As a script it is what `make build` runs: `python hatch_build.py OUTPUT`.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine, see elf(5)
# A static binary needs neither C library, so one wheel says that it runs on both; 2.17 and 1.1 are the
# oldest that pip knows for both machines.
TAG = "py3-none-manylinux_2_17_{0}.musllinux_1_1_{0}"


def target() -> str:
    """The machine to compile for; `SystemExit` names those that there are."""
    machine = os.environ.get("SEXTON_TARGET") or platform.machine()
    if machine not in MACHINES:
        sys.exit(f"sexton-init: cannot build for {machine}: SEXTON_TARGET is one of {', '.join(MACHINES)}")
    return machine


def compile_init(root: Path, machine: str, output: Path) -> None:
    """Compile `root`/init for `machine` into `output`, whole or not at all; `SystemExit` says why not."""
    named = shlex.split(os.environ.get("SEXTON_CC", ""))
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl"]
    # A compiler that we did not choose may warn of what it likes: `make check` is where warnings are errors.
    command = [*named, "@cflags", "-Wno-error"] if named else [*zig, "@cflags"]
    version = re.search(r'^__version__ = "(.+)"$', (root / "src/sexton/__init__.py").read_text(), re.MULTILINE)
    sources = sorted(path.name for path in root.glob("init/*.c"))
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    command += [f'-DSEXTON_VERSION="{version and version[1]}"', *sources, "@ldflags", "-o", str(part.absolute())]
    cache = str(root / "build/zig-cache")
    try:
        subprocess.run(
            command,
            cwd=root / "init",  # not above .venv: what zig finds below it has another name in its cache
            check=True,
            env={"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache, **os.environ},
        )
        refuse_wrong_elf(part, machine)
        part.replace(output)
    except OSError as error:
        sys.exit(f"sexton-init: cannot run the compiler: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"sexton-init: the compiler failed with {error.returncode}: {shlex.join(command)}")
    finally:
        part.unlink(missing_ok=True)


def refuse_wrong_elf(path: Path, machine: str) -> None:
    """`SystemExit` unless `path` is a static 64-bit program for `machine`; see elf(5)."""
    elf = path.read_bytes()
    if elf[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{path.name}: not a 64-bit little-endian ELF program")
    (found,) = struct.unpack_from("<H", elf, 18)
    if found != MACHINES[machine]:
        name = {number: name for name, number in MACHINES.items()}.get(found, f"ELF machine {found}")
        sys.exit(f"sexton-init was built for {name}, not {machine}: SEXTON_CC or SEXTON_TARGET is wrong")
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    kinds = {struct.unpack_from("<I", elf, table + size * i)[0] for i in range(count)}
    if 3 in kinds:  # PT_INTERP: it wants a dynamic loader
        sys.exit("sexton-init was linked dynamic: name a compiler that links static, such as SEXTON_CC=musl-gcc")


class InitHook(BuildHookInterface[Any]):
    """Adds sexton-init and the manual pages to a wheel; an editable install takes the one that `make build` made."""

    def dependencies(self) -> list[str]:
        """Zig, 100 MB, only where it is the compiler."""
        groups: dict[str, list[str]] = self.metadata.config["dependency-groups"]
        return [] if os.environ.get("SEXTON_CC") else groups["zig"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, check and tag."""
        if version == "editable":
            return
        machine = target()
        program = Path(self.root, "build", "wheel", machine, "sexton-init")
        compile_init(Path(self.root), machine, program)
        build_data["shared_scripts"] = {str(program): "sexton-init"}
        pages = sorted(Path(self.root, "man").iterdir())
        build_data["shared_data"] = {str(page): f"share/man/man{page.suffix[1:]}/{page.name}" for page in pages}
        build_data["pure_python"] = False
        build_data["tag"] = TAG.format(machine)


if __name__ == "__main__":
    compile_init(Path(__file__).parent, target(), Path(sys.argv[1]))
