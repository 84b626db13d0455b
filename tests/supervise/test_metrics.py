"""What Prometheus is told."""

from __future__ import annotations

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sexton.supervise import models
from sexton.supervise.client import Client
from sexton.supervise.metrics import CAUSES, cause
from tests.supervise.fake import Serving


def values(served: Serving) -> dict[tuple[str, str], float]:
    """Each sample by its name and the values of its labels; the parser of Prometheus has read them."""
    text = Client(served.path).metrics()
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def end(served: Serving, **how: object) -> None:
    told = models.Exit(time=1.0, **how)  # type: ignore[arg-type]  # as the test says
    served.do(lambda: served.fake.events.tell("exit", app="web", instance="web.0", exit=told))


def test_states_and_restarts(served: Serving) -> None:
    served.fake.capture.lost["web.1"] = 7
    found = values(served)
    assert found["sexton_app_log_lines_lost_total", "web"] == 7
    assert found["sexton_app_up", "web web.0"] == 1
    assert found["sexton_app_up", "web web.1"] == 0
    assert found["sexton_app_instances", "web backoff"] == 1
    assert found["sexton_app_restarts_total", "db db.0"] == 0
    assert found["sexton_epoch", ""] == 3


def test_ends_are_counted_from_the_start(served: Serving) -> None:
    end(served, code=0)
    end(served, code=3)
    end(served, signal="SEGV")
    end(served, signal="TERM", seconds=0.7, killed=2)
    end(served, code=0, seconds=0.02)
    end(served)
    found = values(served)
    assert {why: found["sexton_app_exits_total", f"web {why}"] for why in CAUSES} == {
        "success": 1, "failure": 1, "signal": 1, "stopped": 2, "not-started": 1
    }  # fmt: skip
    assert found["sexton_app_exits_total", "db signal"] == 0
    assert found["sexton_app_leftovers_killed_total", "web"] == 2
    assert found["sexton_app_stop_seconds_count", "web"] == 2
    assert found["sexton_app_stop_seconds_sum", "web"] == pytest.approx(0.72)
    assert found["sexton_app_stop_seconds_bucket", "web 0.05"] == 1
    assert found["sexton_app_stop_seconds_bucket", "web 1.0"] == 2
    assert found["sexton_app_stop_seconds_bucket", "web +Inf"] == 2


def test_what_the_tree_is(served: Serving) -> None:
    """The fake's guard is this process: of its tree is what the test starts, beside what it has already."""
    before = values(served)
    processes, zombies = (before[f"sexton_app_{name}", "web web.0"] for name in ("processes", "zombies"))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        found = values(served)
        assert found["sexton_app_processes", "web web.0"] == processes + 1
        assert found["sexton_app_memory_bytes", "web web.0"] > 1 << 20
        assert found["sexton_app_uptime_seconds", "web web.0"] > 0
        forks = found["sexton_app_forks_total", "db"]
        assert forks >= 1
        assert values(served)["sexton_app_forks_total", "db"] == forks
    finally:
        os.close(writer)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    found = values(served)
    assert found["sexton_app_zombies", "web web.0"] == zombies + 1
    os.waitpid(child, 0)
    assert values(served)["sexton_app_processes", "web web.0"] == processes


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (models.Exit(time=0, code=0), "success"),
        (models.Exit(time=0, code=1), "failure"),
        (models.Exit(time=0, signal="KILL"), "signal"),
        (models.Exit(time=0, signal="KILL", seconds=1), "stopped"),
        (models.Exit(time=0), "not-started"),
    ],
)
def test_causes(how: models.Exit, why: str) -> None:
    assert cause(how) == why
