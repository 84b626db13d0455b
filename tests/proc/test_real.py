"""Real processes, some of them gone, foreign or not to be looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sexton import proc

if TYPE_CHECKING:
    from collections.abc import Iterator

# Loaded in a process of another user or namespace, which imports the same sexton as this test.
SOURCE = str(Path(proc.__file__).parent.parent.parent)


@contextmanager
def sleeper(*argv: str) -> Iterator[int]:
    """A process that waits for the end of its stdin; the first line of its output says that it is there."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        assert popen.stdout.readline()
        yield popen.pid
        popen.kill()


def inside(code: str, *before: str) -> object:
    """What the code prints as JSON, run by `before`, with `proc` imported."""
    program = f"import json, os, sys; sys.path.insert(0, {SOURCE!r})\nfrom sexton import proc\n{code}"
    argv = [*before, sys.executable, "-I", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_this_process() -> None:
    at = proc.snapshot()
    me = at.processes[os.getpid()]
    assert (me.ppid, me.pgid, me.sid) == (os.getppid(), os.getpgid(0), os.getsid(0))
    assert me.state == "R"
    assert me.exit_signal == signal.SIGCHLD
    status = proc.status(os.getpid())
    assert isinstance(status, proc.Status)
    assert (status.uid, status.gid) == (os.getuid(), os.getgid())
    assert proc.has(status.ignored, signal.SIGPIPE)
    assert proc.environ(os.getpid()) == proc.environ(os.getpid())
    assert os.getpid() in [p.pid for p in at.children(os.getppid())]
    limits = proc.limits(os.getpid())
    assert isinstance(limits, dict)
    assert "Max processes" in limits


def test_a_name_with_newline_and_bytes() -> None:
    name = b"(a) R\n\xff"
    code = f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {name!r}); print(flush=True); sys.stdin.read()"
    with sleeper(sys.executable, "-c", code) as pid:
        process = proc.stat(pid)
        assert isinstance(process, proc.Process)
        assert os.fsencode(process.comm) == name
        assert process.name == f"(a) R\\x0a\\xff[{pid}]"


def test_a_zombie_and_after_it() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    process = proc.stat(pid)
    assert isinstance(process, proc.Process)
    assert process.zombie
    assert proc.cmdline(pid) == ()
    assert proc.fds(pid) in ({}, proc.Missing.DENIED)
    assert pid in [zombie.pid for zombie in proc.snapshot().culprits()[os.getpid()]]
    assert pid in proc.children(os.getpid())
    assert proc.namespace(pid) == proc.namespace(os.getpid())
    os.waitpid(pid, 0)
    assert proc.stat(pid) is proc.Missing.GONE
    assert proc.status(pid) is proc.Missing.GONE
    assert proc.namespace(pid) is proc.Missing.GONE
    assert proc.children(pid) == ()


def test_pids_in_another_namespace() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with sleeper("unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", code) as outer:
        (inner,) = proc.snapshot().children(outer)
        status = proc.status(inner.pid)
        assert isinstance(status, proc.Status)
        assert status.ns_pids == (inner.pid, 1)
        assert status.init
        assert proc.namespace(inner.pid) != proc.namespace(outer)


def test_another_user_is_read_as_far_as_it_may_be() -> None:
    """As nobody: the files that need the right to trace say so, the rest is read."""
    code = """
names = ("stat", "status", "cmdline", "fds", "environ", "syscall", "namespace", "cgroups", "limits")
values = {name: getattr(proc, name)(1) for name in names}
print(json.dumps({name: str(v) if isinstance(v, proc.Missing) else "read" for name, v in values.items()}))
"""
    answers = inside(code, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert isinstance(answers, dict)
    assert {answers[name] for name in ("stat", "status", "cmdline", "cgroups", "limits")} == {"read"}
    assert {answers[name] for name in ("fds", "environ", "syscall", "namespace")} == {"Missing.DENIED"}


def test_hidepid_noaccess_and_invisible() -> None:
    """In a mount namespace of its own, as nobody: what is hidden is not there, and it is said why."""
    code = """
at = proc.snapshot()
print(json.dumps([at.hidepid, list(at.processes) == [os.getpid()], at.unreadable]))
"""
    answers: dict[str, object] = {}
    for word in ("noaccess", "invisible"):
        nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        script = f'mount -t proc -o hidepid={word} proc /proc; {nobody} "$@"; exit'
        answers[word] = inside(code, "unshare", "--pid", "--fork", "--mount", "sh", "-c", script, "sh")
    assert answers == {"invisible": ["invisible", True, []], "noaccess": ["noaccess", True, [1]]}
