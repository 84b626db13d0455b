"""Incident 4: see README.md."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
from pathlib import Path

from incidents.replaying import Table, output, real_root
from tests.containers.podman import Podman, eventually
from tests.support.lines import DEADLINE, Lines

TITLE = "an agent in its own session before an exec'ed application"
HERE = Path(__file__).parent

SAMPLES = 20
TINI = "/usr/bin/tini"
SEXTON_UP = (str(Path(sys.executable).with_name("sexton")), "up", "--file", "/incident/sexton.toml")


def upload(port: int, lines: Lines, podman: Podman, container_id: str, seconds: int) -> str:
    """Begin an upload, have the container stopped, send the rest once the application is told; how that ended."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.putrequest("PUT", "/")
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"first")
    lines.until(lambda line: "upload begins" in line)
    stopping = podman.popen("stop", f"--time={seconds}", container_id)
    while (line := lines.line()) is not None and "SIGTERM" not in line:
        pass
    try:
        connection.send(b"-last")
        answer = connection.getresponse()
        ending = "finished" if answer.read() == b"10 bytes" else "wrong"
    except (http.client.HTTPException, ConnectionError):
        ending = "cut off"
    connection.close()
    stopping.communicate(timeout=DEADLINE)
    assert stopping.returncode == 0
    return ending


def run(
    podman: Podman,
    name: str,
    *words: str,
    entry: str = "start.sh",
    command: tuple[str, ...] = (),
    reaps: bool,
    seconds: int,
) -> dict[str, object]:
    """A day in the life of the container, and its stop."""
    folder = podman.home / name
    shutil.copytree(HERE, folder)
    if entry == "without-exec.sh":
        (folder / entry).write_text((folder / "start.sh").read_text().replace("exec node", "node"))
        (folder / entry).chmod(0o755)
    up = folder / "app-is-up"
    os.mkfifo(up)
    options = [f"--env=SAMPLES={SAMPLES}", "--env=APP_IS_UP=/incident/app-is-up", *words]
    container = podman.start(*options, *real_root(folder), *(command or [f"/incident/{entry}"]))
    with output(container) as lines:
        said = lines.until(lambda line: "listening" in line or "samples" in line, 2)
        port = next(int(line.split()[-1]) for line in said if "listening" in line)
        expected = 0 if reaps else SAMPLES
        eventually(lambda: len(container.zombies()) == expected, f"there are {expected} zombies")
        counts: dict[str, object] = {
            "zombies after a while": len(container.zombies()),
            "the upload under way": upload(port, lines, podman, container.id, seconds),
        }
        lines.rest()
        said = [line.removeprefix("service.0 | ") for line in lines.seen.decode().splitlines()]
        for who, word in {"application": "main_app: SIGTERM", "agent": "agent: stopped"}.items():
            counts[f"the {who} was told"] = {0: "no", 1: "once"}.get(
                sum(line.startswith(word) for line in said), "twice"
            )
        counts["exit code"] = container.wait()
        container.remove()
    return counts


def replay(init: Path) -> Table:
    """The image as it was; without its exec; with tini, as it was repaired; with sexton-init; under sexton up."""
    with Podman() as podman:
        return {
            "exec": run(podman, "exec", reaps=False, seconds=30),
            # bash passes no signal on, so this stop always ends with the engine's SIGKILL: here after 1 s, not 10.
            "no exec": run(podman, "no-exec", entry="without-exec.sh", reaps=True, seconds=1),
            "exec, tini": run(podman, "tini", "--init", f"--init-path={TINI}", reaps=True, seconds=30),
            "exec, sexton-init": run(podman, "sexton", "--init", f"--init-path={init}", reaps=True, seconds=30),
            "sexton up": run(podman, "up", f"--env=SEXTON_INIT={init}", command=SEXTON_UP, reaps=True, seconds=30),
        }


def check(table: Table) -> None:
    """Each of the ways before has a damage of its own; sexton-init has none of them, nor has sexton up."""
    before, no_exec, tini, sexton, up = (list(counts.values()) for counts in table.values())
    #                 zombies, the upload, the application, the agent, the exit code
    assert before == [SAMPLES, "finished", "once", "no", 0]
    assert no_exec == [0, "cut off", "no", "no", 137]
    assert tini == [0, "finished", "once", "no", 0]
    assert sexton == up == [0, "finished", "once", "once", 0]
