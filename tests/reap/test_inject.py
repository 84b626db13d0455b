"""inject on culprits in every state: it reaps, or says what is in the way and leaves everything as it was."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from sexton import _linux, proc
from sexton.doctor.inject import inject, obstacle
from tests.reap.culprit import Culprit
from tests.support.lines import DEADLINE
from tests.support.processes import await_end

if TYPE_CHECKING:
    from pathlib import Path

Start = Callable[..., Culprit]

# The numbers of wait4, rt_sigreturn, clone and exit.
WAIT4, SIGRETURN, CLONE, EXIT = {"x86_64": (61, 15, 56, 60), "aarch64": (260, 139, 220, 93)}[platform.machine()]

SLEEPER = [sys.executable, "-c", "print('up', flush=True); import sys; sys.stdin.read()"]


def reap(culprit: Culprit) -> list[tuple[str, str]]:
    return [(one.result, one.why) for one in inject(culprit.process, culprit.zombies())]


def test_no_signal_is_lost_or_doubled(culprit: Start, steady: Path) -> None:
    """One arrives before every step, and the tracer dies in each step once."""
    subject = culprit([steady], 16)
    sent = 0
    for die in range(16):
        [reading, writing] = os.pipe()
        seen = 0

        def step(_: str, die: int = die, end: int = writing) -> None:
            nonlocal seen
            os.kill(subject.pid, signal.SIGRTMIN)
            os.write(end, b".")
            if seen == die:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        inject(subject.process, subject.zombies()[:1], step)
        os.close(writing)
        with open(reading, "rb") as told:
            sent += len(told.read())
    subject.signal(signal.SIGUSR1)
    word, _, counted = subject.line().split()
    assert (word, int(counted)) == ("ok", sent)


def test_exit_by_a_signal_on_the_way(culprit: Start) -> None:
    """A culprit that is killed while it stands still is gone, and nobody waits for it forever."""
    subject = culprit(SLEEPER, 1)

    def step(name: str) -> None:
        if name == "block the signals":
            os.kill(subject.pid, signal.SIGKILL)

    zombie = subject.zombies()[0]
    [outcome] = inject(subject.process, [zombie], step)
    assert outcome.result in {"refused", "reaped"}  # its death frees the zombie too
    assert subject.popen.wait(DEADLINE) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["wait for the stop", "set the registers", "block the signals", "detach"])
def test_stopped_by_job_control_on_the_way(culprit: Start, name: str) -> None:
    subject = culprit([sys.executable, "-c", "print('up', flush=True); print(input())"], 2)

    def step(at: str) -> None:
        if at == name:
            os.kill(subject.pid, signal.SIGSTOP)

    handle = os.pidfd_open(subject.pid)
    inject(subject.process, subject.zombies()[:1], step)
    assert os.waitid(os.P_PID, subject.pid, os.WSTOPPED | os.WNOWAIT) is not None
    assert subject.process.state == "T"
    assert len(subject.zombies()) <= 2
    [outcome] = inject(subject.process, subject.zombies()[:1])
    assert outcome.why.endswith("is stopped: SIGCONT it first")
    os.kill(subject.pid, signal.SIGCONT)
    subject.write("still here\n")
    assert subject.line() == "still here"
    os.close(handle)


def test_traced(culprit: Start) -> None:
    subject = culprit(SLEEPER, 1)
    reading, writing = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        _linux.ptrace_seize(subject.pid)
        os.write(writing, b".")
        signal.pause()
    os.read(reading, 1)
    own = proc.stat(tracer)
    assert isinstance(own, proc.Process)
    assert reap(subject) == [("refused", f"{subject.process.name} is traced by {own.name}; end that tracer first")]
    os.kill(tracer, signal.SIGKILL)
    os.waitpid(tracer, 0)
    assert reap(subject) == [("reaped", "")]


def test_kernel_thread() -> None:
    kthread = proc.stat(2)
    assert isinstance(kthread, proc.Process)
    assert kthread.kernel
    assert "kernel" in obstacle(kthread)


def test_zombie_of_another(culprit: Start) -> None:
    one, other = culprit(SLEEPER, 1), culprit(SLEEPER, 1)
    [outcome] = inject(one.process, other.zombies())
    assert outcome.result == "refused"
    assert outcome.why.endswith(f"is no zombie of {one.process.name}")


def test_not_the_culprit_it_was(culprit: Start) -> None:
    """A pid that has been given to another process since is left alone."""
    subject = culprit(SLEEPER, 1)
    [outcome] = inject(subject.process._replace(start=1), subject.zombies())
    assert (outcome.result, outcome.why) == ("refused", f"{subject.process.name} is gone")


def test_missing_capability(culprit: Start) -> None:
    subject = culprit(SLEEPER, 1)
    zombie = subject.zombies()[0]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        [outcome] = inject(subject.process, [zombie])
        os.write(writing, f"{outcome.result}: {outcome.why}".encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        answer = said.read()
    os.waitpid(child, 0)
    assert answer.startswith(f"refused: {subject.process.name}: this takes CAP_SYS_PTRACE")


# (code, jt, jf, k): what Docker's default does in small: one number gets the answer, the others pass.
FILTER = """
import ctypes, struct, sys, os
def line(*words): return struct.pack("HBBI", *words)
program = line(0x20, 0, 0, 0)
program += line(0x15, 0, 1, int(sys.argv[2])) + line(0x06, 0, 0, int(sys.argv[1], 0))
program += line(0x06, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program)
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, header, 0, 0) == 0  # PR_SET_SECCOMP
print("up", flush=True)
print(input())
"""
KILL, ERRNO, LOG = "0x80000000", "0x00050001", "0x7ffc0000"


@pytest.mark.parametrize(
    ("action", "number", "answer"),
    [
        (KILL, WAIT4, f"its seccomp filter does not allow system call {WAIT4}"),
        (ERRNO, WAIT4, f"its seccomp filter does not allow system call {WAIT4}"),
        (KILL, SIGRETURN, f"its seccomp filter does not allow system call {SIGRETURN}"),
        (KILL, 60000, ""),
        (LOG, WAIT4, ""),
    ],
)
def test_seccomp(culprit: Start, action: str, number: int, answer: str) -> None:
    subject = culprit([sys.executable, "-c", FILTER, action, str(number)], 1)
    [(result, why)] = reap(subject)
    expected = ("refused", f"{subject.process.name}: {answer}") if answer else ("reaped", "")
    assert (result, why) == expected
    subject.write("still here\n")
    assert subject.line() == "still here"


def test_strict_seccomp(culprit: Start) -> None:
    program = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None); print('up', flush=True);"
        "libc.prctl(22, 1, 0, 0, 0) or os.read(0, 1)"
    )
    subject = culprit([sys.executable, "-c", program], 1)
    handle = os.pidfd_open(subject.pid)
    # It says "up" before the prctl, since that is the last it can do but read and write.
    while not (isinstance(found := proc.status(subject.pid), proc.Status) and found.seccomp == 1):
        assert not select.select([handle], [], [], 0)[0]
        os.sched_yield()
    os.close(handle)
    assert reap(subject) == [
        ("refused", f"{subject.process.name} is under strict seccomp, which would kill it for a wait4")
    ]


CLONED = f"""
import ctypes, os, signal, sys
# A child that sends no SIGCHLD when it ends (exit_signal 0): plain wait says ECHILD.
libc = ctypes.CDLL(None)
if libc.syscall({CLONE}, 0, 0, 0, 0, 0) == 0:
    libc._exit(0)
