"""Random trees, actions and deaths: after the end nothing of a tree is left, and no stranger was signalled."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import sexton
from sexton.errors import SextonError
from sexton.spawn import _processes
from sexton.spawn._start import Contain, TreeSettings
from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE
from tests.support.monsters import bomb, comet, double_forked, orphan, setsid_daemon, stopped, stubborn, thread_child
from tests.support.processes import Handle

MEMBERS = st.sampled_from(
    [
        "fork polite", "fork plain", "fork ignore", "fork group stubborn", "fork exec sleep 1000", "fork hold",
        setsid_daemon(), setsid_daemon("stubborn"),
        double_forked(), double_forked("stubborn"), double_forked("stopped"),
        orphan(), orphan("ignore"), stopped(), stubborn(), thread_child(), "chain 4 stubborn", comet(20), bomb(12),
    ]
)  # fmt: skip
LEADERS = st.sampled_from(["polite", "stubborn", "plain", "exit 3", "exec sleep 1000", "stopped"])
FAMILIES = st.tuples(st.lists(MEMBERS, max_size=3), LEADERS).map(lambda both: [*both[0], both[1]])
SLOW = settings(
    max_examples=50,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Trees(RuleBasedStateMachine):
    """Some trees at once, of this process."""

    monster: Path
    contains: ClassVar[list[Contain]]

    @initialize()
    def a_stranger(self) -> None:
        self.trees: list[tuple[sexton.Tree, Troop]] = []
        self.outside = Troop(self.monster)
        words = self.outside.words("fork stubborn", "stubborn")
        self.stranger = subprocess.Popen(words, **self.outside.handed, process_group=0)
        self.strangers = [Handle(note.pid) for note in self.outside.ready(2)]

    @precondition(lambda self: len(self.trees) < 3)
    @rule(family=FAMILIES, on_exit=st.sampled_from(["stop", "wait"]), data=st.data())
    def start(self, family: list[str], on_exit: Literal["stop", "wait"], data: st.DataObject) -> None:
        troop = Troop(self.monster)
        contain = data.draw(st.sampled_from(self.contains), "contain")
        settings: TreeSettings = {"grace": 0.05, "stdin": sexton.PIPE, "on_exit": on_exit, "contain": contain}
        settings["pass_fds"] = troop.handed["pass_fds"]
        tree = sexton.Tree(troop.words(*family), **settings)
        self.trees.append((tree, troop))

    @precondition(lambda self: self.trees)
    @rule(
        sig=st.sampled_from(["TERM", "INT", "USR1", "CONT", "STOP", "KILL"]),
        scope=st.sampled_from(["child", "group", "tree"]),
    )
    def send(self, sig: str, scope: str) -> None:
        with contextlib.suppress(SextonError):  # the command ended while it was said
            self.trees[-1][0].send_signal(sig, scope)  # type: ignore[arg-type]

    @precondition(lambda self: self.trees)
    @rule(which=st.integers(0, 10))
    def kill_a_member(self, which: int) -> None:
        members = self.trees[-1][0].processes()
        if members:
            with contextlib.suppress(ProcessLookupError):
                handle = Handle(members[which % len(members)].pid)
                mark = _processes.mark_of(self.trees[-1][0].mark)
                if _processes.carries(handle.pid, mark):
                    handle.kill()
                handle.close()

    @precondition(lambda self: self.trees)
    @rule()
    def kill_the_guard(self) -> None:
        tree = self.trees[-1][0]
        if tree.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                handle = Handle(tree.guard)  # our own child, not yet waited for
                handle.kill()
                handle.close()

    @precondition(lambda self: self.trees)
    @rule(how=st.sampled_from(["stop", "kill", "leave"]))
    def end(self, how: str) -> None:
        tree, troop = self.trees.pop()
        if how == "kill":
            tree.kill()
        elif how == "stop":
            tree.stop()
        tree.__exit__(None, None, None)
        assert tree.receipt.empty != (tree.receipt.guard_lost and tree.contain == "subreaper")
        troop.end()  # ends when the last of them is dead
        troop.log.close()

    @invariant()
    def strangers_live(self) -> None:
        assert all(handle.alive() for handle in getattr(self, "strangers", []))

    def teardown(self) -> None:
        while getattr(self, "trees", None):
            self.end("stop")
        if hasattr(self, "stranger"):
            for handle in self.strangers:
                handle.kill()
                handle.close()
            self.stranger.wait(DEADLINE)
            assert [note for note in self.outside.end() if note.word == "got"] == []
            self.outside.log.close()


@pytest.mark.timeout(10 * DEADLINE)
def test_nothing_is_left_whatever_happens(monster: Path, cgroups: Path | None) -> None:
    Trees.monster = monster
    Trees.contains = ["subreaper", "cgroup"] if cgroups else ["subreaper"]
    run_state_machine_as_test(Trees, settings=SLOW)


OWNER = """
import signal, sys
import sexton
tree = sexton.Tree(sys.argv[2:], pass_fds=[int(sys.argv[1])], grace=0.05, contain={contain!r})
signal.pause()
"""


@pytest.mark.timeout(10 * DEADLINE)
@settings(parent=SLOW)
@given(family=FAMILIES, late=st.booleans(), contain=st.sampled_from(["subreaper", "pidns", "cgroup"]))
def test_nothing_survives_its_owner(
    monster: Path, cgroups: Path | None, family: list[str], late: bool, contain: str
) -> None:
    """Killed at once, a start in progress perhaps, or when the first of them is ready."""
    if contain == "cgroup" and cgroups is None:
        contain = "subreaper"
    troop = Troop(monster)
    family = [*family[:-1], "polite"]
    words = [sys.executable, "-c", OWNER.format(contain=contain), str(troop.log.write_fd), *troop.words(*family)]
    with subprocess.Popen(words, **troop.handed) as owner:
        if late:
            troop.ready()
        owner.send_signal(signal.SIGKILL)
    troop.end()
    troop.log.close()
