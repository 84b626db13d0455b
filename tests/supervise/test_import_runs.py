"""What is made of another supervisor's file runs: imported, started, stopped, and nothing is left."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import urllib.request
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from tests.supervise import homes
from tests.support.lines import DEADLINE
from tests.support.processes import Handle

SERVER = """
const http = require("http");
http.createServer((request, response) => response.end(process.env.WHO)).listen(Number(process.env.PORT), "127.0.0.1");
"""

SUPERVISORD = """
[program:web]
command=python3 -m http.server --bind 127.0.0.1 %(ENV_SHOP_PORT)s
[program:ticker]
command=sh -c 'while :; do sleep 1000 & wait; done'
numprocs=2
process_name=%(program_name)s_%(process_num)d
"""
PROCFILE = """
web: exec python3 -m http.server --bind 127.0.0.1 $SHOP_PORT
ticker: while :; do sleep 1000 & wait; done
"""
COMPOSE = """
services:
  web:
    image: python
    command: python3 -m http.server --bind 127.0.0.1 {port}
    ports: ["80:{port}"]
    healthcheck: {{ test: "test -d .", interval: 1s, retries: 30 }}
  ticker:
    command: ["sh", "-c", "while :; do sleep 1000 & wait; done"]
    depends_on: {{ web: {{ condition: service_healthy }} }}
"""
PM2 = """
module.exports = {{ apps: [
  {{ name: "web", script: "server.js", instances: 3, exec_mode: "cluster", env: {{ PORT: {port}, WHO: "web" }} }},
  {{ name: "ticker", script: "sh", args: ["-c", "while :; do sleep 1000 & wait; done"] }},
] }};
"""


@pytest.fixture
def home() -> Generator[Path]:
    """A directory with a short name: the paths of sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sexton-") as name:
        yield Path(name)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("name", "text", "instances"),
    [
        ("supervisord.conf", SUPERVISORD, 3),
        ("Procfile", PROCFILE, 2),
        ("docker-compose.yml", COMPOSE, 2),
        ("ecosystem.config.js", PM2, 4),
    ],
)
def test_what_is_imported_runs(name: str, text: str, instances: int, home: Path) -> None:
    port = free_port()
    (home / "server.js").write_text(SERVER)
    (home / name).write_text(text if "$" in text or "%(" in text else text.format(port=port))
    environment = {**os.environ, "SEXTON_STATE": str(home / "s"), "SHOP_PORT": str(port)}

    def sexton(*words: str) -> str:
        done = homes.sexton(home, *words, env=environment)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    sexton("import", name)
    try:
        sexton("up", "-d")
        found = [one for app in json.loads(sexton("status", "--json"))["apps"] for one in app["instances"]]
        assert [one["state"] for one in found] == ["ready"] * instances
        handles = [Handle(one["pid"]) for one in found]
        ports = [one["ports"] for one in found if one["app"] == "web"]
        if name.startswith("ecosystem"):
            assert len({one["http"] for one in ports}) == 3, "each has its own"
            for one in ports:
                with urllib.request.urlopen(f"http://127.0.0.1:{one['http']}/", timeout=DEADLINE) as answer:
                    assert answer.read() == b"web"
    finally:
        sexton("down")
    assert not any(handle.alive() for handle in handles)
    for handle in handles:
        handle.close()
