"""The four policies against orphans, the ledger, and `sexton sweep`: owners are real processes, killed with SIGKILL."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sexton
from sexton.errors import NotOwner, UsageError
from sexton.spawn import _ledger, _owner
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE
from tests.support.monsters import double_forked
from tests.support.processes import Handle

CRASHING = """
import os, pathlib, sys, signal
import sexton
settings = eval(sys.argv[1])
more = eval(sys.argv[2])
owner = sexton.Owner("it", state=pathlib.Path(sys.argv[3]), **settings)
tree = owner.tree(sys.argv[5:], pass_fds=[int(sys.argv[4])], **more)
print(tree.guard, flush=True)
signal.pause()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The directory of the ledgers; a path to a socket in it must be short."""
    return tmp_path


def crash(
    troop: Troop, state: Path, settings: dict[str, Any], more: dict[str, Any], *statements: str
) -> tuple[Handle, Handle]:
    """An owner with a tree is killed; gives the guard, and the first that was ready."""
    words = [sys.executable, "-c", CRASHING, repr(settings), repr(more), str(state), str(troop.log.write_fd)]
    with subprocess.Popen([*words, *troop.words(*statements)], **troop.handed, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        guard = Handle(int(owner.stdout.readline()))
        [note, *_] = troop.ready(len(statements))
        member = Handle(note.pid)
        owner.kill()
    return guard, member


def close(*handles: Handle) -> None:
    for handle in handles:
        handle.wait_dead()
        handle.close()


def test_the_ledger_is_written_before_the_start(state: Path) -> None:
    owner = sexton.Owner("it", state=state)
    with pytest.raises(FileNotFoundError):
        owner.tree(["no-such-program"])
    with owner.tree(["true"]) as tree:
        tree.wait(DEADLINE)
    lines = [json.loads(line) for line in (state / "it.ledger").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["epoch", "start", "end", "start", "end"]
    assert lines[1]["command"] == ["no-such-program"]
    assert _ledger.Ledger.read(state / "it.ledger").open == {}


def test_a_tree_that_has_ended_before_it_is_noted(state: Path) -> None:
    """Its last word may come with its first."""
    book = _ledger.Ledger.read(state / "it.ledger")
    tree = _owner._Owned(["true"])
    tree.wait(DEADLINE)
    book.append(event="start", epoch=1, tree=tree.mark, command=["true"], listen=None)
    tree.noted(book)
    assert _ledger.Ledger.read(state / "it.ledger").open == {}


def test_a_full_disk(state: Path) -> None:
    """What cannot be written down is not started, and no half of a line is left; an end is not waited for in vain."""
    ledger = state / "it.ledger"
    owner = sexton.Owner("it", state=state)
    with owner.tree(["cat"], stdin=subprocess.PIPE) as tree:
        before = ledger.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
        try:
            with pytest.raises(OSError, match="No space left"):
                owner.tree(["true"])
            assert tree.stdin
            tree.stdin.close()
            assert tree.wait(DEADLINE) == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.read_bytes() == before
    assert [swept.fate for swept in sexton.Owner("it", "reincarnation", state=state).swept] == ["was gone"]


def test_termination(troop: Troop, state: Path) -> None:
    keep = {"on_owner_lost": "keep", "grace": 0.2}
    handles = crash(troop, state, {}, keep, double_forked("stubborn"), "polite")
    assert handles[1].alive()
    owner = sexton.Owner("it", state=state)
    assert [swept.fate for swept in owner.swept] == ["ended"]
    troop.end()
    close(*handles)
    assert sexton.Owner("it", state=state).swept == ()


ALIVE = """
import os, pathlib, signal, sys, sexton
sys.stdin.readline()
try:
    owner = sexton.Owner("it", state=pathlib.Path(sys.argv[1]), **eval(sys.argv[2]))
    if len(sys.argv) > 3:
        tree = owner.tree(sys.argv[4:], pass_fds=[int(sys.argv[3])])
    print("epoch", owner.epoch, flush=True)
except sexton.errors.UsageError as error:
    print("refused", flush=True)
