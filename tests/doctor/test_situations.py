"""The sixteen rows of the table of causes, and two more, each made of real processes; and that health is
no finding.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sexton import proc
from tests.doctor.scene import INIT, Scene, check, python
from tests.support.lines import DEADLINE

if TYPE_CHECKING:
    pass

ORPHAN = "child(lambda: child(sleeper))"


def test_01_pid_1_does_not_reap() -> None:
    with Scene(f"os.waitpid({ORPHAN}, 0); say('ready'); hear()") as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        (victim,) = scene.kill("victim")
        finding = check(scene.diagnose(), "pid1-does-not-reap", culprit=python(), confidence="likely")
        assert [v.pid for v in finding.victims] == [victim.pid]
        assert "SIGCHLD is not caught" in str(finding.facts)
        assert any(str(finding.culprit and finding.culprit.pid) in cure.commands for cure in finding.cures)


def test_02_pid_1_waits_for_its_own_children_only() -> None:
    code = """
const { spawn } = require('node:child_process');
spawn('tail', ['-f', '/dev/null']);  // without a child of its own, Node does not catch SIGCHLD: row 1
const child = spawn('sh', ['-c', 'sleep 1000 & exit 0'], { detached: true, stdio: 'ignore' });
child.on('exit', () => console.log('ready'));
process.stdin.on('data', () => {});
"""
    with Scene("", "node", "-e", code) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("sleep"))
        scene.kill("sleep")
        found = scene.diagnose()
        finding = found["pid1-waits-for-its-own"]
        assert finding.culprit is not None
        assert finding.culprit.pid == scene.all()[0].pid
        assert (len(finding.victims), finding.confidence) == (1, "likely")  # it is younger than a slow reaper's pause
        assert {cure.place for cure in finding.cures} >= {"docker", "compose", "kubernetes", "podman", "node"}


def test_03_a_probe_that_was_killed_from_the_top(tmp_path: Path) -> None:
    curl = shutil.copy("/bin/sleep", tmp_path / "curl")
    script = f"""
check = subprocess.Popen(["sh", "-c", "{curl} 1000; :"], start_new_session=True)
say("ready"); check.wait(); say("killed"); hear()
"""
    with Scene(script) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("curl"))
        scene.kill("sh")
        scene.expect("killed")
        scene.kill("curl")
        check(scene.diagnose(), "probe-timed-out", culprit=python(), confidence="likely")


def test_04_an_exec_whose_output_a_sibling_holds() -> None:
    script = """
named("containerd-shim")
container = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "1000"])
ours, theirs = os.pipe()
while not (inner := open(f"/proc/{container.pid}/task/{container.pid}/children").read().split()): pass
while open(f"/proc/{inner[0]}/comm").read() != "sleep\\n": pass
fd = os.open(f"/proc/{inner[0]}/ns/pid", os.O_RDONLY)
libc.setns(fd, 0x20000000)
def executed():
    os.setsid(); os.dup2(theirs, 1); os.dup2(theirs, 2)
    os.execvp("sh", ["sh", "-c", "tail -f /dev/null & exit 0"])
pid = child(executed)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        finding = check(scene.until(lambda f: "tail" in str(f)), "exec-stdio-held", culprit="containerd-shim")
        assert "which tail[" in finding.what
        assert "Never kill a shim" in finding.remedy


def test_04_seen_from_inside_the_shim_is_outside() -> None:
    """In the container, nothing but that the parent is outside can be seen: the pipe's other end is not."""
    program = f"""
import os, sys, json
sys.path.insert(0, {str(Path(proc.__file__).parent.parent.parent)!r})
print("ready", flush=True)
sys.stdin.readline()
from sexton.doctor.diagnosis import diagnose
from sexton.doctor.look import collect
evidence = collect(settle=0)
print(" ".join(sorted(f.rule for f in diagnose(evidence))), flush=True)
sys.stdin.readline()
"""
    inside = [sys.executable, "-I", "-c", program]
    script = f"""
INSIDE = {inside!r}
container = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *INSIDE])
while not (inner := open(f"/proc/{{container.pid}}/task/{{container.pid}}/children").read().split()): pass
libc.setns(os.open(f"/proc/{{inner[0]}}/ns/pid", os.O_RDONLY), 0x20000000)
pid = child(lambda: os.setsid())
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
say("dead"); signal.pause()
"""
    with Scene(script, *INIT) as scene:
        words = {scene.line(), scene.line()}
        assert words == {"ready", "dead"}
        scene.tell()
        scene.expect("exec-stdio-held slow-stop")


