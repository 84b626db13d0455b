"""The ladder of cures, harmless first: tell, nudge, inject, and only when asked for, kill the parent.

Every rung says what it did to which zombie; the next one gets what is left. Nothing is signalled by a
number alone: each process is held by a pidfd that was opened first and checked for its start time after.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from sexton import proc
from sexton.doctor.cure_evidence import Judgement, judge
from sexton.doctor.inject import inject, obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sexton.doctor.evidence import Evidence, Facts

Rung = Literal["tell", "nudge", "inject", "kill-parent"]

# Seconds. A handler of SIGCHLD runs within microseconds, but a busy event loop comes to it later.
NUDGE_WAIT = 0.5
GRACE = 10.0
KILL_WAIT = 5.0
ADOPTION_WAIT = 2.0

_SLEEPS = re.compile(rb"^voluntary_ctxt_switches:\t(\d+)$", re.MULTILINE)

OUTSIDE = "its parent is in an outer PID namespace: run sexton there, on the host"


class Deed(NamedTuple):
    """What one rung did about one zombie. `stopped_for`: how long inject held the culprit, in seconds."""

    zombie: proc.Process
    culprit: proc.Process | None
    rung: Rung
    result: Literal["reaped", "left", "refused"]
    why: str
    stopped_for: float = 0.0


class Held:
    """A process that cannot become another one while it is held: a pidfd, checked after it was opened."""

    def __init__(self, process: proc.Process) -> None:
        self.process = process
        self.descriptor = -1
        try:
            self.descriptor = os.pidfd_open(process.pid)
        except OSError:
            return
        now = proc.stat(process.pid)
        if isinstance(now, proc.Missing) or now.start != process.start:
            self.close()

    @property
    def gone(self) -> bool:
        """It was reaped before it could be held."""
        return self.descriptor < 0

    def send(self, signum: int) -> bool:
        """Send it a signal; False where it is gone already. Raises `PermissionError`."""
        if self.gone:
            return False
        try:
            signal.pidfd_send_signal(self.descriptor, signum)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def left_of(zombies: Sequence[proc.Process], parent: int | None) -> list[proc.Process]:
    """Which of them are zombies still, and of the same parent where one is given."""
    found = []
    for zombie in zombies:
        now = proc.stat(zombie.pid)
        same = isinstance(now, proc.Process) and now.start == zombie.start
        if same and isinstance(now, proc.Process) and parent in {None, now.ppid}:
            found.append(zombie)
    return found


def await_reaping(zombies: Sequence[proc.Process], seconds: float) -> None:
    """Until every one is reaped, or the time is over. Before Linux 6.9 no event tells, so it takes all of it."""
    held = [Held(zombie) for zombie in zombies]
    waiting = select.poll()
    open_ones = {one.descriptor for one in held if not one.gone}
    for descriptor in open_ones:
        waiting.register(descriptor, 0)  # a zombie is readable all the time; what tells its end is POLLHUP
    end = time.monotonic() + seconds
    while open_ones and (left := end - time.monotonic()) > 0:
        for descriptor, _ in waiting.poll(left * 1000):
            waiting.unregister(descriptor)
            open_ones.discard(descriptor)
    for one in held:
        one.close()


def cure(
    evidence: Evidence,
    *,
    force: bool = False,
    kill_parent: bool = False,
    known: Mapping[int, Judgement] | None = None,
) -> Iterator[Deed]:
    """Climb the ladder for every zombie of the evidence, culprit by culprit; a deed for each rung tried.

    `known` has judgements, by the zombie's pid, of one who saw more than /proc shows.
    """
    by_culprit: dict[int, list[proc.Process]] = {}
    for zombie in evidence.zombies:
        by_culprit.setdefault(zombie.ppid, []).append(zombie)
    for pid, zombies in by_culprit.items():
        culprit = evidence.at.processes.get(pid)
        facts = evidence.facts(pid)
        if culprit is None or facts is None:
            yield from (Deed(zombie, None, "tell", "refused", OUTSIDE) for zombie in zombies)
            continue
        yield from _cure_one(evidence, facts, zombies, known or {}, force)
        if kill_parent and (left := left_of(zombies, pid)):
            yield from _kill_parent(facts, left)


def _cure_one(
    evidence: Evidence,
    facts: Facts,
    zombies: list[proc.Process],
    known: Mapping[int, Judgement],
    force: bool,
) -> Iterator[Deed]:
    culprit = facts.process
    caught = facts.status is not None and proc.has(facts.status.caught, signal.SIGCHLD)
    nudged = False
    if caught and not facts.cannot_run:
        before = _sleeps(culprit.pid)
        yield from _nudge(culprit, zombies)
        zombies = left_of(zombies, culprit.pid)
        nudged = _handled(culprit, before)
    judged = [(zombie, known.get(zombie.pid) or judge(zombie, facts, evidence.at, nudged=nudged)) for zombie in zombies]
    for zombie, judgement in judged:
        if not (judgement.free or force):
            yield Deed(zombie, culprit, "inject", "refused", refusal(judgement))
    free = [(zombie, judgement.why) for zombie, judgement in judged if judgement.free or force]
    outcomes = inject(culprit, [zombie for zombie, _ in free]) if free else []
    for (zombie, why), outcome in zip(free, outcomes, strict=True):
        yield Deed(zombie, culprit, "inject", outcome.result, outcome.why or why, outcome.stopped_for)


def refusal(judgement: Judgement) -> str:
    """Why a zombie is not taken, and what would break if it were."""
    doubt = "taken all the same (--force)" if judgement.level == "tracked" else "if so and taken (--force)"
    return f"{judgement.why}; {doubt}, {judgement.breaks}"


def _sleeps(pid: int) -> int:
    """How often the first thread has gone to sleep by itself; -1 where that cannot be read."""
    match = _SLEEPS.search(found) if isinstance(found := proc.read(f"{proc.PROC}/{pid}/status"), bytes) else None
    return int(match[1]) if match else -1


def _handled(culprit: proc.Process, before: int) -> bool:
    """Whether the last SIGCHLD was handled: none is pending, and the event loop has been round since.

    The handler of an event loop only takes a note; the loop waits for the children before it sleeps again.
    """
    status, now = proc.status(culprit.pid), proc.stat(culprit.pid)
    if isinstance(status, proc.Missing) or isinstance(now, proc.Missing):
        return False
    if proc.has(status.pending | status.shared_pending, signal.SIGCHLD):
        return False
    return now.state == "S" or _sleeps(culprit.pid) > before


def _nudge(culprit: proc.Process, zombies: list[proc.Process]) -> Iterator[Deed]:
    """SIGCHLD to the culprit: where one was lost or merged, its handler reaps now."""
    held = Held(culprit)
    try:
        if not held.send(signal.SIGCHLD):
            return
    except PermissionError:
        why = f"no permission to signal {culprit.name}"
        yield from (Deed(zombie, culprit, "nudge", "refused", why) for zombie in zombies)
        return
    finally:
        held.close()
    await_reaping(zombies, NUDGE_WAIT)
    left = {zombie.pid for zombie in left_of(zombies, culprit.pid)}
    for zombie in zombies:
        if zombie.pid in left:
            yield Deed(zombie, culprit, "nudge", "left", f"{culprit.name} got a SIGCHLD and did not reap it")
        else:
            yield Deed(zombie, culprit, "nudge", "reaped", f"{culprit.name} got a SIGCHLD and reaped it")


def _kill_parent(facts: Facts, zombies: list[proc.Process]) -> Iterator[Deed]:
    """End the culprit, so that an init adopts its zombies: SIGTERM, the grace time, SIGKILL."""
    culprit = facts.process
    why = _spared(facts)
    if not why:
        held = Held(culprit)
        try:
            why = _stop(held)
        finally:
            held.close()
    if why:
        yield from (Deed(zombie, culprit, "kill-parent", "refused", why) for zombie in zombies)
        return
    await_reaping(zombies, ADOPTION_WAIT)
    left = {zombie.pid for zombie in left_of(zombies, None)}
    for zombie in zombies:
        now = proc.stat(zombie.pid)
        if zombie.pid in left and isinstance(now, proc.Process):
            yield Deed(zombie, culprit, "kill-parent", "left", f"{culprit.name} ended; it now has parent {now.ppid}")
        else:
            yield Deed(zombie, culprit, "kill-parent", "reaped", f"{culprit.name} ended, and an init reaped it")


def _spared(facts: Facts) -> str:
    """Why a culprit is not ended, not even when asked."""
    process = facts.process
    if process.pid == 1:
        return f"{process.name} is the init of all that sexton sees"
    if facts.runtime == "shim":
        return f"{process.name} holds a container: end that container with its engine"
    at: proc.Process | proc.Missing = proc.stat(os.getpid())
    while isinstance(at, proc.Process):
        if at.pid == process.pid:
            return f"{process.name} is an ancestor of this sexton"
        at = proc.stat(at.ppid) if at.ppid else proc.Missing.ABSENT
    return ""


def _stop(held: Held) -> str:
    """Why it could not be ended; "" for done."""
    waiting = select.poll()
    try:
        for signum, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, KILL_WAIT)):
            if not held.send(signum):
                return ""
            waiting.register(held.descriptor, select.POLLIN)
            if waiting.poll(seconds * 1000):
                return ""
    except PermissionError:
        return f"no permission to signal {held.process.name}"
    return f"{held.process.name} did not end, not even by SIGKILL: see its state and wchan"


def plan(evidence: Evidence) -> Iterator[Deed]:
    """What `cure` would do about each zombie, without doing anything: the rung "tell"."""
    for zombie in evidence.zombies:
        facts = evidence.facts(zombie.ppid)
        if facts is None:
            yield Deed(zombie, None, "tell", "refused", OUTSIDE)
            continue
        judgement = judge(zombie, facts, evidence.at)
        why = obstacle(facts.process)
        if why or not judgement.free:
            yield Deed(zombie, facts.process, "tell", "refused", why or refusal(judgement))
        else:
            yield Deed(zombie, facts.process, "tell", "left", f"{judgement.level}: {judgement.why}")
