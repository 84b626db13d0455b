"""Incident 1: see README.md."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

from incidents.replaying import Table, output, real_root, servers, taken
from tests.containers.podman import Podman, eventually
from tests.support.lines import DEADLINE
from tests.support.processes import status

TITLE = "a hosting platform stops npm, and the servers live on"
HERE = Path(__file__).parent

APPS = 3


def visit(port: int) -> http.client.HTTPConnection:
    """Connect to a customer's server, and stay."""
    visitor = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    visitor.request("GET", "/news")
    assert visitor.getresponse().readline() == b"welcome\n"
    return visitor


def run(podman: Podman, how: str, init: Path | None = None) -> dict[str, object]:
    """Host the apps, stop them all, and count what is left in the container."""
    control = podman.home / f"control-{how}"
    os.mkfifo(control)
    words = [f"--volume={control}:/control"]
    if init:
        words += [f"--volume={init}:/sexton-init:ro", "--init", f"--init-path={init}"]
    container = podman.start(*words, *real_root(HERE), "python3", "/incident/hosting.py", how, str(APPS))
    with output(container) as lines:
        ports = [int(word) for word in lines.until(lambda line: line.startswith("hosting"))[-1].split()[1:]]
        assert len(servers(container)) == APPS
        visitors = [visit(port) for port in ports]
        control.write_text("stop them\n")
        lines.until(lambda line: line == "stopped")
        for visitor in visitors:
            visitor.close()
        if how == "group":  # the servers were told, and end now: later than npm and its shell, as servers do
            eventually(lambda: len(container.zombies()) == APPS, "the servers have ended")
        left = servers(container)
        counts: dict[str, object] = {
            "servers started": APPS,
            "servers alive after the stop": len(left),
            "their memory, MB": sum(int(status(each.pid, container.proc)["VmRSS"].split()[0]) for each in left) // 1024,
            "ports still taken": sum(map(taken, ports)),
            "<defunct>": len(container.zombies()),
        }
        container.remove()
    return counts


def replay(init: Path) -> Table:
    """As it was; as it was after the first repair; and with sexton-init, as PID 1 and in front of each app."""
    with Podman() as podman:
        return {
            "stop npm": run(podman, "npm"),
            "stop its group": run(podman, "group"),
            "sexton-init": run(podman, "guard", init),
        }


def check(table: Table) -> None:
    """Servers are left, or zombies are; with sexton-init neither, at the moment the platform's own wait is over."""
    npm, group, sexton = table.values()
    assert npm["servers alive after the stop"] == npm["ports still taken"] == APPS
    assert npm["their memory, MB"] != 0
    assert group["servers alive after the stop"] == group["ports still taken"] == 0
    assert group["<defunct>"] == APPS
    assert set(sexton.values()) == {APPS, 0}
    assert sexton["servers started"] == APPS
