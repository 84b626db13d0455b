"""`sexton doctor` as a person and a program call it: exit codes, JSON, scopes, blind spots, watching."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from sexton import proc
from tests.doctor.scene import INIT, SEXTON, Scene
from tests.proc.fixture import Tree
from tests.support.lines import DEADLINE

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ZOMBIE = "child(sleeper); named('culprit'); say('ready'); hear(); os.wait(); say('reaped'); hear()"
CHECKOUT = Path(__file__).parent.parent.parent


def sexton(*words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """One command, as a shell runs it without a terminal."""
    argv = [*before, sys.executable, "-I", "-c", SEXTON, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)


def document(*words: str, code: int, before: tuple[str, ...] = ()) -> dict[str, Any]:
    done = sexton("doctor", "--json", *words, before=before)
    assert (done.returncode, done.stderr) == (code, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_health_and_findings_are_the_exit_code() -> None:
    with Scene(ZOMBIE, *INIT) as scene:
        scene.expect("ready")
        healthy = sexton("doctor", "--pid", scene.first)
        assert healthy.returncode == 0, healthy.stdout
        assert healthy.stdout.startswith("Healthy: ")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        sick = sexton("doctor", "--pid", scene.first)
        assert sick.returncode == 1
        assert sexton("doctor", scene.first).stdout.splitlines()[0] == sick.stdout.splitlines()[0]
        (culprit,) = scene.named("culprit")
        assert f"{culprit.name} started 1 zombie (victim[" in sick.stdout
        assert f"sexton reap --parent {culprit.pid}" in sick.stdout
        assert "\x1b" not in sick.stdout
        everything = sexton("doctor", "--all")
        assert everything.returncode == 1
        assert culprit.name in everything.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pid", "999999999"), "no process 999999999"),
        (("--container", "feedbeef"), "no container or pod is called 'feedbeef'"),
        (("--pid", "1", "--all"), "exclude one another"),
        (("1", "--pid", "1"), "exclude one another"),
        (("999999999",), "no container or pod is called '999999999'"),
        (("9999999",), "no process 9999999"),
        (("--pid", "x"), "not a valid integer"),
    ],
)
def test_what_cannot_be_looked_at_is_exit_2(words: tuple[str, ...], said: str) -> None:
    done = sexton("doctor", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_proc_it_is_exit_2() -> None:
    hide = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && "$@"', "sh")
    done = sexton("doctor", before=hide)
    assert done.returncode == 2
    assert "is /proc mounted there?" in done.stderr


def test_a_zombie_that_is_reaped_at_once_is_no_finding() -> None:
    """It is there at the first look and gone at the second, which is what settling is for."""
    script = "pid = child(sleeper); named('parent'); say('ready'); hear(); os.waitpid(pid, 0); say('reaped'); hear()"
    with Scene(script, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        from sexton.doctor.look import collect

        def meanwhile(_: float) -> None:
            scene.tell()
            scene.expect("reaped")

        first = scene.all()[0].pid
        evidence = collect(choose=lambda at, _: {p.pid for p in at.descendants(first)}, settle=60, pause=meanwhile)
        assert [p.comm for p in evidence.at.zombies() if p.pid in evidence.scope] == ["victim"]
        assert evidence.zombies == ()


def test_json_has_the_keys_that_its_page_names() -> None:
    with Scene(ZOMBIE, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        found = document("--pid", scene.first, code=1)
    page = (CHECKOUT / "docs" / "doctor" / "json.md").read_text()

    def keys(value: object, path: str) -> set[str]:
        if isinstance(value, dict) and path != "states":
            return {f"{path}.{key}".lstrip(".") for key in value} | {
                found for key, inner in value.items() for found in keys(inner, f"{path}.{key}".lstrip("."))
            }
        if isinstance(value, list) and value:
            return keys(value[0], f"{path}[]")
        return set()

    seen = keys(found, "")
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert seen <= documented
    container = {"findings[].container.id", "findings[].container.engine", "findings[].container.pod"}
    assert documented - seen <= container | {"not_seen[]"}


def test_from_inside_of_a_container() -> None:
    """PID 1 of a namespace runs the doctor on itself and its neighbours."""
    program = [sys.executable, "-I", "-c", SEXTON, "doctor", "--json"]
    script = f"""
