"""The rules as a table: complete, documented, pure; and what the kernel here cannot be made to do."""

from __future__ import annotations

import ast
import inspect
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sexton import proc
from sexton.doctor import model
from sexton.doctor.diagnosis import diagnose
from sexton.doctor.evidence import HOST_NAMESPACE, Evidence, Facts, Wait
from sexton.doctor.pages import pages
from sexton.doctor.rules import BY_ID, ORDER
from tests.support.lines import DEADLINE

CHECKOUT = Path(__file__).parent.parent.parent
PLACES = {"docker", "compose", "kubernetes", "podman", "systemd", "python", "node", "go", "java", "shell"}


def test_there_is_a_rule_for_each_row() -> None:
    numbers = sorted(rule.number for rule in ORDER)
    assert numbers == list(range(1, 19))
    assert len(BY_ID) == len(ORDER)


@pytest.mark.parametrize("rule", ORDER, ids=lambda rule: rule.id)
def test_each_rule_says_all_that_it_must(rule: model.Rule) -> None:
    assert rule.title
    assert rule.cause.endswith(".")
    assert rule.reads
    assert rule.cures
    for cure in rule.cures:
        assert cure.commands
        assert cure.what
        assert cure.risk.endswith(".")


def test_every_place_has_a_cure() -> None:
    assert {cure.place for rule in ORDER for cure in rule.cures} >= PLACES


@pytest.mark.parametrize("rule", ORDER, ids=lambda rule: rule.id)
def test_a_rule_is_a_pure_function_in_a_file_of_its_own(rule: model.Rule) -> None:
    """It imports no module that looks or acts; os only for a constant of the machine."""
    source = inspect.getsource(inspect.getmodule(rule.examine) or model)
    tree = ast.parse(source)
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {
        "__future__", "collections.abc", "os", "typing", "sexton.proc", "sexton.doctor.evidence", "sexton.doctor.model",
        "sexton.doctor.remedies", "sexton.doctor.rules._tools",
    }  # fmt: skip
    taken = {
        a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "sexton.proc" for a in n.names
    }
    assert taken <= {"Process", "Level", "PF_EXITING", "adopted", "has", "printable"}
    of_os = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "os"
    }
    assert of_os <= {"sysconf"}
    empty = Evidence(proc.Snapshot({}), frozenset())
    assert list(rule.examine(empty, ())) == []


def test_the_pages_are_current() -> None:
    directory = CHECKOUT / "docs" / "doctor"
    for name, text in pages().items():
        assert (directory / name).read_text() == text, f"run `python -m sexton.doctor.pages docs/doctor` for {name}"


def process(pid: int, comm: str, *, ppid: int = 1, state: str = "S", **more: int) -> proc.Process:
    """A process that never was."""
    values = {"pgid": pid, "sid": pid, "threads": 1, "start": 100, "flags": 0, "exit_signal": 17, "rss": 0, **more}
    return proc.Process(pid=pid, ppid=ppid, state=state, comm=comm, **values)


def evidence(*known: Facts, levels: tuple[proc.Level, ...] = (), uptime: float = 1000.0) -> Evidence:
    """The evidence that these facts make."""
    at = proc.Snapshot({facts.process.pid: facts.process for facts in known}, uptime=uptime)
    return Evidence(
        at=at,
        scope=frozenset(at.processes),
        zombies=at.zombies(),
        stuck=tuple(p for p in at if p.state == "D"),
        people={facts.process.pid: facts for facts in known},
        containers={},
        levels=levels,
    )


def status(pid: int, *inner: int, caught: int = 0, blocked: int = 0) -> proc.Status:
    """A status with nothing in it but the pids and masks."""
    return proc.Status(
        pid, pid, 0, 0, 0, 0, 0, 0, (pid, *inner), (), (), 0, 0, blocked, 0, caught, 0,
        no_new_privs=False, seccomp=0, threads=1, rss=0, swap=0,
    )  # fmt: skip


INIT = Facts(process(1, "tini", ppid=0), status(1), namespace=5, runtime="init")


@pytest.mark.parametrize(("uptime", "confidence"), [(1000.0, "certain"), (3.0, "likely")])
def test_01_and_02_are_certain_when_no_slow_reaper_can_still_come(uptime: float, confidence: str) -> None:
    for caught, runtime, rule in ((0, "python", "pid1-does-not-reap"), (0x10000, "node", "pid1-waits-for-its-own")):
        first = Facts(process(1, "app", ppid=0), status(1, caught=caught | 0x4000), namespace=5, runtime=runtime)
        zombie = Facts(process(8, "x", ppid=1, sid=6, state="Z"))
        (finding,) = diagnose(evidence(first, zombie, uptime=uptime))
        assert (finding.rule, finding.confidence) == (rule, confidence)


