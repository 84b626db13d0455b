from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sexton import proc
from sexton.proc import _parse

LINE = (
    b"10483 (cat) R 10370 10371 2994 0 -1 4194304 101 0 0 0 0 0 0 0 20 0 3 0 110495 3133440 390"
    b" 18446744073709551615 93825195315200 93825195335081 140737325538896 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0"
    b" 93825195351088 93825195352704 93826148786176 140737325546001 140737325546021 140737325546021"
    b" 140737325547499 0\n"
)


def test_stat_reads_the_fields_it_names() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    assert _parse.stat(LINE) == proc.Process(
        pid=10483,
        ppid=10370,
        pgid=10371,
        sid=2994,
        state="R",
        comm="cat",
        threads=3,
        start=110495,
        flags=4194304,
        exit_signal=17,
        rss=390 * page,
    )


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        (b"a b", "a b"),
        (b") R 1 1", ") R 1 1"),
        (b"((", "(("),
        (b"))", "))"),
        (b" (x) S 3 ", " (x) S 3 "),
        (b"two\nlines", "two\\x0alines"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"", ""),
    ],
)
def test_a_name_may_be_any_bytes(comm: bytes, shown: str) -> None:
    process = _parse.stat(LINE.replace(b"(cat)", b"(" + comm + b")"))
    assert os.fsencode(process.comm) == comm
    assert proc.printable(process.comm) == shown
    assert process.name == f"{shown}[10483]"
    assert (process.ppid, process.state) == (10370, "R")


@given(comm=st.binary(max_size=64), numbers=st.lists(st.integers(-(2**63), 2**64), min_size=49, max_size=60))
def test_stat_survives_any_name_and_any_number(comm: bytes, numbers: list[int]) -> None:
    line = b"%d (%s) S %s\n" % (7, comm, " ".join(map(str, numbers)).encode())
    process = _parse.stat(line)
    assert process.pid == 7
    assert process.comm.encode("utf-8", "surrogateescape") == comm
    assert process.ppid == numbers[0]
    assert process.exit_signal == numbers[34]
    assert proc.printable(process.comm).isprintable()