print("up", flush=True)
sys.stdin.read()
"""


def test_child_of_clone_without_a_signal(culprit: Start) -> None:
    subject = culprit([sys.executable, "-c", CLONED], 0)
    await_end(proc.children(subject.pid)[0])
    [zombie] = subject.zombies()
    assert zombie.exit_signal == 0
    assert reap(subject) == [("reaped", "")]


def test_leader_dead_and_threads_alive(culprit: Start) -> None:
    """No wait can have it, and inject says so and harms nothing."""
    program = (
        "import os, threading, ctypes, sys\n"
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.close(writing)\n"
        "    threading.Thread(target=os.read, args=(reading, 1)).start()\n"
        f"    ctypes.CDLL(None).syscall({EXIT}, 0)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    subject = culprit([sys.executable, "-c", program], 0)
    while not subject.zombies():
        os.sched_yield()
    [leader] = subject.zombies()
    [outcome] = inject(subject.process, [leader])
    assert outcome.result == "left"
    assert "others of it live" in outcome.why
    os.kill(leader.pid, signal.SIGKILL)


def test_pid_as_the_culprits_namespace_sees_it() -> None:
    """A culprit that is PID 1 of a namespace has a zombie of another number there."""
    program = "import os, sys\nif os.fork() == 0:\n    os._exit(0)\nprint('up', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == b"up\n"
        inner = proc.stat(proc.children(outer.pid)[0])
        assert isinstance(inner, proc.Process)
        below = proc.children(inner.pid)
        await_end(below[0])
        zombie = proc.stat(below[0])
        assert isinstance(zombie, proc.Process)
        status = proc.status(zombie.pid)
        assert isinstance(status, proc.Status)
        assert status.ns_pids == (zombie.pid, 2)
        [outcome] = inject(inner, [zombie])
        assert outcome.result == "reaped"
        assert proc.stat(zombie.pid) is proc.Missing.GONE


def test_a_sleep_is_as_long_as_it_was(culprit: Start) -> None:
    """Nanosleep goes on with the time that was left: it neither fails with EINTR nor begins anew."""
    program = (
        "import ctypes, time\n"
        "print('up', flush=True)\n"
        "span = (ctypes.c_long * 2)(0, 400_000_000)\n"
        "start = time.monotonic()\n"
        "result = ctypes.CDLL(None, use_errno=True).nanosleep(span, None)\n"
        "print(result, time.monotonic() - start >= 0.4, flush=True)\n"
    )
    subject = culprit([sys.executable, "-c", program], 20)
    assert {result for result, _ in reap(subject)} == {"reaped"}
    assert subject.line() == "0 True"


def test_the_buffer_of_registers_is_locked() -> None:
    assert ctypes.sizeof(_linux._buffer) >= 11 * 1024
