"""Incident 2: see README.md."""

from __future__ import annotations

import http.client
from pathlib import Path

from incidents.replaying import Table, output, real_root
from tests.containers.podman import Podman, eventually
from tests.support.lines import DEADLINE

TITLE = "a Node service as PID 1 runs out of pids"
HERE = Path(__file__).parent

PIDS_LIMIT = 64  # the real one had 15,000, and took days
PAGES = 150


def page(port: int) -> str:
    """Have one page measured; what the service answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", "/page")
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def run(podman: Podman, *init: str) -> dict[str, object]:
    """Measure pages until one fails."""
    container = podman.start(f"--pids-limit={PIDS_LIMIT}", *init, *real_root(HERE), "node", "/incident/service.js")
    with output(container) as lines:
        port = int(lines.until(lambda line: line.startswith("listening"))[-1].split()[1])
        answers = [page(port)]
        while answers[-1] == "measured" and len(answers) < PAGES:
            answers.append(page(port))
        measured = answers.count("measured")
        # The helper of every page is dead, or will be in a moment: each a zombie then, or buried.
        expected = 0 if init else measured
        eventually(lambda: len(container.zombies()) == expected, f"there are {expected} zombies")
        counts: dict[str, object] = {
            "PID 1": container.processes()[0].comm,
            "pages measured": measured,
            "zombies": len(container.zombies()),
            "the answer after that": answers[-1],
            "podman exec ... ps": "fails" if container.exec("sh", "-c", "ps; ps").code else "works",
        }
        container.remove()
    return counts


def replay(init: Path) -> Table:
    """The service as its image started it, and with --init."""
    with Podman() as podman:
        return {"as it was": run(podman), "sexton-init": run(podman, "--init", f"--init-path={init}")}


def check(table: Table) -> None:
    """The limit is reached by zombies alone; with sexton-init there is none."""
    before, after = table.values()
    assert before["PID 1"] == "node"
    assert isinstance(before["pages measured"], int)
    assert before["pages measured"] < PIDS_LIMIT
    assert before["zombies"] == before["pages measured"]
    assert before["the answer after that"] != "measured"
    assert before["podman exec ... ps"] == "fails"
    assert after["pages measured"] == PAGES
    assert after["zombies"] == 0
    assert after["the answer after that"] == "measured"
    assert after["podman exec ... ps"] == "works"
