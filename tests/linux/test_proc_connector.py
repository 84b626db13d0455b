"""The proc connector: every fork, exec and exit is told, and what was not asked for wakes nobody."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys

import pytest

from sexton import _linux
from sexton._linux import ProcConnector, ProcEvent, parse_proc_event
from tests.support.lines import DEADLINE


def collect(connector: ProcConnector, last: ProcEvent) -> list[ProcEvent]:
    """Everything up to that event."""
    found: list[ProcEvent] = []
    while last not in found:
        assert select.select([connector], [], [], DEADLINE)[0], found
        found += connector.read()
    return found


def test_a_life() -> None:
    with ProcConnector() as connector:
        popen = subprocess.Popen(["sh", "-c", "exit 5"])
        popen.wait()
        own = os.getpid()
        end = ProcEvent("exit", popen.pid, popen.pid, own, own, 5 << 8)
        events = [one for one in collect(connector, end) if one.tgid == popen.pid]
    assert events == [
        ProcEvent("fork", popen.pid, popen.pid, own, own),
        ProcEvent("exec", popen.pid, popen.pid),
        end,
    ]


def test_only_what_was_asked_for() -> None:
    with ProcConnector(("exit",)) as connector:
        pid = os.spawnlp(os.P_WAIT, "true", "true")
        child = os.fork()
        if child == 0:
            os._exit(3)
        os.waitpid(child, 0)
        events = collect(connector, ProcEvent("exit", child, child, os.getpid(), os.getpid(), 3 << 8))
    assert pid == 0
    assert {one.kind for one in events} == {"exit"}


def test_forks_by_one_process_only() -> None:
    program = (
        "import os\npid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)\nprint(pid, flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with ProcConnector(("fork", "exit"), forker=os.getpid()) as connector:
            child = os.fork()
            if child == 0:
                grandchild = os.fork()
                if grandchild == 0:
                    os._exit(0)
                os.waitpid(grandchild, 0)
                os._exit(0)
            os.waitpid(child, 0)
            events = collect(connector, ProcEvent("exit", child, child, os.getpid(), os.getpid(), 0))
        other.communicate(b"\n")
    forks = [one for one in events if one.kind == "fork"]
    assert forks == [ProcEvent("fork", child, child, os.getpid(), os.getpid())]


def test_another_pid_namespace_is_refused() -> None:
    """The kernel would accept it there, and never say a word."""
    program = "from sexton._linux import ProcConnector\ntry: ProcConnector()\nexcept PermissionError as e: print(e)"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "only the first PID namespace" in done.stdout


def test_without_the_capability() -> None:
    """Before Linux 6.6 it is refused, and from then on it works: it is never silent."""
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            connector = ProcConnector(("exit",))
        except PermissionError:
            os._exit(9)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        collect(connector, ProcEvent("exit", pid, pid, os.getpid(), os.getpid(), 0))
        os._exit(8)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    assert code == (8 if release >= (6, 6) else 9)


@pytest.mark.parametrize("size", [0, 16, 51, 60])
def test_short_messages(size: int) -> None:
    assert parse_proc_event(bytes(size)) is None


def test_an_exit_of_an_old_kernel() -> None:
    """Before 4.18 it did not name the parents."""
    message = bytes(36) + struct.pack("=IIQ", 0x80000000, 0, 0) + struct.pack("=4I", 7, 8, 256, 17)
    assert parse_proc_event(message) == ProcEvent("exit", 7, 8, 0, 0, 256)


def test_subreaper() -> None:
    child = os.fork()
    if child == 0:
        _linux.set_child_subreaper()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os._exit(4)
            os._exit(0)
        codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))
        os._exit(0 if codes == [0, 4] else 1)
    assert os.waitpid(child, 0)[1] == 0
