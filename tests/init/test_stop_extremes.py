"""Stops of trees that fight back: large, deep, ever forking, in another namespace, or entered from outside."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.init.family import ALL_MODES, BESIDE, PID1, Family, Mode, Starter
from tests.init.test_stop import LONG, nothing_left
from tests.support import monsters
from tests.support.lines import DEADLINE
from tests.support.processes import children, stat
from tests.support.running import Place, Proc

KNOWING = [mode for mode in ALL_MODES if mode.place is Place.PID1 or mode.proc is Proc.OWN]


@pytest.fixture(params=KNOWING, ids=str)
def knowing(request: pytest.FixtureRequest) -> Mode:
    """The modes in which everybody can be reached: with /proc, or as PID 1."""
    mode: Mode = request.param
    return mode


def test_1000_processes_half_of_them_setsid(start: Starter, knowing: Mode) -> None:
    family = start(knowing, LONG, "times 500 fork polite", "times 500 fork setsid polite", "await 1000", "exit 3")
    end = family.end()
    assert end.code == 3
    nothing_left(end, 1000)
    assert len(end.got(signal.SIGTERM)) == 1000
    assert set(end.got(signal.SIGTERM).values()) == {1}


def test_1000_stubborn_processes(start: Starter, knowing: Mode) -> None:
    family = start(
        knowing, "--grace 0.3", "times 500 fork stubborn", "times 500 daemon stubborn", "await 1000", "exit 3"
    )
    end = family.end()
    assert end.code == 3
    assert end.left == []
    assert set(end.got(signal.SIGTERM).values()) == {1}
    assert len([event for event in end.of("reaped") if event.get("signal") == "KILL"]) == 1000


@pytest.mark.parametrize("action", ["polite", "stubborn"])
def test_a_chain_of_300(start: Starter, knowing: Mode, action: str) -> None:
    """Every link is the child of the one before: when it dies, the rest hangs on us."""
    family = start(
        knowing, "--grace 0.3" if action == "stubborn" else LONG, f"fork chain 300 {action}", "await 300", "exit 3"
    )
    end = family.end()
    assert end.code == 3
    nothing_left(end, 300)
    assert set(end.got(signal.SIGTERM).values()) == {1}
    assert len(end.got(signal.SIGTERM)) == 300 or action == "stubborn", "some are killed before they say so"


def test_a_chain_that_is_stopped_while_command_lives(start: Starter, placed: Mode) -> None:
    family = start(placed, f"--signal tree {LONG}", "fork chain 300 polite", "await 300", "polite")
    family.await_note("ready", 301)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    nothing_left(end, 300)
    assert list(end.got(signal.SIGTERM).values()) == [1] * 301


@pytest.mark.parametrize("grace", ["0", "0.1"])
def test_a_comet_is_caught(start: Starter, knowing: Mode, grace: str) -> None:
    """A process that is always another one. Bounded: after 20,000 forks it would stay."""
    statements = ["times 3 " + monsters.comet(20_000), "await 3", "exit 3"]
    end = start(knowing, f"--grace {grace}", *statements, report=False).end()
    assert end.code == 3
    assert end.left == []


@pytest.mark.parametrize("grace", ["0", "0.1"])
def test_a_fork_bomb_is_killed(start: Starter, knowing: Mode, grace: str) -> None:
    """Every process forks on while it is killed. Bounded: 3,000 births."""
    end = start(knowing, f"--grace {grace}", monsters.bomb(3000), "await 1", "exit 3", report=False).end()
    assert end.code == 3
    assert end.left == []


def test_processes_of_a_nested_pid_namespace_are_stopped(start: Starter, placed: Mode) -> None:
    """Its init gets the stop signal once, and when that ends, the kernel ends the rest of the namespace."""
    family = start(placed, LONG, "as inner pids polite", "await 1", "exit 3")
    end = family.end()
    assert end.code == 3
    inner = [note for note in end.notes if note.label == "inner" and note.word == "got"]
    assert [note.signal for note in inner] == [signal.SIGTERM]
    assert end.left == []


def test_a_stubborn_nested_pid_namespace_is_killed(start: Starter, knowing: Mode) -> None:
    family = start(knowing, "--grace 0.2", "as inner times 3 pids stubborn", "await 3", "exit 3")
    end = family.end()
    assert end.code == 3
    assert end.left == []


class Visitors:
    """Processes that entered sexton-init's namespace with nsenter: their parents are outside, out of its sight."""

    def __init__(self, family: Family, monster: str, log: str, *statements: str) -> None:
        words = ["nsenter", "--target", str(family.run.init.pid), "--pid", "--", monster, log]
        self.popen = subprocess.Popen([*words, *monsters.join(*statements)], stdin=subprocess.DEVNULL)

    def end(self) -> int:
        return self.popen.wait(DEADLINE)


@pytest.fixture
def log_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("log") / "log")


