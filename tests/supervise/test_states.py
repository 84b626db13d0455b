"""The table of states: each cell as it is meant, and what holds along every path."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sexton.supervise.config import Restart
from sexton.supervise.states import EVENTS, SHOWN, STATES, TABLE, Action, Event, State, judge, pause

# A row is an event, a column a state; "-": nothing follows.
MEANT = """
            stopped wait    idle    starts  ready   backoff done    fatal   stops   renews  failing ends    parks
start       wait    -       -       -       -       starts  wait    wait    renews  -       renews  renews  -
stop        -       stopped stopped stops   stops   stopped stopped stopped -       stops   stops   stops   stops
restart     wait    -       -       renews  renews  starts  wait    wait    renews  -       renews  renews  renews
free        -       starts  -       -       -       -       -       -       -       -       -       -       -
park        -       idle    -       -       -       -       -       -       -       -       -       -       -
found       starts  -       -       -       -       -       -       -       -       -       -       -       -
found-ready ready   -       -       -       -       -       -       -       -       -       -       -       -
remains     stops   -       -       ends    ends    -       -       -       -       -       -       -       -
wanted      -       -       starts  -       -       -       -       -       -       -       -       -       -
unused      -       -       -       -       parks   -       -       -       -       -       -       -       -
ready       -       -       -       ready   -       -       -       -       -       -       -       -       -
unwell      -       -       -       failing failing -       -       -       -       -       -       -       -
stable      -       -       -       -       ready   -       -       -       -       -       -       -       -
again       -       -       -       backoff backoff -       -       -       -       -       backoff backoff -
complete    -       -       -       done    done    -       -       -       -       -       -       done    -
exhausted   -       -       fatal   fatal   fatal   -       -       -       -       -       fatal   fatal   -
gone        -       -       -       -       -       -       -       -       stopped wait    -       -       idle
due         -       -       -       -       -       starts  -       -       -       -       -       -       -
"""
WORDS: dict[str, State] = {
    "wait": "waiting",
    "stopped": "stopped",
    "starts": "starting",
    "ready": "ready",
    "idle": "idle",
    "failing": "failing",
    "ends": "ending",
    "backoff": "backoff",
    "done": "completed",
    "fatal": "fatal",
    "stops": "stopping",
    "renews": "restarting",
    "parks": "parking",
}
_HEAD, *_ROWS = (line.split() for line in MEANT.strip().splitlines())
CELLS = [(WORDS[state], row[0], WORDS.get(cell)) for row in _ROWS for state, cell in zip(_HEAD, row[1:], strict=True)]
RUNNING = {"starting", "ready", "stopping", "restarting", "failing", "ending", "parking"}


@pytest.mark.parametrize(("state", "event", "cell"), CELLS)
def test_cell(state: State, event: Event, cell: State | None) -> None:
    step = TABLE.get((state, event))
    assert (step.state if step else None) == cell


def test_the_table_above_has_every_cell() -> None:
    assert {(state, event) for state, event, _ in CELLS} == {(state, event) for state in STATES for event in EVENTS}
    assert set(SHOWN) == set(STATES)


class Machine:
    """An instance as the table drives it: what would be going on."""

    def __init__(self) -> None:
        self.state: State = "stopped"
        self.tree = self.asked = self.watched = self.timer = self.listening = False
        self.failures = 0

    def possible(self) -> list[Event]:
        """What can happen now, in reality."""
        found: list[Event] = ["start", "stop", "restart"]
        if self.state == "stopped" and not self.tree:
            found += ["found", "found-ready", "remains"]
        of_state: dict[State, list[Event]] = {
            "waiting": ["free", "park"],
            "starting": ["ready", "unwell", "remains"],
            "ready": ["remains"],
        }
        found += of_state.get(self.state, [])
        if self.listening:
            found += ["wanted", "exhausted"]
        if self.timer:
            found.append("due")
        if self.tree and self.state in {"starting", "failing", "ending", "ready"}:
            found += ["again", "exhausted"]
            if self.state != "failing":
                found.append("complete")
        elif self.tree:
            found.append("gone")
        if self.watched:
            found += ["unwell", "unused", "stable"]
        return found

    def take(self, event: Event) -> None:
        if event in {"again", "complete", "exhausted", "gone"}:
            self.tree = self.asked = False
        if event in {"found", "found-ready", "remains"}:
            self.tree = True
        if event == "remains":
            self.asked = True
        if event == "due":
            self.timer = False
        step = TABLE.get((self.state, event))
        if step is None:
            return
        self.state = step.state
        for action in step.actions:
            self.do(action)
        self.check()

    def do(self, action: Action) -> None:  # noqa: C901 - a table: one case, one line
        match action:
            case "spawn":
                assert not self.tree, "a second copy"
                self.tree = True
            case "end":
                assert self.tree
                assert not self.asked, "asked to end twice"
                self.asked = True
            case "watch":
                self.watched = True
            case "unwatch":
                self.watched = False
            case "listen":
                self.listening = True
            case "unlisten":
                self.listening = False
            case "schedule":
                assert not self.timer
                self.timer, self.failures = True, self.failures + 1
            case "unschedule":
                self.timer = False
            case "reset":
                self.failures = 0
            case "await" | "probe" | "escalate":
                pass

    def check(self) -> None:
        assert self.tree == (self.state in RUNNING)
        assert self.asked == (self.state in {"stopping", "restarting", "failing", "ending", "parking"})
        assert self.watched == (self.state == "ready")
        assert self.timer == (self.state == "backoff")
        assert self.listening == (self.state == "idle")


@given(st.data())
def test_whatever_happens_there_is_one_tree_at_most_and_nothing_is_left_on(data: st.DataObject) -> None:
    machine = Machine()
    for _ in range(data.draw(st.integers(1, 40))):
        machine.take(data.draw(st.sampled_from(machine.possible())))
    machine.take("stop")
    if machine.tree:
        machine.take("gone")
    assert machine.state == "stopped"


@pytest.mark.parametrize(
    ("policy", "good", "failures", "verdict"),
    [
        ("always", True, 0, "again"),
        ("always", False, 2, "again"),
        ("always", True, 3, "exhausted"),
        ("on-failure", True, 0, "complete"),
        ("on-failure", True, 3, "complete"),
        ("on-failure", False, 2, "again"),
        ("on-failure", False, 3, "exhausted"),
        ("never", True, 0, "complete"),
        ("never", False, 0, "exhausted"),
    ],
)
def test_judgement(policy: str, good: bool, failures: int, verdict: str) -> None:
    restart = Restart(policy=policy, limit=3)  # type: ignore[arg-type]
    assert judge(restart, good=good, failures=failures) == verdict


def test_without_a_limit_it_goes_on_for_ever() -> None:
    assert judge(Restart(limit=None), good=False, failures=10**9) == "again"


def test_pauses_grow_to_their_maximum() -> None:
    restart = Restart(backoff=0.5, factor=2, maximum=10, jitter=0)
    assert [pause(restart, failures, 0.5) for failures in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1), st.floats(1, 10), st.floats(0, 100))
def test_a_pause_is_within_its_jitter(failures: int, chance: float, jitter: float, factor: float, first: float) -> None:
    restart = Restart(backoff=first, factor=factor, maximum=60, jitter=jitter)
    length = pause(restart, failures, chance)
    assert math.isfinite(length)
    assert 0 <= length <= 60 * (1 + jitter) + 1e-9