def test_10_without_the_sign_of_bash_only_an_old_program_is_blamed() -> None:
    app = Facts(process(7, "app"), status(7), runtime="node")
    zombie = Facts(process(8, "job", ppid=7, state="Z", start=150))
    assert [f.rule for f in diagnose(evidence(INIT, app, zombie))] == ["exec-inherited"]
    assert [f.rule for f in diagnose(evidence(INIT, app, zombie, uptime=30.0))] == ["never-waits"]
    late = Facts(process(9, "job", ppid=7, state="Z", start=99999))
    assert [f.rule for f in diagnose(evidence(INIT, app, zombie, late))] == ["never-waits"]


@pytest.mark.parametrize(
    ("wchan", "stack", "what"),
    [
        ("rpc_wait_bit_killable", (), "an NFS server"),
        ("folio_wait_bit_common", ("[<0>] folio_wait_bit_common+0x1/0x2", "[<0>] ext4_x+0x1/0x2"), "storage"),
        ("request_wait_answer", ("[<0>] fuse_simple_request+0x1/0x2",), "the program behind a FUSE file system"),
        ("", (), ""),
    ],
)
def test_14_what_this_kernel_cannot_be_made_to_wait_for(wchan: str, stack: tuple[str, ...], what: str) -> None:
    """A fixture stands in for dead file servers and disks."""
    known = Facts(process(7, "cp", state="D"), status(7), wchan=wchan, stack=stack)
    (finding,) = diagnose(evidence(INIT, known))
    assert finding.rule == "uninterruptible"
    assert what in finding.what
    assert finding.confidence == ("certain" if what else "likely")


def test_13_a_member_in_state_d_keeps_its_namespace() -> None:
    """A fixture: what hangs here for good would outlive the test."""
    init = Facts(process(5, "sh", ppid=2, flags=proc.PF_EXITING), status(5, 1), namespace=77)
    hanging = Facts(process(6, "cp", ppid=5, state="D"), status(6, 2), namespace=77)
    seen = evidence(INIT, init, hanging)._replace(dying=(init.process,))
    found = {f.rule: f for f in diagnose(seen)}
    assert "cp[6] in it cannot be killed" in found["namespace-stuck"].what
    assert found["namespace-stuck"].confidence == "certain"


@pytest.mark.parametrize(
    ("used", "refused", "severity"),
    [(79, 0, ""), (80, 0, "hazard"), (95, 0, "problem"), (10, 3, "hazard"), (85, 1, "problem")],
)
@pytest.mark.parametrize("kind", ["pids.max", "RLIMIT_NPROC", "threads-max", "pid_max"])
def test_15_thresholds_at_every_level(kind: str, used: int, refused: int, severity: str) -> None:
    level = proc.Level(kind, "/somewhere", used, 100, refused, 0)
    found = diagnose(evidence(INIT, levels=(level,)))
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert all(kind in f.what and "/somewhere" in f.what for f in found)


def test_15_the_culprit_is_who_has_the_zombies() -> None:
    parent = Facts(process(7, "node"), status(7), runtime="node")
    dead = [Facts(process(pid, "chrome", ppid=7, state="Z", start=99999)) for pid in range(10, 60)]
    level = proc.Level("pids.max", "/cg", 96, 100, 0, 50)
    found = {f.rule: f for f in diagnose(evidence(INIT, parent, *dead, levels=(level,)))}
    culprit = found["pid-headroom"].culprit
    assert culprit is not None
    assert culprit.name == "node[7]"
    assert "chrome x 50" in found["pid-headroom"].remedy


def test_16_the_machines_own_init_is_let_be() -> None:
    machine = Facts(process(1, "custom-init", ppid=0), status(1), namespace=HOST_NAMESPACE)
    assert diagnose(evidence(machine)) == ()
    inner = Facts(process(9, "sleep", ppid=1), status(9, 1), namespace=77)
    assert [f.rule for f in diagnose(evidence(machine, inner))] == ["slow-stop"]


MASKS = st.integers(0, 2**64 - 1)