def test_05_the_first_thread_has_ended_and_others_live() -> None:
    script = """
def body():
    named("leader")
    def live():
        while " Z " not in open(f"/proc/{os.getpid()}/stat").read(): os.sched_yield()
        say("ready"); threading.Event().wait()
    threading.Thread(target=live).start()
    libc.syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
child(body); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        finding = check(scene.diagnose(), "leader-exited", culprit="leader")
        assert finding.victims == (finding.culprit,)
        assert "1 of its threads live on" in finding.what


def test_06_a_tracer_holds_the_dead() -> None:
    script = """
ours, theirs = os.pipe()
def parent():
    os.write(theirs, b"%d\\n" % child(sleeper)); named("parent"); rest()
child(parent)
victim = int(os.read(ours, 100))
assert libc.ptrace(0x4206, victim, 0, 0) == 0
named("tracer"); say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        finding = check(scene.diagnose(), "traced", culprit="tracer")
        assert "TracerPid" in str(finding.facts)


def test_07_a_clone_without_sigchld() -> None:
    script = """
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
if libc.syscall(clone, 0, 0, 0, 0, 0) == 0: sleeper()
named("culprit"); say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        check(scene.diagnose(), "exit-signal", culprit="culprit")


STOPPED = """
ours, theirs = os.pipe()
def parent():
    signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, 0))
    child(sleeper); named("parent"); os.write(theirs, b"x"); rest()
pid = child(parent); os.read(ours, 1)
"""


def test_08_a_stopped_parent() -> None:
    script = STOPPED + "os.kill(pid, signal.SIGSTOP); os.waitpid(pid, os.WUNTRACED); say('ready'); hear()"
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        hazard = scene.diagnose()["parent-cannot-run"]
        assert hazard.severity == "hazard"
        scene.kill("victim")
        finding = check(scene.diagnose(), "parent-cannot-run", culprit="parent")
        assert finding.severity == "problem"
        assert "stopped by a signal" in finding.what
        cure = next(c for c in finding.cures if "CONT" in c.commands)
        subprocess.run(["sh", "-c", cure.commands], check=True, timeout=DEADLINE)
        scene.until(lambda found: not found)


@pytest.mark.parametrize("cgroup", ["freezer"], indirect=True)
def test_08_a_frozen_parent(cgroup: Path) -> None:
    with Scene(STOPPED + "say('ready'); hear()", *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        (parent,) = scene.named("parent")
        (cgroup / "cgroup.procs").write_text(str(parent.pid))
        (cgroup / "freezer.state").write_text("FROZEN")
        try:
            scene.kill("victim")
            finding = check(scene.diagnose(), "parent-cannot-run", culprit="parent")
            assert f"frozen by its cgroup {cgroup}" in finding.what
            thaw = next(c for c in finding.cures if "THAWED" in c.commands)
            assert f"echo THAWED > {cgroup}/freezer.state" in thaw.commands
        finally:
            (cgroup / "freezer.state").write_text("THAWED")
        scene.until(lambda found: not found)


def test_09_a_sigchld_that_was_merged() -> None:
    script = """
for _ in range(3): child(sleeper)
signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, 0))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
named("culprit"); say("ready"); hear()
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
say("handled")
while True: hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: len(scene.named("victim")) == 3)
        scene.kill("victim")
        assert (
            "SIGCHLD blocked"
            in check(scene.diagnose(), "sigchld-lost", culprit="culprit", victims=3, confidence="likely").what
        )
        scene.tell()
        scene.expect("handled")
        finding = check(scene.diagnose(), "sigchld-lost", culprit="culprit", victims=2, confidence="possible")
        nudge = next(cure for cure in finding.cures if cure.place == "host")
        subprocess.run(["sh", "-c", nudge.commands], check=True, timeout=DEADLINE)
        scene.until(lambda found: len(found["sigchld-lost"].victims) == 1)


def test_10_job_and_exec_app() -> None:
    script = "named('app'); say('ready'); hear()"
    with Scene(
        script, "tini", "--", "env", "-u", "SHLVL", "bash", "-c", 'sleep 1000 & exec "$@"', "bash", "{python}"
    ) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("sleep"))
        scene.kill("sleep")
        finding = check(scene.diagnose(), "exec-inherited", culprit="app", confidence="likely")
        assert "and not of tini[" in finding.what


def test_11_sigchld_ignored_too_late() -> None:
    script = """
child(sleeper); named("culprit"); say("ready"); hear()
signal.signal(signal.SIGCHLD, signal.SIG_IGN); say("ignored"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        scene.tell()
        scene.expect("ignored")
        check(scene.diagnose(), "sigchld-ignored", culprit="culprit")


def test_11_sigchld_ignored_by_inheritance() -> None:
    script = "child(sleeper); say('ready'); hear()"
    with Scene(script, "tini", "--", "env", "--ignore-signal=CHLD", "{python}") as scene:
        scene.expect("ready")
        finding = check(scene.diagnose(), "sigchld-ignored", culprit=python(), victims=0, confidence="likely")
        assert finding.severity == "hazard"
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        assert not scene.look().zombies
