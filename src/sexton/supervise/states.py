"""What an instance does when something happens: a table of state and event, and the arithmetic of restarts.

Pure: nothing here acts, and no clock is read. `TABLE[state, event]` is a Step: the next state and what is to be done;
a pair that is not in it changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from sexton.supervise import models
    from sexton.supervise.config import Restart

State = Literal[
    "stopped",
    "waiting",
    "idle",
    "starting",
    "ready",
    "backoff",
    "completed",
    "fatal",
    # Being stopped, and what comes after that:
    "stopping",  # nothing
    "restarting",  # another start
    "failing",  # the judgement of a failure
    "ending",  # nobody asked for it: the judgement of how it ended
    "parking",  # a sleep until it is wanted
]
Event = Literal[
    "start",  # somebody wants it to run
    "stop",  # somebody wants it not to
    "restart",  # somebody wants it stopped and started
    "free",  # what it waited for is there
    "park",  # what it waited for is there, and it is started on demand
    "found",  # it runs: an earlier supervisor started it
    "found-ready",  # and was ready then
    "remains",  # nobody looks after its tree any more, and something of it is still alive
    "wanted",  # on demand: a connection is there
    "unused",  # on demand: nobody was connected for so long
    "ready",
    "unwell",  # a health check, a watchdog or the deadline of getting ready says so
    "stable",  # it has lived long enough for its failures to be forgotten
    "again",  # it ended by itself and is to be started again
    "complete",  # it ended by itself, and that was all
    "exhausted",  # it ended by itself and is not to be started again, though that was not all
    "gone",  # it was stopped, and nothing is left of it
    "due",  # the pause before a restart is over
]
Action = Literal[
    "await",  # what it comes after
    "spawn",
    "probe",  # for readiness
    "watch",  # health, use, stability
    "unwatch",
    "end",  # ask the tree to end, kill it when the grace is over
    "listen",  # for the first connection
    "unlisten",
    "schedule",  # the end of the pause
    "unschedule",
    "reset",  # forget the failures
    "escalate",
]


class Step(NamedTuple):
    """What follows: the next state, and what is to be done, in this order."""

    state: State
    actions: tuple[Action, ...] = ()


STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)

_BEGIN = Step("waiting", ("reset", "await"))

TABLE: dict[tuple[State, Event], Step] = {
    ("stopped", "start"): _BEGIN,
    ("stopped", "restart"): _BEGIN,
    ("stopped", "found"): Step("starting", ("probe",)),
    ("stopped", "found-ready"): Step("ready", ("watch",)),
    ("stopped", "remains"): Step("stopping"),
    ("completed", "start"): _BEGIN,
    ("completed", "restart"): _BEGIN,
    ("completed", "stop"): Step("stopped"),
    ("fatal", "start"): _BEGIN,
    ("fatal", "restart"): _BEGIN,
    ("fatal", "stop"): Step("stopped"),
    ("waiting", "free"): Step("starting", ("spawn",)),
    ("waiting", "park"): Step("idle", ("listen",)),
    ("waiting", "stop"): Step("stopped"),
    ("idle", "wanted"): Step("starting", ("unlisten", "spawn")),
    ("idle", "exhausted"): Step("fatal", ("unlisten", "escalate")),
    ("idle", "stop"): Step("stopped", ("unlisten",)),
    ("starting", "ready"): Step("ready", ("watch",)),
    ("ready", "stable"): Step("ready", ("reset",)),
    ("ready", "unused"): Step("parking", ("unwatch", "end")),
    ("backoff", "due"): Step("starting", ("spawn",)),
    ("backoff", "start"): Step("starting", ("unschedule", "reset", "spawn")),
    ("backoff", "restart"): Step("starting", ("unschedule", "reset", "spawn")),
    ("backoff", "stop"): Step("stopped", ("unschedule",)),
    ("stopping", "gone"): Step("stopped"),
    ("stopping", "start"): Step("restarting"),
    ("stopping", "restart"): Step("restarting"),
    ("restarting", "gone"): _BEGIN,
    ("restarting", "stop"): Step("stopping"),
    ("failing", "again"): Step("backoff", ("schedule",)),
    ("failing", "exhausted"): Step("fatal", ("escalate",)),
    ("failing", "stop"): Step("stopping"),
    ("failing", "start"): Step("restarting"),
    ("failing", "restart"): Step("restarting"),
    ("ending", "again"): Step("backoff", ("schedule",)),
    ("ending", "complete"): Step("completed"),
    ("ending", "exhausted"): Step("fatal", ("escalate",)),
    ("ending", "stop"): Step("stopping"),
    ("ending", "start"): Step("restarting"),
    ("ending", "restart"): Step("restarting"),
    ("parking", "gone"): Step("idle", ("listen",)),
    ("parking", "stop"): Step("stopping"),
    ("parking", "restart"): Step("restarting"),
}
for _state in ("starting", "ready"):
    TABLE |= {
        (_state, "stop"): Step("stopping", ("unwatch", "end")),
        (_state, "restart"): Step("restarting", ("unwatch", "end")),
        (_state, "unwell"): Step("failing", ("unwatch", "end")),
        (_state, "remains"): Step("ending", ("unwatch",)),
        (_state, "again"): Step("backoff", ("unwatch", "schedule")),
        (_state, "complete"): Step("completed", ("unwatch",)),
        (_state, "exhausted"): Step("fatal", ("unwatch", "escalate")),
    }

# What the outside is told of the ways of being stopped.
SHOWN: dict[State, models.State] = {
    "stopped": "stopped",
    "waiting": "waiting",
    "idle": "idle",
    "starting": "starting",
    "ready": "ready",
    "backoff": "backoff",
    "completed": "completed",
    "fatal": "fatal",
    "stopping": "stopping",
    "restarting": "stopping",
    "failing": "stopping",
    "ending": "stopping",
    "parking": "stopping",
}


def judge(restart: Restart, *, good: bool, failures: int) -> Event:
    """What the end of a command means that nobody asked for; `failures`: how often it ended so before, in a row."""
    if restart.policy == "always" or (restart.policy == "on-failure" and not good):
        return "exhausted" if restart.limit is not None and failures >= restart.limit else "again"
    return "complete" if good else "exhausted"


def pause(restart: Restart, failures: int, chance: float) -> float:
    """Seconds until the next start; `chance`, from 0 to 1, spreads those that failed together."""
    length = min(restart.backoff * restart.factor ** min(failures, 64), restart.maximum)
    return length * (1 + restart.jitter * (2 * chance - 1))