def visitors(start: Starter, family: Family, log_file: str, *statements: str) -> Visitors:
    return Visitors(family, str(start.monster), log_file, *statements)


def read_log(log_file: str) -> list[monsters.Note]:
    with open(log_file, encoding="utf-8") as log:
        return [monsters.parse(line.rstrip("\n")) for line in log]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("proc", list(Proc), ids=str)
def test_as_pid_1_strangers_in_the_namespace_are_stopped_and_awaited(start: Starter, log_file: str, proc: Proc) -> None:
    family = start(Mode(Place.PID1, proc), LONG, "as main polite")
    family.await_note("ready")
    visit = visitors(start, family, log_file, "fork polite", "fork setsid polite", "await 2", "exit 4")
    assert visit.end() == 4
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    got = [note for note in read_log(log_file) if note.word == "got"]
    assert [note.signal for note in got] == [signal.SIGTERM] * 2


@pytest.mark.usefixtures("root")
def test_as_pid_1_a_stranger_with_its_parent_outside_is_awaited(start: Starter, log_file: str) -> None:
    """It is nobody's child in there: its end comes through no SIGCHLD."""
    family = start(PID1, LONG, "as main polite")
    family.await_note("ready")
    visit = visitors(start, family, log_file, "polite")
    wait_for_log(log_file, "ready")
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert visit.end() == 0, "it ended by the stop signal, not by the kernel's SIGKILL"
    assert [note.signal for note in read_log(log_file) if note.word == "got"] == [signal.SIGTERM]


@pytest.mark.usefixtures("root")
def test_as_pid_1_a_stubborn_stranger_is_killed_after_the_grace_time(start: Starter, log_file: str) -> None:
    family = start(PID1, "--grace 1", "as main polite")
    family.await_note("ready")
    visit = visitors(start, family, log_file, "stubborn")
    wait_for_log(log_file, "ready")
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    assert visit.end() != 0
    assert [note.signal for note in read_log(log_file) if note.word == "got"] == [signal.SIGTERM]
    assert len(end.of("killed")) == 1


@pytest.mark.usefixtures("root")
def test_as_pid_1_on_exit_wait_waits_for_strangers_too(start: Starter, log_file: str) -> None:
    """As PID 1 the tree is everything in the namespace, and our end would be SIGKILL for it."""
    family = start(
        PID1, "--on-exit wait", "hold", "exit 3", stdin=-1, before=["MONSTER", "LOG", "say", "up", ",", "exec"]
    )
    family.await_note("up")
    family.await_event("started")
    visit = visitors(start, family, log_file, "polite")
    wait_for_log(log_file, "ready")
    family.run.tell()
    family.await_event("exited")
    inside = family.run.handle(children(visit.popen.pid)[0])
    inside.send(signal.SIGHUP)
    assert visit.end() == 0, "it ended by itself, not by the kernel's SIGKILL"
    assert family.end().code == 3


@pytest.mark.usefixtures("root")
def test_as_pid_1_a_strangers_zombie_is_not_waited_for(start: Starter, log_file: str) -> None:
    """Its parent is outside and does not reap it: only a parent can, so nothing is left to stop."""
    family = start(PID1, LONG, "as main polite")
    family.await_note("ready")
    visit = visitors(start, family, log_file, "polite")
    wait_for_log(log_file, "ready")
    inside = family.run.handle(children(visit.popen.pid)[0])
    visit.popen.send_signal(signal.SIGSTOP)
    inside.send(signal.SIGTERM)
    inside.wait_dead()
    assert stat(inside.pid).state == "Z"
    family.send(signal.SIGTERM)
    family.await_event("empty")
    # The kernel itself keeps an ending PID 1 until the parents outside have reaped.
    visit.popen.send_signal(signal.SIGCONT)
    visit.end()
    assert family.end().code == 0


def test_beside_processes_of_others_are_let_alone(start: Starter) -> None:
    """Not PID 1: only what descends from COMMAND; a neighbour in the namespace and in the very same session is not."""
    before = ["MONSTER", "LOG", *monsters.join("as neighbour fork stubborn", "await 1", "exec")]
    family = start(BESIDE, "--signal tree --grace 0", "as main fork stubborn", "await 1", "polite", before=before)
    family.await_note("ready", 3)
    family.send(signal.SIGTERM)
    end = family.end()
    assert end.code == 0
    neighbour = next(note.pid for note in end.notes if note.label == "neighbour")
    assert end.left == [], f"{neighbour} is a child of the one that became sexton-init"


def wait_for_log(log_file: str, word: str) -> None:
    """Wait with inotify until the log has a line of that word."""
    wait = ["sh", "-c", 'tail -n +1 -F "$0" 2>/dev/null | grep -q -m1 "^$1 "', log_file, word]
    subprocess.run(wait, check=True, timeout=DEADLINE)
