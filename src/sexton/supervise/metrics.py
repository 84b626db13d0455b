"""What Prometheus is told: counted from what happened, and looked up in /proc when it is asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from sexton import __version__, proc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from sexton.supervise import models
    from sexton.supervise.supervisor import Supervisor

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds that a stop took
CAUSES = ("success", "failure", "signal", "stopped", "not-started")


def cause(how: models.Exit) -> str:
    """Why a command ended, as one of CAUSES; `stopped`: because it was asked to, whatever it answered."""
    if how.seconds:
        return "stopped"
    if how.signal:
        return "signal"
    if how.code is None:
        return "not-started"
    return "failure" if how.code else "success"


class Metrics:
    """Counts from now on what happens to the apps of a supervisor; `root` is that of /proc."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, supervisor: Supervisor, root: str = proc.PROC) -> None:
        self._supervisor = supervisor
        self._root = root
        self._exits: Counter[tuple[str, str]] = Counter()
        self._killed: Counter[str] = Counter()
        self._stops: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BOUNDS) + 1))
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._seen: dict[str, set[tuple[int, int]]] = {}
        self._forks: Counter[str] = Counter()
        for event in supervisor.events.since(0):
            self._take(event)
        supervisor.events.listen(self._take)

    def _take(self, event: models.Event) -> None:
        how = event.exit
        if event.kind != "exit" or how is None:
            return
        self._exits[event.app, cause(how)] += 1
        self._killed[event.app] += how.killed
        if how.seconds:
            self._stops[event.app][bisect_left(BOUNDS, how.seconds)] += 1
            self._spent[event.app] += how.seconds

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        from prometheus_client import CollectorRegistry, generate_latest  # some megabytes, which many never ask for

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()

    def collect(self) -> Iterator[Metric]:
        """By prometheus-client's protocol of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        status = self._supervisor.status()
        instances = [one for app in status.apps for one in app.instances]
        apps = [app.name for app in status.apps]
        yield InfoMetricFamily("sexton", "The supervisor.", {"version": __version__, "name": status.name})
        yield GaugeMetricFamily("sexton_start_time_seconds", "When the supervisor started.", status.since)
        yield GaugeMetricFamily("sexton_epoch", "How often a supervisor has started with this state.", status.epoch)

        def gauge(name: str, text: str, values: Iterable[tuple[models.Instance, float]]) -> Metric:
            family = GaugeMetricFamily(f"sexton_app_{name}", text, labels=["app", "instance"])
            for one, value in values:
                family.add_metric([one.app, one.name], value)
            return family

        yield gauge("up", "1: it is ready.", [(one, float(one.state == "ready")) for one in instances])
        states = GaugeMetricFamily("sexton_app_instances", "Instances in each state.", labels=["app", "state"])
        for (app, state), count in Counter((one.app, one.state) for one in instances).items():
            states.add_metric([app, state], count)
        yield states
        restarts = CounterMetricFamily("sexton_app_restarts", "Starts after the first.", labels=["app", "instance"])
        for one in instances:
            restarts.add_metric([one.app, one.name], one.restarts)
        yield restarts
        missing = Counter(dict.fromkeys(apps, 0))
        for one in instances:
            missing[one.app] += self._supervisor.capture.lost.get(one.name, 0)
        lost = CounterMetricFamily("sexton_app_log_lines_lost", "Lines that no disk had room for.", labels=["app"])
        for app, count in missing.items():
            lost.add_metric([app], count)
        yield lost
        yield from self._ends(apps)
        yield from self._trees(instances, gauge)

    def _ends(self, apps: list[str]) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        exits = CounterMetricFamily("sexton_app_exits", "Ends of commands, by cause.", labels=["app", "cause"])
        killed = CounterMetricFamily(
            "sexton_app_leftovers_killed", "Processes that had to be killed in stops.", labels=["app"]
        )
        stops = HistogramMetricFamily("sexton_app_stop_seconds", "From asking until nothing was left.", labels=["app"])
        for app in apps:
            for why in CAUSES:
                exits.add_metric([app, why], self._exits[app, why])
            killed.add_metric([app], self._killed[app])
            total, buckets = 0, []
            for bound, count in zip((*BOUNDS, "+Inf"), self._stops[app], strict=True):
                total += count
                buckets.append((str(bound), total))
            stops.add_metric([app], buckets, self._spent[app])
        yield exits
        yield killed
        yield stops

    def _trees(self, instances: list[models.Instance], gauge: Any) -> Iterator[Metric]:
        """What /proc says: one look at it for all."""
        from prometheus_client.core import CounterMetricFamily

        at = proc.snapshot(self._root)
        trees = {one.name: at.descendants(one.guard) if one.guard else () for one in instances}
        self._count_births(trees, instances)
        alive = [one for one in instances if one.pid]
        yield gauge("uptime_seconds", "Since its command was started.", self._ages(at, alive))
        yield gauge(
            "memory_bytes", "Resident in the processes of its tree; what they share counts for each.",
            [(one, float(sum(process.rss for process in trees[one.name]))) for one in instances],
        )  # fmt: skip
        yield gauge(
            "processes", "Of its tree, without its guard.", [(one, float(len(trees[one.name]))) for one in instances]
        )
        yield gauge(
            "zombies", "Of its tree.",
            [(one, float(sum(process.zombie for process in trees[one.name]))) for one in instances],
        )  # fmt: skip
        forks = CounterMetricFamily(
            "sexton_app_forks",
            "Processes that were seen in its trees: those that lived between two looks are not among them.",
            labels=["app"],
        )
        for app in dict.fromkeys(one.app for one in instances):
            forks.add_metric([app], self._forks[app])
        yield forks

    def _count_births(self, trees: dict[str, tuple[proc.Process, ...]], instances: list[models.Instance]) -> None:
        seen: dict[str, set[tuple[int, int]]] = {}
        for one in instances:
            now = {(process.pid, process.start) for process in trees[one.name]}
            self._forks[one.app] += len(now - self._seen.get(one.name, set()))
            seen[one.name] = now
        self._seen = seen

    def _ages(self, at: proc.Snapshot, alive: list[models.Instance]) -> list[tuple[models.Instance, float]]:
        return [(one, at.age(at.processes[one.pid])) for one in alive if one.pid in at]