PARSERS = [
    _parse.stat,
    _parse.status,
    _parse.brief,
    _parse.strings,
    _parse.environ,
    _parse.syscall,
    _parse.cgroups,
    _parse.limits,
    _parse.mounts,
    _parse.pairs,
    _parse.pid_list,
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_any_bytes_give_a_value_or_value_error(parser: object) -> None:
    """Bytes out of the blue, and each real file with bytes changed."""
    assert callable(parser)
    real = [proc.read(f"/proc/self/{name}") for name in ("stat", "status", "cgroup", "limits", "mountinfo")]
    samples = [data for data in real if isinstance(data, bytes)]
    assert len(samples) == 5

    @given(data=st.binary(max_size=300))
    def noise(data: bytes) -> None:
        try:
            parser(data)
        except ValueError:
            return

    @given(
        sample=st.sampled_from(samples),
        start=st.integers(0, 4000),
        length=st.integers(0, 40),
        put=st.binary(max_size=20),
    )
    def damage(sample: bytes, start: int, length: int, put: bytes) -> None:
        try:
            parser(sample[:start] + put + sample[start + length :])
        except ValueError:
            return

    noise()
    damage()


@given(st.text())
def test_what_is_printed_is_printable(text: str) -> None:
    assert proc.printable(text).isprintable()


@given(st.lists(st.binary().map(lambda data: data.replace(b"\0", b"")), max_size=5))
def test_arguments_come_back(arguments: list[bytes]) -> None:
    data = b"".join(argument + b"\0" for argument in arguments)
    assert [a.encode("utf-8", "surrogateescape") for a in _parse.strings(data)] == arguments


def test_arguments_that_were_overwritten_have_no_end() -> None:
    assert _parse.strings(b"nginx: worker process") == ("nginx: worker process",)


def test_status_of_a_kernel_without_namespaces_in_it() -> None:
    data = proc.read("/proc/self/status")
    assert isinstance(data, bytes)
    lines = [line for line in data.split(b"\n") if not line.startswith((b"NS", b"Seccomp", b"Vm"))]
    status = _parse.status(b"\n".join(lines))
    assert status.ns_pids == (os.getpid(),)
    assert (status.ns_sids, status.rss, status.seccomp) == ((), 0, 0)


def test_syscall_forms() -> None:
    assert _parse.syscall(b"running\n").number == -2
    assert _parse.syscall(b"-1 0x7ffd 0x7f00\n") == proc.Syscall(-1, (), 0x7FFD, 0x7F00)
    value = _parse.syscall(b"61 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f00\n")
    assert (value.number, value.args[0]) == (61, 0xFFFFFFFFFFFFFFFF)


def test_mounts_with_blanks_in_their_names() -> None:
    (mount,) = _parse.mounts(
        rb"36 35 98:0 /a\040b /mnt\134x\011y rw,noatime master:1 - ext3 /dev/r\040t rw,x=1" + b"\n"
    )
    assert mount == proc.Mount("/a b", "/mnt\\x\ty", "ext3", "/dev/r t", ("rw", "noatime", "rw", "x=1"))


def test_masks() -> None:
    assert proc.has(0x10000, 17)
    assert not proc.has(0x10000, 16)


@given(st.binary(max_size=200))
def test_any_cgroup_path_is_a_container_or_is_not(path: bytes) -> None:
    found = proc.from_path(path.decode("utf-8", "surrogateescape"))
    assert found is None or len(found.id) == 64


ID = "0123456789abcdef" * 4
POD = "8dbc7e2c-0d4c-4b8e-9d3c-3d1a8f0f3b5e"


@pytest.mark.parametrize(
    ("path", "engine", "pod"),
    [
        (f"/docker/{ID}", "docker", ""),
        (f"/system.slice/docker-{ID}.scope", "docker", ""),
        (f"/system.slice/docker-{ID}.scope/init", "docker", ""),
        (f"/machine.slice/libpod-{ID}.scope", "podman", ""),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman", ""),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            "podman",
            "",
        ),
        (f"/libpod_parent/libpod-{ID}", "podman", ""),
        (f"/default/{ID}", "containerd", ""),
        (f"/system.slice/nerdctl-{ID}.scope", "containerd", ""),
        (f"/kubepods/burstable/pod{POD}/{ID}", "", POD),
        (f"/kubepods/besteffort/pod{POD.replace('-', '')}/{ID}", "", POD.replace("-", "")),
        (
            f"/kubepods.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope",
            "containerd",
            POD,
        ),
        (f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope", "cri-o", POD),
        (f"/system.slice/containerd.service/kubepods-pod{POD}.slice:cri-containerd:{ID}", "containerd", POD),
        (f"/../../docker-{ID}.scope", "docker", ""),
    ],
)
def test_containers_by_their_paths(path: str, engine: str, pod: str) -> None:
    assert proc.from_path(path) == proc.Container(ID, engine, pod)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/user.slice/user-0.slice/session-1.scope",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/crio-conmon-{ID}.scope",
        "/kubepods/burstable",
    ],
)
def test_paths_that_are_no_container(path: str) -> None:
    assert proc.from_path(path) is None


def test_the_inner_of_two_containers() -> None:
    assert proc.from_path(f"/docker/{ID}/docker/{ID[::-1]}") == proc.Container(ID[::-1], "docker", "")


def test_hybrid_machines_name_it_in_one_hierarchy() -> None:
    lines = _parse.cgroups(f"2:pids:/\n1:name=systemd:/system.slice/docker-{ID}.scope\n0::/\n".encode())
    assert proc.from_memberships(lines) == proc.Container(ID, "docker", "")


def test_a_container_seen_from_inside_by_its_mounts() -> None:
    line = f"1 2 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
    assert proc.from_mounts(_parse.mounts(line.encode())) == proc.Container(ID, "docker", "")
