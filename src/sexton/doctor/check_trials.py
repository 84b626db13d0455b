"""The trials of `sexton check`: each starts the command anew, does one thing to it, and says what it saw.

Each runs in a process of its own, which is gone with its namespace afterwards, whatever happened in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sexton import _linux, proc
from sexton.doctor.check_space import CannotStart, Setting, Space

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds. How long the command must be quiet to count as started, and how long that may take.
QUIET = 0.5
START = 10.0
# How long PID 1 has for what a good one does at once.
REAP = 2.0
# A signal that PID 1 does not catch is dropped by the kernel when it is sent: no need to wait long for nothing.
DROPPED = 0.3

ORPHANS = 3  # that live a while, each with a session of its own
BURST = 20  # that end at the same moment: SIGCHLDs merge
DEAD = 2  # that are zombies already when they are adopted

_WITNESS = "sexton-witness"
_STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SHELLS = frozenset({"sh", "bash", "dash", "ash", "busybox", "zsh", "ksh"})


class Seen(NamedTuple):
    """What a trial saw; which fields mean something depends on the trial. Times in seconds."""

    failed: str = ""  # why the command was not started
    tail: str = ""  # the end of what it printed
    ended_early: int | None = None  # its exit code, or minus a signal, when it ended by itself
    busy: bool = False  # it had not come to rest when the trial began
    comm: str = ""
    processes: int = 0
    branches: int = 0  # children of PID 1
    given: int = 0
    reaped: int = 0
    ended: bool = False
    seconds: float = 0.0
    code: int = 0
    caught: bool = False
    heard: tuple[str, ...] = ()
    deaf: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    daemon: str = ""  # "heard", "killed" or "alive"


def run(trial: Callable[[Space, Seen], Seen], setting: Setting) -> Seen:
    """Start the command in a process of its own, run one trial on it, and get what it saw."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    worker = os.fork()
    if worker == 0:
        try:
            os.close(reading)
            os.setpgid(0, 0)  # a Ctrl-C at sexton is not one for the command
            _linux.set_pdeathsig(signal.SIGKILL)
            os.write(writing, json.dumps(_work(trial, setting)).encode())
        except BaseException:  # noqa: BLE001 - it ends here, and says why
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        with open(reading, "rb") as words:
            text = words.read()
    except BaseException:
        os.kill(worker, signal.SIGKILL)  # our own child, not waited for
        raise
    finally:
        os.waitpid(worker, 0)
    if not text:
        return Seen(failed="the trial itself failed; see above")
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in json.loads(text)]
    return Seen._make(values)


def _work(trial: Callable[[Space, Seen], Seen], setting: Setting) -> Seen:
    try:
        space = Space(setting)
    except CannotStart as error:
        return Seen(failed=str(error))
    try:
        seen = _come_to_rest(space)
        if seen.ended_early is None:
            seen = trial(space, seen)
        return seen._replace(tail=space.tail.decode(errors="replace"))
    finally:
        space.close()


def _come_to_rest(space: Space) -> Seen:
    """Wait until the command has started; what is known of it then."""
    busy = not space.settle(QUIET, START)
    members = space.members()
    own = proc.stat(space.pid)
    return Seen(
        ended_early=None if space.ended is None else os.waitstatus_to_exitcode(space.ended),
        busy=busy,
        comm=own.comm if isinstance(own, proc.Process) else "",
        processes=1 + len(members),
        branches=sum(one.ppid == space.pid for one in members),
    )


def try_orphans(space: Space, seen: Seen) -> Seen:
    """Does it reap what it adopts: some that live for a while, a burst, and some that are dead already?"""
    name = "sexton-orphan"
    hold, let_go = os.pipe()

    def live() -> None:
        os.close(let_go)
        os.read(hold, 1)

    def leave_a_zombie() -> None:
        if os.fork() == 0:
            os._exit(0)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # until it is dead, and not for good: it is for PID 1

    for count in (ORPHANS, BURST):
        space.adopt(count, live, name)
    os.close(hold)
    begin = time.monotonic()
    os.close(let_go)
    dying, dead = os.pipe()
    space.adopt(DEAD, leave_a_zombie, name)
    os.close(dead)
    select.select([dying], [], [], REAP)  # its end: the last of them has ended, or is about to
    seconds = _until_reaped(space, name, begin)
    given = ORPHANS + BURST + 2 * DEAD
    left = len(space.orphans(name)) if space.ended is None else 0
    return _result(space, seen, begin)._replace(given=given, reaped=given - left, seconds=seconds)


