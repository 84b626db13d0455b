"""What no machine of ours has: Debian's kernel, Python and Node for aarch64 boot in qemu, and run tests there.

    sudo dpkg --add-architecture arm64 && sudo apt-get update
    sudo apt-get install --no-install-recommends qemu-system-arm
    .venv/bin/python -m tests.guest [--kernel 6.12] [--cpu cortex-a57] [pytest's arguments]

That is inject on aarch64 (tests/reap), and cgroups of version 2 with every controller, those of ours and the limits
of `sexton up`. Nothing is installed: the packages of the other machine are unpacked below build/guest, and together
with sexton and the tests they become the file system that the kernel boots from. Not in CI.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import threading
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
BUILD = PROJECT / "build" / "guest"
LONGEST = 3600  # seconds until a machine that hangs is ended
TESTS = [
    *(f"tests/reap/test_{name}.py" for name in ("inject", "inject_killed", "ladder", "keep")),
    *("tests/spawn/test_contain.py", "tests/supervise/test_limits.py", "tests/supervise/test_limits_at_work.py"),
]
# Python packages that the tests import, none of which has code for one machine; and one that has.
MODULES = (
    *("_pytest", "anyio", "click", "h11", "iniconfig", "packaging", "pluggy", "py.py", "pygments", "pytest"),
    *("pytest_timeout.py", "sniffio", "starlette", "typing_extensions.py", "uvicorn"),
)
FOREIGN_MODULE = "msgspec"
# C programs of the tests: the culprit, and the monster, which is static.
PROGRAMS = {
    "tests/reap/culprits/steady.c": ["-target", "aarch64-linux-gnu.2.36", "-fno-sanitize=undefined"],
    "tests/support/monster.c": ["-target", "aarch64-linux-musl", "-static", "-std=gnu11", "-fno-sanitize=undefined"],
}
# What those tests and Node need of Debian: packages of the other machine, and some that are the same on all.
FOREIGN = (
    "busybox-static coreutils dash grep libacl1 libattr1 libblkid1 libbrotli1 libbz2-1.0 libc-ares2 libc6 libcap-ng0"
    " libcrypt1 libexpat1 libffi8 libgcc-s1 libgmp10 libicu72 liblzma5 libmount1 libnghttp2-14 libnode108 libpcre2-8-0"
    " libpython3.11-minimal libpython3.11-stdlib libselinux1 libsmartcols1 libssl3 libstdc++6 libtinfo6 libuuid1 libuv1"
    " libzstd1 mount nodejs python3.11 python3.11-minimal util-linux zlib1g"
)
COMMON = "node-acorn node-busboy node-cjs-module-lexer node-undici node-xtend"

# What the guest's kernel starts. Nothing of the tests goes through its console but their words.
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
export PATH=/usr/bin:/bin PYTHONPATH=/sexton/site:/sexton/src:/sexton HOME=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
export TEST_DEADLINE=300 TEST_CGROUPS=all
cd /sexton
echo "Linux $(/bin/busybox uname -r) on $(/bin/busybox uname -m)"
/bin/busybox setsid /bin/busybox sh /sexton/job </dev/ttyAMA0 >/dev/ttyAMA0 2>&1
echo "ended with $?"
/bin/busybox poweroff -f
"""
# They were compiled before, where there is a compiler.
CC = """\
#!/bin/sh
for word; do
    case $word in *.c) source=${word##*/} ;; esac
    [ "$before" != -o ] || target=$word
    before=$word
done
exec cp "/sexton/programs/${source%.c}" "$target"
"""


def main() -> None:
    """Make the file system, boot it, and give the exit code of its pytest."""
    parser = argparse.ArgumentParser(prog="python -m tests.guest", description=__doc__.partition("\n")[0])
    parser.add_argument("--kernel", default="6.1", help="the beginning of its version (6.1)")
    parser.add_argument("--cpu", default="max,pauth-impdef=on", help="as qemu calls it (max: with SVE)")
    options, arguments = parser.parse_known_args()
    for program in ("qemu-system-aarch64", "apt-get", "dpkg-deb"):
        if not shutil.which(program):
            sys.exit(f"{program} is not there; see the beginning of {HERE / '__main__.py'}")
    kernel = next(unpack(BUILD / f"kernel-{options.kernel}", newest(options.kernel)).glob("boot/vmlinuz-*"))
    root = unpack(BUILD / "root", *(f"{name}:arm64" for name in FOREIGN.split()), *COMMON.split())
    furnish(root, arguments)
    image = BUILD / "initramfs.cpio"
    with image.open("wb") as file:
        for block in archive(root):
            file.write(block)
    sys.exit(boot(kernel, image, options.cpu))


