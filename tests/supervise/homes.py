"""A directory with a sexton.toml in it, and `sexton` as a user starts it there."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from sexton.supervise import models
from sexton.supervise.client import Client
from tests.support.lines import DEADLINE
from tests.support.running import Place, Running

SEXTON = Path(sysconfig.get_path("scripts"), "sexton")


def sexton(here: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command to its end, whatever that is."""
    return subprocess.run(
        [SEXTON, *words], cwd=here, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=2 * DEADLINE, check=False,
    )  # fmt: skip


class Home:
    """Whatever was started there is to be ended by `down`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "sexton.toml"
        self.state = directory / "state"

    def write(self, head: str = "", **apps: str) -> None:
        """Each app is a shell script; what follows `#` in it are more keys."""
        text = f'state = "state"\n{head}\n'
        for name, script in apps.items():
            command, _, keys = script.partition("#")
            text += f'[apps.{name}]\ncommand = ["sh", "-c", {json.dumps(command)}]\n{keys}\n'
        self.file.write_text(text)

    def sexton(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, whatever that is."""
        return sexton(self.directory, *words)

    def do(self, *words: str) -> str:
        """One that must end well: what it says."""
        done = self.sexton(*words)
        assert done.returncode == 0, (words, done)
        return done.stdout

    def up(self) -> Running:
        """In the foreground."""
        process = subprocess.Popen(
            [SEXTON, "up"], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return Running(process, Place.HERE)

    @property
    def client(self) -> Client:
        return Client(self.state / "api.sock")

    @property
    def supervisor(self) -> int:
        """Its pid."""
        return self.client.status().pid

    def instances(self) -> dict[str, models.Instance]:
        return {one.name: one for app in self.client.status().apps for one in app.instances}

    def pids(self) -> dict[str, int]:
        """Of the command of each instance."""
        return {name: one.pid for name, one in self.instances().items()}