def _until_reaped(space: Space, name: str, begin: float) -> float:
    """Wait for the end of every orphan, and of what they leave in their turn; how long it took."""
    waiting: set[int] = set()
    known: set[int] = set()

    def over(fd: int) -> None:
        waiting.discard(fd)
        space.forget(fd)

    while space.ended is None and (fresh := set(space.orphans(name)) - known):
        known |= fresh
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                waiting.add(fd)
                space.watch(fd, partial(over, fd), 0)  # POLLHUP is the reaping, since Linux 6.9
        left = begin + REAP - time.monotonic()
        if not space.wait(lambda: not waiting or space.ended is not None, left):
            break
    return time.monotonic() - begin


def try_stop(space: Space, seen: Seen, grace: float) -> Seen:
    """SIGTERM: does it end, how soon, who else hears of it, and what is left for the kernel to kill?"""
    words = _plant_daemon(space)
    space.trace(space.members())
    names = {pid: name for pid, name in space.traced.items() if not name.startswith(_WITNESS)}
    seen = try_signal(space, seen, signal.SIGTERM, grace)
    # When PID 1 has ended the kernel has killed all of them; when not, none is waited for.
    if space.ended is not None:
        space.wait(lambda: space.traced.keys() <= space.statuses.keys(), REAP)
    heard = {pid for pid in names if space.heard[pid] & _STOPS}
    killed = {pid for pid in names if space.statuses.get(pid) == signal.SIGKILL}
    alive = names.keys() - space.statuses.keys()
    return seen._replace(
        heard=tuple(names[pid] for pid in sorted(heard)),
        deaf=tuple(names[pid] for pid in sorted((killed | alive) - heard)),
        left=tuple(names[pid] for pid in sorted(killed)),
        daemon=_daemon_said(words, ended=space.ended is not None),
    )


def try_signal(space: Space, seen: Seen, signum: int, patience: float) -> Seen:
    """Does it end by that signal?"""
    caught = _may_act(space.pid, signum)
    begin = time.monotonic()
    space.send(space.pid, signum)
    space.wait(lambda: space.ended is not None, patience if caught else DROPPED)
    return _result(space, seen, begin)._replace(caught=caught)


def try_terminal(space: Space, seen: Seen, patience: float) -> Seen:
    """Ctrl-C at its terminal: SIGINT to the group in the foreground."""
    caught = _may_act(space.pid, signal.SIGINT)
    begin = time.monotonic()
    os.write(space.terminal, b"\x03")
    space.wait(lambda: space.ended is not None, patience if caught or seen.processes > 1 else DROPPED)
    return _result(space, seen, begin)._replace(caught=caught)


def try_code(space: Space, seen: Seen, patience: float) -> Seen:
    """SIGKILL to its program (the end of the chain of oldest children): is 137 what comes out?"""
    members = space.members()
    if not members:
        return seen
    at = space.pid
    while below := [one for one in members if one.ppid == at]:
        at = below[0].pid
    name = next(one.name for one in members if one.pid == at)
    begin = time.monotonic()
    space.send(at, signal.SIGKILL)
    space.wait(lambda: space.ended is not None, patience)
    return _result(space, seen, begin)._replace(heard=(name,))


def _result(space: Space, seen: Seen, begin: float) -> Seen:
    if space.ended is None:
        return seen._replace(ended=False, seconds=time.monotonic() - begin)
    code = os.waitstatus_to_exitcode(space.ended)
    return seen._replace(ended=True, seconds=space.ended_at - begin, code=code)


def _may_act(pid: int, signum: int) -> bool:
    """Whether PID 1 can notice the signal: it has a handler, or blocks it and takes it by sigwait(3)."""
    status = proc.status(pid)
    return isinstance(status, proc.Status) and proc.has(status.caught | status.blocked, signum)


def _plant_daemon(space: Space) -> int:
    """An orphan in a session of its own that would end gracefully on SIGTERM, and writes when it gets one."""
    words, say = os.pipe2(os.O_CLOEXEC)

    def live() -> None:
        signal.signal(signal.SIGTERM, lambda *_: os.write(say, b"heard"))
        os.write(say, b"up.")
        signal.pause()

    space.adopt(1, live, _WITNESS)
    os.close(say)
    if select.select([words], [], [], REAP)[0]:
        os.read(words, 3)
    return words


def _daemon_said(words: int, *, ended: bool) -> str:
    """What became of the witness: its end of the pipe says so."""
    if not select.select([words], [], [], REAP if ended else 0)[0]:
        return "alive"
    return "heard" if os.read(words, 16) else "killed"