def newest(version: str) -> str:
    """The package of Debian's newest kernel of that version."""
    done = subprocess.run(
        ["apt-cache", "search", "--names-only", rf"^linux-image-{version}[.-].*-arm64$"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [line.partition(" ")[0] for line in done.stdout.splitlines()]
    plain = [name for name in names if not {"cloud", "rt"} & set(name.split("-"))]
    if not plain:
        sys.exit(f"Debian has no kernel {version} for arm64; dpkg --add-architecture arm64 && apt-get update?")
    last = max(plain, key=lambda name: [int(part) for part in "".join(c if c.isdigit() else " " for c in name).split()])
    return f"{last}:arm64"


def unpack(place: Path, *packages: str) -> Path:
    """Debian's packages in a directory, made once."""
    if not place.exists():
        fetched, part = place.with_name(place.name + "-debs"), place.with_name(place.name + "-part")
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir(parents=True)
        subprocess.run(["apt-get", "download", "-qq", "-oAPT::Sandbox::User=root", *packages], cwd=fetched, check=True)
        shutil.rmtree(part, ignore_errors=True)
        for package in fetched.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, part], check=True)
        for name in ("doc", "man", "locale"):
            shutil.rmtree(part / "usr/share" / name, ignore_errors=True)
        part.rename(place)
        shutil.rmtree(fetched)
    return place


def foreign_module() -> Path:
    """Where the Python package is that has code for one machine: for the other one, in the version that we have."""
    place = BUILD / f"{FOREIGN_MODULE}-{metadata.version(FOREIGN_MODULE)}"
    if not place.exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place,
             "--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_17_aarch64", "--python-version", "3.11",
             "--only-binary", ":all:", f"{FOREIGN_MODULE}=={metadata.version(FOREIGN_MODULE)}"],
            check=True,
        )  # fmt: skip
    return place


def furnish(root: Path, arguments: list[str]) -> None:
    """What the packages do not have: sexton, the tests, their programs, and what the kernel starts."""
    for name in ("proc", "sys", "dev", "tmp", "sexton"):
        (root / name).mkdir(exist_ok=True)
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to("python3.11")
    ours = root / "sexton"
    shutil.rmtree(ours)
    for name in ("src", "tests"):
        shutil.copytree(PROJECT / name, ours / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "conftest.py", ours)
    (ours / "build").mkdir()
    shutil.copy(PROJECT / "build/sexton-init-aarch64", ours / "build/sexton-init")
    site = Path(sysconfig.get_path("purelib"))
    shutil.copytree(foreign_module(), ours / "site")
    for name in MODULES:
        copy = shutil.copytree if (site / name).is_dir() else shutil.copy
        copy(site / name, ours / "site" / name)
    (ours / "programs").mkdir()
    for source, flags in PROGRAMS.items():
        target = ours / "programs" / Path(source).stem
        words = [*flags, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(target), str(PROJECT / source)]
        subprocess.run([sys.executable, "-m", "ziglang", "cc", *words], check=True)
    chosen = shlex.join(arguments or TESTS)
    pytest = (
        "python3 -m pytest -q -p no:cacheprovider -p pytest_timeout -o addopts= --rootdir=. --color=no --timeout=900"
    )
    for path, content in ((root / "init", INIT), (root / "usr/bin/cc", CC), (ours / "job", f"{pytest} {chosen}\n")):
        path.write_text(content)
        path.chmod(0o755)


def archive(root: Path) -> Iterator[bytes]:
    """A directory as a cpio archive, which the kernel unpacks into memory: Documentation/driver-api/early-userspace."""
    entries = [path for place, folders, files in os.walk(root) for path in (Path(place, n) for n in folders + files)]
    for number, path in enumerate(entries, 1):
        mode = path.lstat().st_mode
        data = b""
        if stat.S_ISLNK(mode):
            data = os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            data = path.read_bytes()
        yield entry(number, os.fsencode(path.relative_to(root)), mode, data)
    yield entry(0, b"TRAILER!!!", 0, b"")


def entry(number: int, name: bytes, mode: int, data: bytes) -> bytes:
    """One file of the archive: a heading of hexadecimal numbers, its name, its content, each to a multiple of four."""
    words = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % word for word in words) + name + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def boot(kernel: Path, image: Path, cpu: str) -> int:
    """Run the machine to its end, and show its console; the exit code that it told."""
    machine = ["qemu-system-aarch64", "-M", "virt", "-cpu", cpu, "-smp", "1", "-m", "3072", "-nic", "none"]
    machine += ["-nographic", "-no-reboot", "-kernel", str(kernel), "-initrd", str(image)]
    machine += ["-append", "console=ttyAMA0 panic=-1 quiet"]
    code = 1
    with subprocess.Popen(machine, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        timer = threading.Timer(LONGEST, guest.kill)
        timer.start()
        for line in guest.stdout:
            text = line.decode(errors="replace").rstrip()
            print(text, flush=True)
            if text.startswith("ended with "):
                code = int(text.split()[-1])
        timer.cancel()
    return code


if __name__ == "__main__":
    main()