os.waitpid(child(lambda: child(lambda: None)), 0)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
done = subprocess.run({program!r}, stdout=subprocess.PIPE)
import json
found = json.loads(done.stdout)
say(" ".join(f["rule"] for f in found["findings"]) + f" {{done.returncode}} {{found['findings'][0]['culprit']['pid']}}")
hear()
"""
    with Scene(script) as scene:
        scene.expect("pid1-does-not-reap slow-stop 1 1")


def test_from_a_sidecar_that_shares_the_pid_namespace() -> None:
    """Another mount and cgroup namespace, another user, the same PIDs: as `shareProcessNamespace: true`
    gives.
    """
    with Scene(ZOMBIE, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        scene.kill("victim")
        enter = (
            "nsenter",
            "--target",
            scene.first,
            "--pid",
            "--mount",
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            *NOBODY,
        )
        found = document(code=1, before=enter)
        (finding,) = [f for f in found["findings"] if f["victims"]]
        assert (finding["rule"], finding["culprit"]["name"]) == ("never-waits", "culprit")
        said = " ".join(found["not_seen"])
        assert "CAP_SYS_PTRACE" in said
        assert "culprit[" in said
        assert "Not run as root" in said


def test_the_cause_of_a_hidden_machine_is_said() -> None:
    """hidepid: nobody sees its own processes, and is told that the others are hidden."""
    script = f'mount -t proc -o hidepid=invisible proc /proc; {" ".join(NOBODY)} "$@"; exit'
    found = document(code=0, before=("unshare", "--pid", "--fork", "--mount", "sh", "-c", script, "sh"))
    assert "hidepid=invisible" in " ".join(found["not_seen"])
    assert found["processes"] == 1


def test_a_container_is_chosen_by_its_id(tmp_path: Path) -> None:
    """On a fixture tree: two containers, one of them sick."""
    from sexton.cli._scope import of_container
    from sexton.doctor.diagnosis import diagnose
    from sexton.doctor.look import collect

    one, two = "a1" * 32, "a2" * 32
    tree = Tree(tmp_path / "proc")
    for pid, box in ((10, one), (20, two)):
        tree.add(pid, b"app", nspid=f"{pid}\t1", caught=0x4000, cgroup=f"0::/docker/{box}\n")
        tree.add(pid + 1, b"sh", ppid=pid, state="Z", cgroup=f"0::/docker/{box}\n")
    for name, pids in (("a1", [11]), (two, [21])):
        evidence = collect(tree.root, lambda at, known, name=name: of_container(at, known, name), settle=0)  # type: ignore[misc]  # a default binds the loop's name
        found = diagnose(evidence)
        assert [v.pid for f in found for v in f.victims] == pids
        assert found[0].container == proc.Container(one if name == "a1" else two, "docker", "")


class Watching:
    """`sexton doctor --watch`, line by line."""

    def __init__(self, *words: str, before: tuple[str, ...] = ()) -> None:
        argv = [*before, sys.executable, "-I", "-u", "-c", SEXTON, "doctor", "--watch", *words]
        self.popen = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in proc.snapshot().children(self.popen.pid):  # nsenter has forked into the namespace
            os.kill(child.pid, signal.SIGKILL)
        self.popen.kill()
        self.popen.communicate(timeout=DEADLINE)

    def until(self, word: str, *, err: bool = False) -> str:
        stream = self.popen.stderr if err else self.popen.stdout
        assert stream is not None
        data = b""
        while word.encode() not in data:
            readable, _, _ = select.select([stream], [], [], DEADLINE)
            assert readable, f"no {word!r} in {data!r}"
            more = os.read(stream.fileno(), 1 << 16)
            assert more, f"it ended without {word!r}: {data!r}"
            data += more
        return data.decode()


@pytest.mark.parametrize("inside", [False, True], ids=["host", "container"])
def test_watching_tells_of_a_new_zombie(inside: bool) -> None:
    """On the host the kernel tells of every end; in a PID namespace it does not, and pidfds stand in."""
    with Scene(ZOMBIE, *INIT) as scene:
        scene.expect("ready")
        scene.until(lambda _: scene.named("victim"))
        enter = ("nsenter", "--target", scene.first, "--pid", "--mount", *NOBODY) if inside else ()
        with Watching(*(() if inside else ("--pid", scene.first)), before=enter) as watching:
            watching.until("Healthy")
            watching.until("by a pidfd" if inside else "proc connector", err=True)
            scene.kill("victim")
            text = watching.until("1 problem")
            assert "never-waits" in text
            scene.tell()
            scene.expect("reaped")


def test_watching_sleeps_when_nothing_happens() -> None:
    """In a namespace of three sleepers it is in poll without a timeout, and is not woken."""
    with Scene(ZOMBIE, *INIT) as scene:
        scene.expect("ready")
        enter = ("nsenter", "--target", scene.first, "--pid", "--mount")
        with Watching(before=enter) as watching:
            watching.until("by a pidfd", err=True)
            children = proc.snapshot().children(watching.popen.pid)  # nsenter forks into the namespace
            pid = children[0].pid
            call = proc.syscall(pid)
            while not isinstance(call, proc.Missing) and call.number == -2:
                call = proc.syscall(pid)
            assert isinstance(call, proc.Syscall)
            assert call.number in {7, 73, 271}  # poll, or ppoll on either machine
            timeout = call.args[2] & 0xFFFFFFFF
            assert timeout == (0xFFFFFFFF if call.number == 7 else 0)
