"""Rows 12 to 16 of the table of causes, and two more, made of real processes; and that health is no finding."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sexton.doctor.diagnosis import diagnose
from sexton.doctor.model import Finding
from tests.doctor.scene import INIT, Scene, check, python
from tests.doctor.test_command import document


def test_12_a_thread_that_steals_statuses() -> None:
    script = """
mine = child(sleeper)
threading.Thread(target=os.waitpid, args=(-1, 0), daemon=True).start()
threading.Thread(target=os.waitpid, args=(mine, 0), daemon=True).start()
named("culprit"); say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        found = scene.until(lambda found: "statuses-stolen" in found and scene.named("victim"))
        finding = check(scene.diagnose(), "statuses-stolen", culprit="culprit", victims=0)
        assert found
        assert finding.severity == "hazard"
        assert "victim[" in finding.what


def test_13_a_namespace_that_cannot_end() -> None:
    script = """
container = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "tail", "-f", "/dev/null"])
while not (inner := open(f"/proc/{container.pid}/task/{container.pid}/children").read().split()): pass
while open(f"/proc/{inner[0]}/comm").read() != "tail\\n": pass
libc.setns(os.open(f"/proc/{inner[0]}/ns/pid", os.O_RDONLY), 0x20000000)
child(sleeper); named("outside"); say("ready"); hear()
os.kill(int(inner[0]), signal.SIGKILL); say("killed"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.tell()
        scene.expect("killed")
        finding = check(scene.until(lambda f: "outside" in str(f)), "namespace-stuck", culprit="outside")
        assert "it waits for its namespace to empty" in str(finding.facts)
        assert "tail[" in finding.what


def test_14_a_process_in_an_uninterruptible_sleep() -> None:
    """A parent whose vfork child neither execs nor ends is in D, as for a dead file server, but for as
    long as we like.
    """
    script = """
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
def parent():
    named("hanging")
    if libc.syscall(clone, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0: sleeper()
    rest()
child(parent); say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        finding = check(scene.until(lambda f: "uninterruptible" in f), "uninterruptible", culprit="hanging", victims=0)
        assert "vfork child" in finding.what


def test_14_a_file_system_whose_program_does_not_answer() -> None:
    """A FUSE file system: who was interrupted once in its wait for an answer is in D, like for a dead file server."""
    script = """
import struct
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
assert libc.mount(b"dead", b"/mnt", b"fuse", 0, options.encode()) == 0, os.strerror(ctypes.get_errno())
def request():  # fuse_in_header: its opcode, and the number to answer to
    return struct.unpack_from("<4xIQ", os.read(device, 1 << 18))
opcode, number = request()
assert opcode == 26  # FUSE_INIT
os.write(device, struct.pack("<IiQ IIII HHIIHH 32x", 80, 0, number, 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0))
def reader():
    os.close(device)  # so that the end of this program ends the wait; SIGKILL does not
    signal.signal(signal.SIGUSR1, lambda *_: None); named("reader"); os.stat("/mnt/file")
pid = child(reader)
assert request()[0] == 1  # FUSE_LOOKUP, which gets no answer
os.kill(pid, signal.SIGUSR1)
assert request()[0] == 36  # FUSE_INTERRUPT, which need not have any
say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        finding = check(scene.until(lambda f: "uninterruptible" in f), "uninterruptible", culprit="reader", victims=0)
        assert "the program behind a FUSE file system" in finding.what


@pytest.mark.parametrize("cgroup", ["pids"], indirect=True)
def test_15_no_pids_left_in_a_cgroup_above(cgroup: Path) -> None:
    script = """
hear()
pids = []
try:
    while True: pids.append(child(lambda: None))
except BlockingIOError: pass
for pid in pids: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
named("culprit"); say("full"); hear()
"""
    with Scene(script, *INIT) as scene:
        inner = cgroup / "inner"
        inner.mkdir()
        (cgroup / "pids.max").write_text("12")
        scene.until(lambda _: scene.named("tini") and len(scene.all()) == 2)
        for process in scene.all():
            (inner / "cgroup.procs").write_text(str(process.pid))
        scene.tell()
        scene.expect("full")
        found = scene.diagnose()
        finding = found["pid-headroom"]
        assert finding.severity == "problem"
        assert (
            f"pids.max of {cgroup}: 12 of 12 tasks are used, 10 of them zombies; fork was refused 1 times"
            in finding.what
        )
        assert finding.culprit is not None
        assert finding.culprit.comm == "culprit"
        assert "pids.events" in str(finding.facts)


def test_15_no_processes_left_for_a_user() -> None:
    script = """
import resource
os.setgroups([]); os.setgid(64123); os.setuid(64123)
resource.setrlimit(resource.RLIMIT_NPROC, (8, 8))
try:
    while True: child(sleeper)
except BlockingIOError: say("full")
hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("full")
        finding = scene.diagnose()["pid-headroom"]
        assert "RLIMIT_NPROC of user 64123" in finding.what
        assert "8 of 8 tasks" in finding.what


def test_15_no_pids_left_in_a_namespace() -> None:
    """pid_max is of the PID namespace from Linux 6.14 on; as seen by a doctor inside."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14):
        pytest.skip("before Linux 6.14 there is one pid_max, that of the whole machine")
    script = """
open("/proc/sys/kernel/pid_max", "w").write("310")
named("culprit")
for _ in range(270): os.waitid(os.P_PID, child(lambda: None), os.WEXITED | os.WNOWAIT)
say("ready"); hear()
"""
    own = Path("/proc/sys/kernel/pid_max").read_text()
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        pid = str(scene.all()[0].pid)
        found = document(code=1, before=("nsenter", "--target", pid, "--pid", "--mount"))
        [finding] = [one for one in found["findings"] if one["rule"] == "pid-headroom"]
        assert (finding["severity"], finding["culprit"]["name"]) == ("hazard", "culprit")
        assert "pid_max" in finding["what"]
        assert "of 310 tasks are used, 270 of them zombies" in finding["what"]
    assert Path("/proc/sys/kernel/pid_max").read_text() == own


def test_16_a_pid_1_that_does_not_hear_sigterm() -> None:
    with Scene("say('ready'); hear()") as scene:
        scene.expect("ready")
        found = scene.diagnose()
        assert list(found) == ["slow-stop"]
        finding = check(found, "slow-stop", culprit=python(), victims=0)
        assert finding.culprit is not None
        os.kill(finding.culprit.pid, signal.SIGTERM)
        assert list(scene.diagnose()) == ["slow-stop"]  # it is still there: the kernel threw the signal away


def test_17_a_program_that_never_waits() -> None:
    with Scene("child(sleeper); child(sleeper); named('culprit'); say('ready'); hear()", *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: len(scene.named("victim")) == 2)
        scene.kill("victim")
        finding = check(scene.diagnose(), "never-waits", culprit="culprit", victims=2, confidence="likely")
        assert {cure.place for cure in finding.cures} >= {"python", "node", "go", "java", "shell"}


def test_18_leftovers_of_a_parent_that_was_killed() -> None:
    script = """
manager = subprocess.Popen(["sh", "-c", "sleep 1000; :"], start_new_session=True, stdout=subprocess.PIPE)
say("ready"); manager.wait(); say("gone"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("sleep"))
        assert not scene.diagnose()
        scene.kill("sh")
        scene.expect("gone")
        finding = check(scene.diagnose(), "leftovers", culprit="sleep", confidence="likely")
        assert "MiB" in finding.what


# npm runs a script: a shell, which has started a server.
NPM = """
env = {**os.environ, "npm_lifecycle_event": "start"}
def npm():
    named("npm run start"); subprocess.Popen(["sh", "-c", "sleep 1000; :"], env=env); rest()
"""


def left_by_npm(scene: Scene) -> Finding:
    """What there is to say when npm alone has been killed."""
    scene.expect("ready")
    scene.until(lambda _: scene.named("sleep"))
    assert not scene.diagnose()
    scene.kill("npm run start")
    scene.expect("gone")
    finding = check(scene.diagnose(), "leftovers", culprit="sh", victims=2, confidence="likely")
    assert "npm_lifecycle_event=start" in str(finding.facts)
    return finding


def test_18_a_server_that_npm_left_behind() -> None:
    """Incident 1: npm alone was killed; the shell and the server that it had started go to a PID 1 that is
    no init.
    """
    script = f"""{NPM}
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
pid = child(npm); say("ready"); os.waitpid(pid, 0); say("gone"); hear()
"""
    with Scene(script) as scene:
        assert "with 1 descendants" in left_by_npm(scene).what


@pytest.mark.parametrize("init", [(), INIT, ("bash", "-c", '"$@"; exit', "bash", "{python}")], ids=["", "tini", "bash"])
def test_18_incident_1_with_npm_itself(init: tuple[str, ...], tmp_path: Path) -> None:
    """The platform stops npm as it stops any program, and npm's server lives on; seen below three kinds of PID 1."""
    server = "require('net').createServer().listen(0, '127.0.0.1', () => console.log('listening'));"
    (tmp_path / "server.js").write_text(server)
    (tmp_path / "package.json").write_text(
        '{"name": "shop", "version": "1.0.0", "scripts": {"start": "node server.js"}}'
    )
    script = f"""
app = subprocess.Popen(["npm", "run", "start"], cwd={str(tmp_path)!r}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    env={{**os.environ, "npm_config_update_notifier": "false"}}, text=True)
while app.stdout.readline() != "listening\\n": pass
say("ready"); hear(); app.kill(); app.wait(); say("stopped"); hear()
"""
    with Scene(script, *init) as scene:
        scene.expect("ready")
        assert "leftovers" not in scene.diagnose()
        scene.tell()
        scene.expect("stopped")
        finding = scene.diagnose()["leftovers"]
        assert finding.victims
        assert "npm_lifecycle_event=start" in str(finding.facts)
        assert "it holds" in finding.what


# Who gets orphans without being PID 1, and buries them: it starts `platform`, and is called otherwise.
SUBREAPER = """
def bury(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
def heir(name, platform):
    libc.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    signal.signal(signal.SIGCHLD, bury); named(name); child(platform); rest()
"""
HEIRS = ["systemd", "containerd-shim", "conmon", "sexton-init"]


@pytest.mark.parametrize("heir", [*HEIRS, "supervisor"])
def test_18_npm_left_a_server_to_a_subreaper(heir: str) -> None:
    """Incident 1 below any subreaper, one too that is known as such by nothing but its children."""
    script = f"""{SUBREAPER}{NPM}
def platform():
    os.setsid(); named("platform"); signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = child(npm); say("ready"); os.waitpid(pid, 0); say("gone"); rest()
child(heir, {heir!r}, platform)
hear()
"""
    with Scene(script, *INIT) as scene:
        assert f"is now a child of {heir}[" in left_by_npm(scene).what


def test_18_what_npm_started_behind_a_guard_is_no_leftover(sexton_init: Path) -> None:
    """The guard has npm's environment itself, and stands where npm put it."""
    script = f"""
env = {{**os.environ, "npm_lifecycle_event": "start"}}
subprocess.Popen([{str(sexton_init)!r}, "--", "sleep", "1000"], env=env, stdin=subprocess.DEVNULL)
say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("sleep"))
        assert not scene.diagnose()


# `output` is what the server writes to, after it has left the session of whoever started it; `listener` has the rest.
OWN_SESSION = f"""{SUBREAPER}
def listener():
    os.close(output); sleeper("listener")
def server():
    os.setsid(); os.dup2(output, 1); sleeper("server")
def platform():
    signal.signal(signal.SIGCHLD, signal.SIG_DFL); child(server); sleeper("platform")
signal.signal(signal.SIGCHLD, bury)
ear, output = os.{{pair}}()
child(listener); os.close(ear); child(heir, "{{heir}}", platform); os.close(output)
say("ready"); hear()
"""


@pytest.mark.parametrize("heir", HEIRS)
@pytest.mark.parametrize(
    ("pair", "gone"), [("pipe", "who read this has ended"), ("openpty", "its terminal was hung up")]
)
def test_18_a_session_of_its_own_and_nobody_reads_it(heir: str, pair: str, gone: str) -> None:
    script = OWN_SESSION.replace("{pair}", pair).replace("{heir}", heir)
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: all(map(scene.named, ("server", "platform", "listener"))))
        scene.kill("platform")
        scene.until(lambda found: not found and not scene.named("platform"))  # somebody listens
        scene.kill("listener")
        scene.until(lambda _: not scene.named("listener"))
        finding = check(scene.diagnose(), "leftovers", culprit="server", confidence="likely")
        assert gone in str(finding.facts)
        assert f"is now a child of {heir}[" in finding.what


def test_a_healthy_namespace_has_no_finding() -> None:
    """An init, a program that waits for the children it starts all the time, a daemon by the book, a shell
    with a job.
    """
    script = """
def daemon():
    os.setsid()
    if os.fork(): os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3): os.dup2(null, fd)
    sleeper("daemon")
os.waitpid(child(daemon), 0)
shell = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], stdin=subprocess.DEVNULL)
def busy():
    while True: subprocess.run(["true"])
threading.Thread(target=busy, daemon=True).start()
say("ready"); hear()
"""
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("daemon"))
        evidence = scene.look(settle=0.3)
        assert diagnose(evidence) == ()
        assert len(evidence.scope) >= 5
