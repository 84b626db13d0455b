"""One instance of an app: does what the table of states says, and tells it what happened."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.errors import SextonError
from sexton.supervise import demand, limits, models, probes, starting, stopping, survivors
from sexton.supervise.config import Probe
from sexton.supervise.life import Life, joined, said
from sexton.supervise.notify import Notify
from sexton.supervise.states import SHOWN, TABLE, Action, Event, State, judge, pause

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from typing import Any

    from sexton.spawn import Process, Tree
    from sexton.supervise.config import App
    from sexton.supervise.house import House
    from sexton.supervise.journal import Entry

ALIVE: frozenset[State] = frozenset({"starting", "ready", "stopping", "restarting", "failing", "ending", "parking"})
SETTLED: frozenset[State] = frozenset({"stopped", "completed", "fatal"})
SOME_LINES = 1000  # in which an adopted instance may have said that it is ready


class Instance:
    """`web.0`: its state, its life, and what is being waited for."""

    def __init__(self, house: House, app: App, number: int) -> None:
        self.house = house
        self.app = app
        self.number = number
        self.name = f"{app.name}.{number}"
        self.state: State = "stopped"
        self.since = time.time()
        self.message = ""
        self.restarts = 0
        self.adopted = False
        self.retry_at: float | None = None
        self.last_exit: models.Exit | None = None
        self.life: Life | None = None
        self.survivors: survivors.Survivors | None = None  # of a tree that nobody looks after any more
        self.mark = ""
        self.cell: limits.Cell | None = None  # its cgroup, if it is limited
        self.notify: Notify | None = None
        self.environment: dict[str, str] = {}
        self._failures = 0  # in a row
        self._failing_since = 0.0  # monotonic, if there are some
        self._lines: asyncio.Queue[models.Line] | None = None
        self._hear_no_more: Callable[[], None] = lambda: None
        self._queue: deque[tuple[Event, str]] = deque()
        self._busy = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._stopping: asyncio.Task[None] | None = None
        self._do: dict[Action, Callable[[], None]] = {
            "await": house.look_at_waiting,
            "spawn": self._spawn,
            "probe": self._probe,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "end": self._end,
            "listen": self._listen,
            "unlisten": self._unwatch,
            "schedule": self._schedule,
            "unschedule": self._unwatch,
            "reset": self._reset,
            "escalate": self._escalate,
        }

    # --- what others see ---

    @property
    def shown(self) -> models.State:
        """Its state, as the outside is told it."""
        return "stuck" if self.survivors and self.survivors.text else SHOWN[self.state]

    @property
    def why(self) -> str:
        """Why it is in that state."""
        return (self.survivors.text if self.survivors else "") or self.message

    @property
    def rests(self) -> bool:
        """Nothing will happen to it by itself, or nobody can say when."""
        return self.state in SETTLED or self.shown == "stuck"

    @property
    def ports(self) -> dict[str, int]:
        """Those that it has now, by name."""
        return self.house.reserved.of(self.name)

    @property
    def cwd(self) -> str | None:
        """The directory that it runs in; None: ours."""
        return starting.directory(self)

    def pids(self) -> set[int]:
        """Every living process of its tree."""
        return self.life.processes() if self.life else set()

    async def lines(self) -> AsyncIterator[models.Line]:
        """What its command has written and writes: from its start on, for a readiness that waits for a line."""
        lines = self._listen_to_lines()
        while True:
            yield await lines.get()

    def _listen_to_lines(self) -> asyncio.Queue[models.Line]:
        if self._lines is None:
            self._lines = asyncio.Queue()
            self._hear_no_more = self.house.capture.listen(self._lines.put_nowait, self.name)
        return self._lines

    def _stop_listening_to_lines(self) -> None:
        if self._lines is not None:
            self._hear_no_more()
            self._lines = None

    def model(self) -> models.Instance:
        """As the control API says it."""
        life = self.life
        status = self.notify.status if self.notify else ""
        return models.Instance(
            name=self.name,
            app=self.app.name,
            number=self.number,
            state=self.shown,
            since=self.since,
            pid=life.pid if life else 0,
            guard=life.guard if life else 0,
            restarts=self.restarts,
            adopted=self.adopted,
            ports=self.ports,
            last_exit=self.last_exit,
            message=self.why or status,
            retry_at=self.retry_at,
        )

    # --- the table ---

    def happen(self, event: Event, message: str = "") -> None:
        """Something happened: what follows from it is done before this returns."""
        self._queue.append((event, message))
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                self._take(*self._queue.popleft())
        finally:
            self._busy = False
            self._queue.clear()  # where an error came between, what it would have led to is not done later

    def _take(self, event: Event, message: str) -> None:
        step = TABLE.get((self.state, event))
        if step is None:
            return
        was, shown, self.state = self.state, self.shown, step.state
        if was != step.state:
            self.since = time.time()
            self.message = message
            self.house.changed(self, shown)
        for action in step.actions:
            self._do[action]()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.house.fault(self, error)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call))

    # --- starting ---

    def _spawn(self) -> None:
        self.retry_at = None
        if self.last_exit:
            self.restarts += 1
        try:
            self._start()
        except Exception as error:  # noqa: BLE001 - preexec_fn: SubprocessError; NUL: ValueError; a huge uid: OverflowError
            self.house.capture.flush(self.name)
            self._judge(good=False, why=joined(starting.refusal(self, error), self._leave_cell()))

    def _start(self) -> None:
        app, house = self.app, self.house
        for name, wanted in app.ports.items():
            house.reserved.take(self.name, name, wanted)
        house.reserved.secure(self.name)
        house.ports_changed()
        if starting.uses_notify(app):
            self.notify = self.notify or self._hear()
            self.notify.reset()
        self.mark = uuid.uuid4().hex
        plan = starting.plan(self)
        self.environment, self.cell = plan.environment, plan.cell
        starting.write_down(self, plan)
        try:
            tree = self._start_tree(plan)
        except BaseException:
            house.journal.append("end", tree=self.mark)
            raise
        self.adopted = False
        try:
            self._live(tree)
        except BaseException:
            tree.kill()  # nobody would hear of its end
            house.journal.append("end", tree=self.mark)
            raise

    def _start_tree(self, plan: starting.Plan) -> Tree:
        app = self.app
        if app.ready and app.ready.log is not None:
            self._listen_to_lines()
        if plan.listen:
            Path(plan.listen).unlink(missing_ok=True)  # of a guard that was killed
        out, err = self.house.capture.open(self.name, app.log, starting.uid(app))
        try:
            settings: Any = {**plan.settings, "stdout": out, "stderr": err}
            return survivors.Guarded.unawaited(plan.command, settings, mark=self.mark)
        finally:
            os.close(out)
            os.close(err)

    def _live(self, tree: Tree) -> None:
        loop = asyncio.get_running_loop()
        self.life = Life(tree, loop, started=self._started, written=self._write_down, over=self._over)
        if self.cell:
            self.cell.watch(self._limited)

    def adopt(self, entry: Entry, tree: Tree, *, ready: bool) -> None:
        """Its tree is there already: an earlier supervisor started it."""
        self.mark = entry.tree
        self.adopted = True
        self.restarts = entry.restarts
        self.cell = limits.Cell(Path(entry.cgroup)) if entry.cgroup else None
        self.environment = dict(os.environ)
        for name, port in entry.ports.items():
            self.house.reserved.adopt(self.name, name, port, self.app.ports.get(name, port))
        unheard = self._hear_again()
        if not ready and self.app.ready and self.app.ready.log is not None:
            lines = self._listen_to_lines()
            for line in self.house.capture.tail([self.name], SOME_LINES):  # it may have been written before
                lines.put_nowait(line)
        self._live(tree)
        self.happen("found-ready" if ready else "found")
        if unheard:  # it would hang as soon as nobody has room for what it writes
            self.happen("restart", f"what it writes cannot be read any more: {unheard}")

    def _hear_again(self) -> str:
        """Go on to hear of it; gives what kept us from that."""
        try:
            if starting.uses_notify(self.app):
                self.notify = self._hear()
            self.house.capture.resume(self.name, self.app.log)
        except OSError as error:
            return str(error)
        return ""

    def inherit(self, entry: Entry) -> None:
        """Of the tree that an earlier supervisor started is left who does not end."""
        self.mark, self.restarts = entry.tree, entry.restarts
        self.cell = limits.Cell(Path(entry.cgroup)) if entry.cgroup else None
        self.happen("remains")
        self._wait_for(entry.survivors, 0 if entry.survivors else survivors.PATIENCE)

    def _hear(self) -> Notify:
        path = self.house.run / f"{self.name}.notify"
        return Notify(path, self._is_ours, on_message=self._not_obeyed, abstract=self.app.user is not None)

    def _not_obeyed(self, text: str) -> None:
        self.house.events.tell("notify", app=self.app.name, instance=self.name, message=text)

    def _limited(self, text: str) -> None:
        if self.state in {"starting", "ready"}:
            self.message = text
        self.house.events.tell("limit", app=self.app.name, instance=self.name, message=text)

    def _is_ours(self, pid: int) -> bool:
        return pid in self.pids()

    def _started(self) -> None:
        life = self.life
        assert life
        if self.state == "starting":
            self._probe()

    def _probe(self) -> None:
        """Once the command runs: wait until it is ready."""
        if not (self.life and self.life.pid) or self._tasks:
            return
        probe = self.app.ready
        if probe is None and any(wanted == "auto" for wanted in self.app.ports.values()):
            probe = Probe(tcp="${port}")  # to know that the port is really its own
        if probe is None:
            self.happen("ready")
        else:
            self._task(self._until_ready(probe))

    async def _until_ready(self, probe: Probe) -> None:
        try:
            await probes.until_ready(probe, self)
        except probes.ProbeFailed as error:
            self._mind_ports()
            self.happen("unwell", f"not ready: {error}")
        else:
            self.house.journal.append("ready", tree=self.mark)
            self.happen("ready")
        finally:
            self._stop_listening_to_lines()

    def _mind_ports(self) -> None:
        """An auto port that a stranger has is not offered again, and one that nobody has is offered otherwise."""
        for name, whose in self.house.ports_without_us(self):
            if whose == "other":
                self.house.reserved.again(self.name, name)
                self.house.ports_changed()
            else:
                self.house.reserved.missed(self.name, name)

    # --- living ---

    def _watch(self) -> None:
        if self.app.live:
            self._task(self._until_unwell(self.app.live))
        if self._failures:
            self._later(self.app.restart.stable, lambda: self.happen("stable"))
        if self.app.on_demand and self.app.idle is not None:
            self._task(self._until_unused(self.app.idle))

    async def _until_unwell(self, probe: Probe) -> None:
        self.happen("unwell", await probes.until_unwell(probe, self))

    async def _until_unused(self, idle: float) -> None:
        await demand.until_idle(self.house.sockets, self.app, self.pids, idle)
        self.happen("unused", f"nobody was connected for {idle:g} s")

    def _listen(self) -> None:
        self._task(self._until_wanted())

    async def _until_wanted(self) -> None:
        try:
            await demand.until_wanted(self.house.sockets, self.app)
        except (SextonError, OSError) as error:
            self.happen("exhausted", str(error))
        else:
            self.happen("wanted")

    def _unwatch(self) -> None:
        self.retry_at = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._tasks.clear()  # the current one, which made this happen, is about to end

    # --- ending ---

    def _end(self) -> None:
        if self.life is None:
            self.happen("gone")
            return
        self.life.ask()
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(stopping.stop(self, self.life))
            self._stopping.add_done_callback(self._stop_done)

    def _stop_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.house.fault(self, error)

    def hurry(self) -> None:
        """It is being stopped, and there is no more time."""
        if self.life and self.state in ALIVE:
            self.life.ask()
            self.life.order("stop 0")

    def leave(self) -> None:
        """Give its tree up, as it is."""
        self._unwatch()
        if self._stopping:
            self._stopping.cancel()
        if self.survivors:
            self.survivors.close()
        if self.life:
            self.life.leave()
            self.life = None
        if self.cell:
            self.cell.unwatch()

    def _write_down(self, how: models.Exit) -> None:
        self.last_exit = how
        self.house.journal.append("exit", tree=self.mark, instance=self.name, exit=how)
        self.house.tell_exit(self, how)

    def _over(self) -> None:
        """The guard has gone."""
        life = self.life
        assert life
        if self._stopping:
            self._stopping.cancel()
            self._stopping = None
        if left := life.left:
            self._wait_for(left, life.patience)
            self.happen("remains")
        else:
            self._gone()

    def _wait_for(self, left: Sequence[Process], patience: float) -> None:
        self.survivors = survivors.Survivors(
            self.mark, left, asyncio.get_running_loop(), patience=patience, said=self._stick, over=self._unstick
        )

    def _stick(self) -> None:
        assert self.survivors
        killed = [(process.pid, process.start) for process in self.survivors.left]
        self.house.journal.append("left", tree=self.mark, killed=killed)
        self.house.changed(self, SHOWN[self.state])

    def _unstick(self) -> None:
        shown, self.survivors = self.shown, None
        self.house.changed(self, shown)
        if self.life:
            self.life.end()
        self._gone()

    def _gone(self) -> None:
        """Nothing is left."""
        life, self.life = self.life, None
        limited = self._leave_cell()
        self.house.journal.append("end", tree=self.mark)
        self.house.capture.flush(self.name)
        if life and self.state in {"starting", "ready", "failing", "ending"}:
            how = life.exit
            good = bool(how and how.code == 0) and self.state != "failing" and not life.failed
            self._judge(good=good, why=joined(life.failed or said(how), limited))
        else:
            self.happen("gone")

    def _leave_cell(self) -> str:
        """Take its cgroup away; gives what the kernel did because of its limits."""
        cell, self.cell = self.cell, None
        return cell.end() if cell else ""

    def _judge(self, *, good: bool, why: str) -> None:
        if self.state == "failing":
            why = self.message
        if self.state == "starting":
            self._mind_ports()
        verdict = judge(self.app.restart, good=good, failures=self._failures)
        if verdict == "again" and not self.house.stopping:
            self.happen("again", why)
            return
        if verdict == "exhausted":
            why += starting.given_up(self, self._failures, self._failing_since)
        self.happen("exhausted" if verdict == "again" else verdict, why)

    def _schedule(self) -> None:
        length = pause(self.app.restart, self._failures, random.random())  # noqa: S311 - to spread, not to hide
        if not self._failures:
            self._failing_since = time.monotonic()
        self._failures += 1
        self.retry_at = time.time() + length
        self._later(length, lambda: self.happen("due"))
        self.house.failed(self)

    def _reset(self) -> None:
        self._failures = 0

    def _escalate(self) -> None:
        self.house.fatal(self)

    def close(self) -> None:
        """It is not to be any more: nothing runs, nothing is kept."""
        self._unwatch()
        if self.survivors:
            self.survivors.close()
        if self.notify:
            self.notify.close()
            self.notify = None
        self.house.capture.close(self.name)
        self.house.reserved.release(self.name)
