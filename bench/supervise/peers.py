"""The supervisors that are measured: how each is configured for the same apps, started, and asked for its status."""

from __future__ import annotations

import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench.init.programs import CHECKOUT, SEXTON, CannotMeasure, Program

CIRCUS = CHECKOUT / "build" / "peers"
Apps = Mapping[str, Sequence[str]]
"""Commands by the name of the app."""


class Supervisor(ABC):
    """One supervisor program; `folder` is where one run of it has everything."""

    name: ClassVar[str]
    backoff: ClassVar[float] = 0.0  # seconds of pause before a restart that are configured
    missing: ClassVar[str]

    def __init__(self) -> None:
        self.program = self.find()

    @abstractmethod
    def find(self) -> Program:
        """Raises CannotMeasure with what to install."""

    @abstractmethod
    def configure(self, folder: Path, apps: Apps) -> None:
        """Write what is needed to run them; each writes its output to log()."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """What runs it in the foreground."""

    @abstractmethod
    def status(self, folder: Path) -> list[str]:
        """What asks it how all of them are."""

    def log(self, folder: Path, app: str) -> Path:
        """Where the output of an app is written."""
        return folder / f"{app}.log"

    def environment(self, folder: Path) -> dict[str, str]:
        """What it, and its status command, has in its environment."""
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "SEXTON_STATE": str(folder / "state")}

    def _which(self, command: str, *asks: str) -> Program:
        path = shutil.which(command)
        if not path:
            raise CannotMeasure(f"{command} is not there: {self.missing}")
        return Program(self.name, Path(path), (path,), asks or (path, "--version"))


class Sexton(Supervisor):
    name = SEXTON
    missing = "make install"
    backoff = 0.1

    def find(self) -> Program:
        path = Path(sys.executable).with_name("sexton")
        if not path.exists():
            raise CannotMeasure(f"{path} is not there: {self.missing}")
        return Program(self.name, path, (str(path),))

    def configure(self, folder: Path, apps: Apps) -> None:
        parts = []
        for app, command in apps.items():
            parts.append(f"[apps.{app}]\ncommand = {json.dumps(list(command))}\n")
            parts.append(f'log = {{ directory = "{folder}", max_size = "100GB" }}\n')
            parts.append(
                f'restart = {{ policy = "always", backoff = {self.backoff}, factor = 1, jitter = 0, limit = 1000 }}\n'
            )
        (folder / "sexton.toml").write_text("".join(parts))

    def command(self, folder: Path) -> list[str]:
        up = [*self.program.words, "up", "-f", str(folder / "sexton.toml"), "--tell-fd", "3"]
        return ["sh", "-c", 'exec "$@" 3>/dev/null', "sh", *up]  # what -d has in the background: prints no output

    def status(self, folder: Path) -> list[str]:
        return [*self.program.words, "status", "-f", str(folder / "sexton.toml")]

    def log(self, folder: Path, app: str) -> Path:
        return folder / f"{app}.0.log"


class Supervisord(Supervisor):
    name = "supervisord"
    missing = "apt-get install supervisor"

    def find(self) -> Program:
        return self._which("supervisord")

    def configure(self, folder: Path, apps: Apps) -> None:
        socket = folder / "sock"
        parts = [
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/main.log\npidfile={folder}/pid\nminfds=4096\n",
            f"[unix_http_server]\nfile={socket}\n[supervisorctl]\nserverurl=unix://{socket}\n",
            "[rpcinterface:supervisor]\n",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n",
        ]
        for app, command in apps.items():
            parts.append(f"[program:{app}]\ncommand={' '.join(command)}\nautorestart=true\nstartsecs=0\n")
            parts.append(f"stdout_logfile={self.log(folder, app)}\nstdout_logfile_maxbytes=0\n")
            parts.append(f"stderr_logfile={folder}/{app}.err\n")
        (folder / "supervisord.conf").write_text("".join(parts))

    def command(self, folder: Path) -> list[str]:
        return [*self.program.words, "-c", str(folder / "supervisord.conf")]

    def status(self, folder: Path) -> list[str]:
        return ["supervisorctl", "-c", str(folder / "supervisord.conf"), "status"]


class S6(Supervisor):
    """Its services have no logger but where the log is what is measured: that is a process more for each."""

    name = "s6"
    missing = "apt-get install s6"

    def find(self) -> Program:
        return self._which("s6-svscan", "dpkg-query", "-W", "-f", "${Version}", "s6")

    def configure(self, folder: Path, apps: Apps) -> None:
        for app, command in apps.items():
            _script(folder / "scan" / app / "run", f"exec {' '.join(command)}")
            if len(apps) == 1:
                _script(folder / "scan" / app / "log" / "run", f"exec s6-log -b s268435455 n1000 {folder}/{app}")

    def command(self, folder: Path) -> list[str]:
        return [*self.program.words, "-c", "1000", str(folder / "scan")]

    def status(self, folder: Path) -> list[str]:
        return ["sh", "-c", f"for service in {folder}/scan/*; do s6-svstat $service; done"]

    def log(self, folder: Path, app: str) -> Path:
        return folder / app / "current"


class Circus(Supervisor):
    name = "circus"
    missing = f"python3 -m venv {CIRCUS.relative_to(CHECKOUT)} && {CIRCUS.relative_to(CHECKOUT)}/bin/pip install circus"

    def find(self) -> Program:
        path = CIRCUS / "bin" / "circusd"
        return self._which(str(path), str(path), "--version")

    def configure(self, folder: Path, apps: Apps) -> None:
        parts = [f"[circus]\nendpoint=ipc://{folder}/e\npubsub_endpoint=ipc://{folder}/p\nstatsd=False\n"]
        for app, command in apps.items():
            parts.append(f"[watcher:{app}]\ncmd={' '.join(command)}\ncopy_env=True\n")
            parts.append(f"stdout_stream.class=FileStream\nstdout_stream.filename={self.log(folder, app)}\n")
        (folder / "circus.ini").write_text("".join(parts))

    def command(self, folder: Path) -> list[str]:
        return [*self.program.words, "--log-level", "ERROR", str(folder / "circus.ini")]

    def status(self, folder: Path) -> list[str]:
        return [str(CIRCUS / "bin" / "circusctl"), "--endpoint", f"ipc://{folder}/e", "status"]


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


SUPERVISORS: dict[str, type[Supervisor]] = {each.name: each for each in (Sexton, Supervisord, S6, Circus)}