@st.composite
def families(draw: st.DrawFn) -> Evidence:
    """Any processes at all, of which anything may have been read."""
    pids = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True))
    known, briefs = {}, {}
    everyone = {}
    for pid in pids:
        everyone[pid] = process(
            pid,
            draw(st.sampled_from(["sh", "node", "tini", "containerd-shim", "curl", "\udcff", "x)"])),
            ppid=draw(st.sampled_from([0, *pids])),
            state=draw(st.sampled_from("RSDZTtI")),
            sid=draw(st.sampled_from([0, *pids])),
            threads=draw(st.integers(1, 3)),
            start=draw(st.integers(0, 10**6)),
            flags=draw(st.sampled_from([0, proc.PF_EXITING, proc.PF_KTHREAD])),
            exit_signal=draw(st.sampled_from([17, 0, -1])),
        )
        if draw(st.booleans()):
            known[pid] = Facts(
                everyone[pid],
                draw(st.none() | st.builds(status, st.just(pid), st.integers(1, 2), caught=MASKS, blocked=MASKS)),
                namespace=draw(st.integers(0, 2)),
                wchan=draw(st.sampled_from(["", "zap_pid_ns_processes", "ext4_x"])),
                frozen=draw(st.sampled_from(["", "/cg"])),
                runtime=draw(st.sampled_from(["", "init", "shell", "node", "shim"])),
                waits=draw(st.sampled_from([(), (Wait(1, any_child=True, pid=0), Wait(2, any_child=False, pid=3))])),
                stdio=draw(st.sampled_from([(), ("", "pipe:[1]", "")])),
            )
        if draw(st.booleans()):
            briefs[pid] = proc.Brief(0, draw(st.sampled_from([0, *pids])), draw(st.integers(1, 3)), 0, draw(MASKS))
    at = proc.Snapshot(everyone, uptime=draw(st.floats(0, 1e5)))
    scope = frozenset(draw(st.sets(st.sampled_from(pids))))
    zombies = tuple(p for p in at.zombies() if p.pid in scope)
    stuck = tuple(p for p in at if p.state == "D")
    dying = tuple(p for p in at if p.flags & proc.PF_EXITING and not p.zombie)
    return Evidence(at, scope, zombies=zombies, stuck=stuck, dying=dying, briefs=briefs, people=known)


@given(families())
def test_every_zombie_with_a_parent_that_is_known_is_explained_once(seen: Evidence) -> None:
    """Whatever was seen, the rules do not fail, and none takes what another one has explained."""
    found = diagnose(seen)
    explained = [victim.pid for finding in found for victim in finding.victims if victim.zombie]
    assert len(explained) == len(set(explained))
    assert {z.pid for z in seen.zombies if z.ppid in seen.people} <= set(explained)
    assert set(explained) <= {zombie.pid for zombie in seen.zombies}
    for finding in found:
        assert finding.what.isprintable()
        assert finding.facts
        assert finding.cures


def test_cures_are_filled_in_and_those_that_fit_come_first() -> None:
    box = proc.Container("0123456789abcdef" * 4, "docker", "")
    parent = Facts(process(7, "app", ppid=0), status(7, 1), namespace=5, container=box, runtime="python")
    zombie = Facts(process(8, "x", ppid=7, state="Z"))
    finding = next(f for f in diagnose(evidence(parent, zombie)) if f.rule == "pid1-does-not-reap")
    first = [cure.place for cure in finding.cures]
    assert set(first[:5]) == {"sexton", "docker", "compose", "python"}
    assert "docker restart 0123456789ab" in [cure.commands for cure in finding.cures]
    assert not any("{" + name in c.commands + c.risk for c in finding.cures for name in ("pid}", "name}", "container}"))


CURES = [(rule.id, cure) for rule in ORDER for cure in rule.cures]


@pytest.mark.parametrize("cure", dict.fromkeys(cure for _, cure in CURES if cure.place == "python"), ids=str)
def test_python_to_paste_is_python(cure: model.Cure) -> None:
    ast.parse(cure.commands)


@pytest.mark.parametrize("cure", dict.fromkeys(cure for _, cure in CURES if cure.place == "node"), ids=str)
def test_javascript_to_paste_is_javascript(cure: model.Cure, tmp_path: Path) -> None:
    script = tmp_path / "cure.js"
    script.write_text(cure.commands)
    subprocess.run(["node", "--check", script], check=True, timeout=DEADLINE)


SHELLED = {"sexton", "host", "shell", "podman"}


@pytest.mark.parametrize("cure", dict.fromkeys(cure for _, cure in CURES if cure.place in SHELLED), ids=str)
def test_commands_to_paste_are_a_shell_s(cure: model.Cure) -> None:
    words = {"{pid}": "1", "{victim}": "2", "{container}": "c", "{where}": "/cg", "{name}": "x[1]"}
    text = cure.commands
    for name, value in words.items():
        text = text.replace(name, value)
    if not text.startswith("command:"):
        subprocess.run(["bash", "-n", "-c", text], check=True, timeout=DEADLINE)


def test_sexton_s_own_commands_have_these_options() -> None:
    from click.testing import CliRunner

    from sexton.cli._group import sexton

    lines = {line for _, cure in CURES if cure.place == "sexton" for line in cure.commands.split("\n")}
    assert lines
    for line in lines:
        _, command, *words = line.partition("#")[0].replace("{pid}", "1").replace("{victim}", "2").split()
        done = CliRunner().invoke(sexton, [command, *words, "--help"])
        assert done.exit_code == 0, done.output
        options = [word for word in words if word.startswith("--")]
        assert all(option in done.output for option in options)