sys.stdin.read()
"""
EACH: list[dict[str, Any]] = [{}, {"policy": "gentle", "lease": 60}, {"policy": "expiration", "lease": 60}]


def living(state: Path, settings: dict[str, Any], *words: str, **more: Any) -> subprocess.Popen[str]:
    """A process that becomes an owner when it is told to, and ends when its input does."""
    command = [sys.executable, "-c", ALIVE, str(state), repr(settings), *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("settings", EACH, ids=str)
def test_there_is_one_owner_at_a_time(troop: Troop, state: Path, settings: dict[str, Any]) -> None:
    """And whoever comes too soon ends nothing."""
    words = troop.words("polite")
    with living(state, settings, str(troop.log.write_fd), *words, **troop.handed) as other:
        tell(other)
        assert said(other) == "epoch 1"
        [note] = troop.ready()
        with pytest.raises(UsageError, match=f"is alive: process {other.pid}"):
            sexton.Owner("it", state=state, **settings)
        assert Handle(note.pid).alive()
        other.kill()
    assert sexton.Owner("it", state=state).epoch == 2  # which ends what has a lease
    troop.end()


def test_of_those_that_start_at_once_one_is_the_owner(state: Path) -> None:
    for epoch in range(1, 4):
        others = [living(state, {}) for _ in range(4)]
        for other in others:
            tell(other)
        assert sorted(map(said, others)) == [f"epoch {epoch}", *["refused"] * 3]
        for other in others:
            other.communicate(timeout=DEADLINE)


@pytest.mark.parametrize("settings", EACH, ids=str)
def test_two_parts_of_a_program_are_not_one_owner(state: Path, settings: dict[str, Any]) -> None:
    first = sexton.Owner("it", state=state, **settings)
    with first.tree(["sleep", "1000"]) as tree:
        with pytest.raises(UsageError, match="owner 'it' already"):
            sexton.Owner("it", state=state, **settings)
        assert tree.poll() is None
    assert sexton.Owner("it", state=state, **settings).swept == ()


def test_a_tree_that_was_given_up_is_nobodys(state: Path) -> None:
    first = sexton.Owner("it", state=state)
    tree = first.tree(["sleep", "1000"])
    tree.close()
    assert sexton.Owner("it", state=state).epoch == 2
    tree = first.tree(["sleep", "1000"])
    with pytest.warns(ResourceWarning, match="still running"):
        tree.__del__()
    del tree
    assert sexton.Owner("it", state=state).epoch == 3


def test_a_forked_child_is_not_the_owner(state: Path) -> None:
    owner = sexton.Owner("it", state=state)
    reader, writer = os.pipe()
    with owner.tree(["cat"], stdin=subprocess.PIPE) as tree:
        if (child := os.fork()) == 0:
            try:
                for start in (lambda: owner.tree(["true"]), lambda: sexton.Owner("it", state=state)):
                    try:
                        start()
                    except (NotOwner, UsageError) as error:
                        os.write(writer, f"{type(error).__name__} ".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"NotOwner UsageError "
        assert tree.poll() is None
    os.close(reader)
    os.close(writer)


def test_an_owner_that_was_taken_over_from_starts_no_more(troop: Troop, state: Path) -> None:
    first = sexton.Owner("it", "reincarnation", state=state)
    with first.tree(troop.words(double_forked("stubborn"), "polite"), **troop.handed, grace=0.2):
        troop.ready(2)
        assert sexton.Owner("it", "reincarnation", state=state).epoch == 2
        troop.end()
    with pytest.raises(NotOwner, match="epoch 2 has taken over"):
        first.tree(["true"])


def test_reincarnation(troop: Troop, state: Path) -> None:
    """Also of what is in no ledger any more."""
    keep = {"on_owner_lost": "keep", "grace": 0.2}
    handles = crash(troop, state, {"policy": "reincarnation"}, keep, double_forked("stubborn"), "polite")
    ledger = state / "it.ledger"
    ledger.write_text(
        "".join(line + "\n" for line in ledger.read_text().splitlines() if '"epoch"' in line and "pid" in line)
    )
    assert sexton.Owner("it", "reincarnation", state=state).epoch == 2
    troop.end()
    close(*handles)


def test_expiration(troop: Troop, state: Path) -> None:
    settings = {"policy": "expiration", "lease": 2}
    handles = crash(troop, state, settings, {}, double_forked(), "polite")
    owner = sexton.Owner("it", "expiration", lease=2, state=state)
    assert [swept.fate for swept in owner.swept] == ["left"]
    troop.end()  # the lease ends it
    close(*handles)


def test_the_maximum_is_hard(troop: Troop, state: Path) -> None:
    owner = sexton.Owner("it", "expiration", lease=1000, maximum=0.2, state=state)
    with owner.tree(troop.words("polite"), **troop.handed) as tree:
        tree.renew(1000)
        tree.wait(DEADLINE)
        assert tree.receipt.why == "timeout"


def test_gentle_adopts(troop: Troop, state: Path) -> None:
    handles = crash(troop, state, {"policy": "gentle", "lease": 60}, {}, double_forked(), "polite")
    owner = sexton.Owner("it", "gentle", lease=60, state=state)
    assert [swept.fate for swept in owner.swept] == ["adopted"]
    [tree] = owner.adopted
    with tree:
        assert tree.guard == handles[0].pid
        assert len(tree.processes()) == 2
        assert tree.poll() is None
        tree.renew(60)
        assert tree.stop().empty
        assert tree.returncode == 0
    troop.end()
    close(*handles)
    assert list(state.glob("*.sock")) == []
    assert sexton.Owner("it", "gentle", lease=60, state=state).swept == ()


def test_gentle_ends_what_does_not_listen(troop: Troop, state: Path) -> None:
    handles = crash(
        troop, state, {"policy": "gentle", "lease": 60}, {"grace": 0.2}, double_forked("stubborn"), "polite"
    )
    [path] = state.glob("*.sock")
    path.unlink()
    owner = sexton.Owner("it", "gentle", lease=60, state=state)
    assert [swept.fate for swept in owner.swept] == ["ended"]
    troop.end()
    close(*handles)


def test_a_guard_and_an_owner_that_were_killed(troop: Troop, state: Path) -> None:
    guard, member = crash(troop, state, {}, {"on_owner_lost": "keep"}, double_forked("stubborn"), "polite")
    guard.send(signal.SIGKILL)
    assert [swept.fate for swept in sexton.Owner("it", state=state).swept] == ["ended"]
    troop.end()
    close(guard, member)


@pytest.mark.parametrize("settings", [{}, {"policy": "expiration", "lease": 1000}, {"policy": "gentle", "lease": 1000}])
@pytest.mark.parametrize("how", ["owner", "sweep"])
def test_a_cgroup_is_ended_whose_guard_and_owner_were_killed(
    troop: Troop, state: Path, cgroups: Path | None, settings: dict[str, Any], how: str
) -> None:
    """With somebody in it who has another environment, and so no mark; no lease holds where no guard measures it."""
    if cgroups is None:
        return  # and that was said: see the fixture
    more = {"contain": "cgroup"} if settings else {"contain": "cgroup", "on_owner_lost": "keep"}
    unmarked = f"fork exec env -i {troop.monster} {troop.log.write_fd} stubborn"
    guard, member = crash(troop, state, settings, more, unmarked, "polite")
    guard.send(signal.SIGKILL)
    guard.wait_dead()
    if how == "owner":
        assert [swept.fate for swept in sexton.Owner("it", state=state, **settings).swept] == ["ended"]
    else:
        assert sweep("--state", str(state))[0].endswith(": ended")
    troop.end()
    close(guard, member)


def sweep(*words: str) -> list[str]:
    command = [sys.executable, "-m", "sexton", "sweep", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return done.stdout.splitlines()


def test_sweep(troop: Troop, state: Path) -> None:
    assert sweep("--state", str(state)) == [f"nothing was left in {state}"]
    assert sweep("--state", f"{state}/typo") == [f"nothing was left: there is no {state}/typo"]
    keep = {"on_owner_lost": "keep", "grace": 0.2}
    handles = crash(troop, state, {}, keep, double_forked("stubborn"), "polite")
    owner = sexton.Owner("alive", state=state)
    with owner.tree(["sleep", "100"]) as tree:
        [line] = sweep("--state", str(state))
        assert line.startswith(f"it: {troop.monster} ")
        assert line.endswith(": ended")
        assert tree.poll() is None
    troop.end()
    close(*handles)


@pytest.mark.parametrize("name", ["HOME", "SEXTON_STATE", "XDG_STATE_HOME"])
def test_sweep_makes_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("SEXTON_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(other, raising=False)
    for place in ("/proc/sexton", str(tmp_path / "missing")):
        monkeypatch.setenv(name, place)
        [line] = sweep()
        assert line.startswith(f"nothing was left: there is no {place}")
    assert list(tmp_path.iterdir()) == []


def test_sweep_goes_on_past_what_it_cannot_read(troop: Troop, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handles = crash(troop, state, {}, {"on_owner_lost": "keep", "grace": 0.2}, "polite")
    (state / "before.ledger").mkdir()
    (state / "last.ledger").symlink_to("last.ledger")
    command = [sys.executable, "-m", "sexton", "sweep"]
    monkeypatch.setenv("SEXTON_STATE", str(state))
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert done.stdout.endswith(": ended\n")
    assert done.stderr.splitlines() == [
        f"sexton: {state}/before.ledger: Is a directory",
        f"sexton: {state}/last.ledger: Too many levels of symbolic links",
    ]
    troop.end()
    close(*handles)

    monkeypatch.setenv("SEXTON_STATE", f"{state}/it.ledger")
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (2, f"sexton: {state}/it.ledger: Not a directory\n")


def test_the_directory_of_an_owner_is_made(state: Path) -> None:
    """By its name or as a path; nobody else may look into it."""
    for place in (state / "a" / "b", str(state / "c")):
        with sexton.Owner("it", state=place).tree(["true"]) as tree:
            assert tree.wait() == 0
            assert repr(tree).startswith("<Tree ['true'] guard=")
        assert Path(place, "it.ledger").is_file()
        assert Path(place).stat().st_mode & 0o777 == 0o700


def test_sweep_leaves_a_lease_its_time(troop: Troop, state: Path) -> None:
    handles = crash(troop, state, {"policy": "expiration", "lease": 1000}, {}, "polite")
    assert sweep("--state", str(state))[0].endswith(": left")
    assert sweep("--state", str(state), "--all")[0].endswith(": ended")
    troop.end()
    close(*handles)


def test_a_ledger_that_was_cut_off_or_is_of_another_boot(state: Path) -> None:
    path = state / "it.ledger"
    sexton.Owner("it", state=state)
    start = {"event": "start", "epoch": 1, "tree": "x", "command": ["y"], "listen": None}
    path.write_text(path.read_text() + json.dumps(start) + '\nnonsense\n{"event": 3}\n{"event": "st')
    assert list(_ledger.Ledger.read(path).open) == ["x"]
    assert sexton.Owner("it", state=state).epoch == 2
    assert _ledger.Ledger.read(path).epoch == 2  # not glued to what was cut off
    path.write_text(path.read_text() + json.dumps(start) + "\n")
    assert list(_ledger.Ledger.read(path).open) == ["x"]
    path.write_text(path.read_text().replace(_ledger.boot(), "another"))
    assert _ledger.Ledger.read(path).open == {}


def test_where_ledgers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEXTON_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a"))
    assert _ledger.state_directory() == tmp_path / "a" / "sexton"
    monkeypatch.setenv("SEXTON_STATE", str(tmp_path / "b"))
    assert _ledger.state_directory() == tmp_path / "b"
    assert (tmp_path / "b").is_dir()
    monkeypatch.delenv("SEXTON_STATE")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 987654321)  # whom the password file does not know
    with pytest.raises(UsageError, match="set HOME or SEXTON_STATE"):
        _ledger.state_path()


def test_bad_owners_are_named(state: Path) -> None:
    for name, settings in (("a/b", {}), ("", {}), ("it", {"policy": "mercy"}), ("it", {"policy": "gentle"})):
        wrong: Any = settings
        with pytest.raises(UsageError):
            sexton.Owner(name, state=state, **wrong)
