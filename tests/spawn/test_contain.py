"""What holds a tree: subreaper, PID namespace, cgroup; never weaker than asked for, and when its guard is lost."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import sexton
from sexton import events
from sexton.errors import ContainmentError
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE
from tests.support.monsters import double_forked, setsid_daemon
from tests.support.processes import Handle


@pytest.mark.parametrize("contain", ["subreaper", "pidns"])
def test_containment_is_stated(troop: Troop, contain: Any) -> None:
    with sexton.Tree(troop.words(double_forked(), "polite"), **troop.handed, contain=contain) as tree:
        troop.ready(2)
        assert tree.contain == tree.receipt.contain == contain
        assert len(tree.processes()) == 2
        status = tree.status()
        assert status
        assert status.contain == contain
    assert troop.end()


def test_the_kernel_holds_a_pid_namespace_without_its_guard(troop: Troop) -> None:
    with sexton.Tree(troop.words(double_forked("stubborn"), "polite"), **troop.handed, contain="pidns") as tree:
        troop.ready(2)
        Handle(tree.guard).kill()
        troop.end()
        assert tree.wait(DEADLINE) == -9


def test_containment_that_cannot_be_had_is_an_error() -> None:
    """In a mount namespace without cgroups there are none: an error, or what `require` allows."""
    code = """
import sexton
try:
    sexton.Tree(["true"], contain="cgroup", stderr=sexton.DEVNULL)
except sexton.errors.ContainmentError as error:
    print(type(error).__name__, error.exit_code, "cgroup" in str(error))
with sexton.Tree(["sleep", "100"], contain="cgroup", require="subreaper", stderr=sexton.DEVNULL) as tree:
    print(tree.contain)
"""
    hide = (
        'for place in $(grep -o " /sys/fs/cgroup[^ ]*" /proc/mounts | sort -r); do umount -l "$place"; done; exec "$@"'
    )
    words = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c", hide, "sh"]
    done = sexton.run([*words, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["ContainmentError", "125", "True", "pidns"], done


def place_of(tree: sexton.Tree) -> Path:
    """The tree's cgroup, as its guard told it."""
    hello = next(iter(tree.events(DEADLINE)))
    assert isinstance(hello, events.Hello)
    assert hello.cgroup
    return Path(hello.cgroup)


def test_a_cgroup_holds_and_is_taken_away(troop: Troop, cgroups: Path | None) -> None:
    if cgroups is None:
        return  # and that was said: see the fixture
    with sexton.Tree(troop.words(double_forked(), "polite"), **troop.handed, contain="cgroup") as tree:
        pids = {note.pid for note in troop.ready(2)}
        assert tree.contain == tree.receipt.contain == "cgroup"
        assert place_of(tree).name == f"sexton-{tree.guard}@{tree.mark}"
        assert {int(pid) for pid in (place_of(tree) / "cgroup.procs").read_text().split()} == pids
    troop.end()
    assert tree.receipt.empty
    assert sexton.run(["sh", "-c", "sleep 1000 & exit 4"], contain="cgroup").returncode == 4


def test_a_cgroup_outlives_its_guard_and_is_ended(troop: Troop, cgroups: Path | None) -> None:
    """Those too who have another environment, and so no mark."""
    if cgroups is None:
        return
    unmarked = f"fork exec env -i {troop.monster} {troop.log.write_fd} stubborn"
    words = troop.words(unmarked, setsid_daemon("stubborn"), "stubborn")
    with sexton.Tree(words, **troop.handed, contain="cgroup") as tree:
        troop.ready(3)
        place = place_of(tree)
        guard = Handle(tree.guard)
        guard.kill()
        guard.close()
        assert tree.wait(DEADLINE) == -9
        assert tree.receipt.guard_lost
        assert tree.receipt.empty
        assert not place.exists()
        assert "ended after its guard was killed" in str(tree.receipt)
    troop.end()


def test_a_command_that_fails_is_no_failure_of_containment() -> None:
    """Whatever its name and its message are: the ladder is for containment alone."""
    with pytest.raises(FileNotFoundError):
        sexton.Tree(["--contain-cgroup"], contain="pidns", require="subreaper")
    with pytest.raises(sexton.errors.GuardError, match="user") as caught:
        sexton.Tree(["true"], login="no-such-cgroup-user", contain="pidns", require="subreaper")
    assert not isinstance(caught.value, ContainmentError)
