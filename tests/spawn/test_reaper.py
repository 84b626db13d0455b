"""The reaper inside a program: every orphan is buried, and no child of the program's own.

Each test is a program that is PID 1 of a PID namespace, or a subreaper; it says what it found on its standard output.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.lines import DEADLINE
from tests.support.running import namespace

PRELUDE = """
import os, select, subprocess, sys, time
from sexton import reaper

def children():
    return [int(word) for task in os.listdir("/proc/self/task")
            for word in open(f"/proc/self/task/{task}/children").read().split()]

def state(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"

def dead(pid):
    fd = os.pidfd_open(pid)
    assert select.select([fd], [], [], 30)[0], pid
    os.close(fd)

def buried(pid):
    "Wait until that process is gone for good: its entry in /proc is, when its parent has buried it."
    until = time.monotonic() + 30
    while state(pid) != "gone":
        assert time.monotonic() < until, f"{pid} is {state(pid)}, not buried"
        os.sched_yield()

def orphan(how=""):
    "The pid of a grandchild that lives on after its parent, until its input ends; and what ends it."
    reader, writer = os.pipe()
    told, tell = os.pipe()
    orphan = f"bash -c 'echo $$ >&{tell}; exec {tell}>&-; read x <&{reader}'"
    shell = subprocess.Popen(["bash", "-c", f"{how} {orphan} & :"], pass_fds=[reader, tell])
    os.close(tell)
    pid = int(os.read(told, 100))
    os.close(told)
    assert shell.wait() == 0
    os.close(reader)
    return pid, writer
"""


def program(
    tmp_path: Path,
    code: str,
    *,
    pid1: bool = True,
    before: str = "",
    words: tuple[str, ...] = ("SCRIPT",),
    cwd: Path | None = None,
) -> list[str]:
    """Run the code; the lines that it printed."""
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + textwrap.dedent(code))
    argv = [sys.executable, *(str(script) if word == "SCRIPT" else word for word in words)]
    if before:
        argv = ["sh", "-c", f'{before} exec "$@"', "sh", *argv]
    done = subprocess.run(
        [*(namespace() if pid1 else ()), *argv], capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("pid1", [True, False], ids=["pid1", "subreaper"])
@pytest.mark.parametrize("how", ["", "setsid", "exec"], ids=lambda how: how or "plain")
def test_orphans_are_buried(tmp_path: Path, how: str, pid1: bool) -> None:
    out = program(tmp_path, f"""
        with reaper.Reaper() as here:
            for number in range(5):
                pid, end = orphan({how!r})
                assert state(pid) in "RS", state(pid)
                os.close(end)
                buried(pid)
            assert here.unproven == ()
            print(len(here.buried), sorted({{one.evidence for one in here.buried}}), here.buried[0].code)
        """, pid1=pid1)  # fmt: skip
    assert len(out) == 1
    count, rest = out[0].split(" ", 1)
    assert int(count) >= 5
    assert rest.startswith("['token']")


def test_without_a_reaper_they_stay(tmp_path: Path) -> None:
    """That the test above shows anything."""
    assert program(tmp_path, "pid, end = orphan(); os.close(end); dead(pid); print(state(pid))") == ["Z"]


OWN = """
    import asyncio, multiprocessing, threading
    from concurrent.futures import ThreadPoolExecutor
    def child(code): os._exit(code)
    async def loop():
        done = [await asyncio.create_subprocess_exec("sh", "-c", f"exit {n}") for n in range(5)]
        return [await one.wait() for one in done]
    def threads(n):
        return subprocess.Popen(["sh", "-c", f"exit {n}"])
    def main(here):
        popen = [subprocess.Popen(["sh", "-c", f"setsid sleep 0 & sleep 0 & exit {n}"]) for n in range(5)]
        with ThreadPoolExecutor(3) as pool:  # its threads end, and leave their children to others
            popen += pool.map(threads, range(5))
        forked = []
        for n in range(5):
            pid = os.fork()
            if pid == 0: child(n)
            forked.append(pid)
        spawned = [os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {n}"], {}) for n in range(5)]
        old = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", "exit 6"])
        for pid in [one.pid for one in popen] + forked + spawned + [old]:
            dead(pid)
        for n in range(5):
            pid, end = orphan()
            os.close(end)
            buried(pid)
        assert {pid for pid, _ in here.unproven} >= {one.pid for one in popen}
        mine = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked + spawned + [old]]
        print([one.wait() for one in popen], mine)
        print(asyncio.run(loop()), os.system("exit 7") >> 8, os.popen("exit 8").close() >> 8)
        for method in "fork", "spawn", "forkserver":
            context = multiprocessing.get_context(method)
            process = context.Process(target=os._exit, args=(9,))
            process.start()
            process.join()
            print(process.exitcode)
        import ctypes
        libc = ctypes.CDLL(None)
        c_fork = libc.fork()
        if c_fork == 0: child(3)
        dead(c_fork)
        pid, end = orphan()
        os.close(end)
        buried(pid)
        print(os.waitstatus_to_exitcode(os.waitpid(c_fork, 0)[1]))
    if __name__ == "__main__":  # the children of multiprocessing import this
        with reaper.Reaper() as here: main(here)
    """


@pytest.mark.parametrize("pid1", [True, False], ids=["pid1", "subreaper"])
def test_no_child_of_the_program_is_taken(tmp_path: Path, pid1: bool) -> None:
    assert program(tmp_path, OWN, pid1=pid1) == [
        "[0, 1, 2, 3, 4, 0, 1, 2, 3, 4] [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 6]",
        "[0, 1, 2, 3, 4] 7 8",
        *["9"] * 3,
        "3",
    ]


def test_as_a_module_it_buries_what_was_there_before(tmp_path: Path) -> None:
    """Incident 4: the start script left daemons, and the application was executed in its place."""
    code = """
        assert __name__ == "__main__"
        here = reaper.Reaper.running
        while not any(one.evidence == "before" for one in here.buried): os.sched_yield()
        print(sys.argv[1:])
        """
    words = ("-m", "sexton.reaper", "SCRIPT", "x", "-y")
    assert program(tmp_path, code, before="sleep 0 &", words=words) == ["['x', '-y']"]


def test_as_a_module_it_runs_a_module(tmp_path: Path) -> None:
    code = "print(__name__, reaper.Reaper.running is not None, sys.argv[1:])"
    assert program(tmp_path, code, words=("-m", "sexton.reaper", "-m", "script", "-y"), cwd=tmp_path) == [
        "__main__ True ['-y']"
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected a script, or -m and a module"),
        (["-m"], "expected a module after -m"),
        (["-c", "pass"], "no such option: -c"),
        (["missing.py"], "missing.py: there is no such script, or it cannot be read"),
    ],
)
def test_a_command_line_that_it_does_not_take(tmp_path: Path, words: list[str], said: str) -> None:
    command = [sys.executable, "-m", "sexton.reaper"]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m sexton.reaper SCRIPT [ARG]...\n")
    assert done.stderr.endswith(f"\nsexton.reaper: {said}\n")
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert helped.stdout
    assert done.stderr.startswith(helped.stdout)


def test_one_is_enough(tmp_path: Path) -> None:
    code = """
        from sexton.errors import SextonError
        with reaper.Reaper() as here:
            try: reaper.Reaper().start()
            except SextonError as error: print(error)
        with reaper.Reaper():
            pid, end = orphan(); os.close(end); buried(pid)
        print(subprocess._fork_exec.__name__, os.system.__name__)
        """
    assert program(tmp_path, code) == ["a reaper runs already in this process; one is enough", "fork_exec system"]


def test_bury_knows_who_has_just_come(tmp_path: Path) -> None:
    """Whatever the thread is about, which is kept from it here."""
    code = """
        with reaper.Reaper() as here, here._lock:
            pid, end = orphan(); os.close(end); dead(pid)
            here.bury()
            print(state(pid))
        """
    assert program(tmp_path, code) == ["gone"]


def test_nothing_wakes_up(tmp_path: Path) -> None:
    """The thread sleeps while nobody dies: its voluntary context switches stand still."""
    code = """
        def switches():
            return [line for task in os.listdir("/proc/self/task") if int(task) != os.getpid()
                    for line in open(f"/proc/self/task/{task}/status") if "ctxt" in line]
        with reaper.Reaper():
            pid, end = orphan(); os.close(end); buried(pid)
            while state(max(map(int, os.listdir("/proc/self/task")))) != "S": os.sched_yield()
            before = switches()
            select.select([], [], [], 0.5)
            print(switches() == before)
        """
    assert program(tmp_path, code) == ["True"]


# The first fork of subprocess is held in its midst: this is what the reaper finds there, and wraps.
HELD = """
        import threading
        midst, go_on, holds = threading.Event(), threading.Event(), [True]
        def held(*args, real=subprocess._fork_exec):
            if holds:
                holds.clear()
                midst.set()
                assert go_on.wait(30)
            return real(*args)
        subprocess._fork_exec = held
        """


def test_a_fork_beside_another_threads(tmp_path: Path) -> None:
    """os.fork waits for nobody, so its child may carry the token of a subprocess that is just being started."""
    code = """
        told, tell = os.pipe()
        forked = []
        def fork():
            assert midst.wait(30)
            pid = os.fork()
            if pid == 0:
                os.write(tell, b"x")
                os._exit(5)
            forked.append(pid)
        def release():
            os.read(told, 1)
            go_on.set()
        with reaper.Reaper() as here:
            threads = [threading.Thread(target=function) for function in (fork, release)]
            for thread in threads: thread.start()
            subprocess.run(["true"])
            for thread in threads: thread.join()
            dead(forked[0])
            here.bury()
            print(os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1]), here.buried)
        """
    assert program(tmp_path, HELD + code) == ["5 []"]


def test_forks_that_hold_locks(tmp_path: Path) -> None:
    """A lock that os.fork has, as logging's: a subprocess with a preexec_fn waits for it, and the fork for nobody."""
    code = """
        lock = threading.Lock()
        def before():
            lock.acquire()
            go_on.set()
        os.register_at_fork(before=before, after_in_parent=lock.release, after_in_child=lock.release)
        def start():
            print(subprocess.run(["sh", "-c", "exit 3"], preexec_fn=os.getpid).returncode)
        with reaper.Reaper():
            thread = threading.Thread(target=start, daemon=True)
            thread.start()
            assert midst.wait(30)
            pid = os.fork()
            if pid == 0: os._exit(5)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            thread.join()
        """
    assert sorted(program(tmp_path, HELD + code)) == ["3", "5"]


@pytest.mark.parametrize("how", ["forks", "raises"])
def test_a_signal_handler_in_the_midst_of_a_list(tmp_path: Path, how: str) -> None:
    """It comes before the first of two children is on the list, and forks; or its exception is the end of that list."""
    code = f"""
        import ctypes, signal
        def fork(how=os.fork):
            if how() == 0: os._exit(6)
        def forks(*_): fork()
        def raises(*_): raise KeyboardInterrupt
        signal.signal(signal.SIGUSR1, {how})
        def interrupted(pid, real=os.pidfd_open):
            os.pidfd_open = real
            signal.raise_signal(signal.SIGUSR1)
            return real(pid)
        with reaper.Reaper() as here:
            os.pidfd_open = interrupted
            fork(ctypes.CDLL(None).fork)  # on the next one's list
            fork()  # what a hook of it raises is only printed
            for _ in range(3):
                subprocess.run(["true"])
            for pid in children(): dead(pid)
            here.bury()
            print(here.buried)
            while children():
                print(os.waitstatus_to_exitcode(os.wait()[1]))
        """
    assert program(tmp_path, code) == ["[]", *["6"] * (3 if how == "forks" else 2)]
