"""The hosting platform: PID 1 of its container. It starts each customer's server on a port of its own, and stops it.

    hosting.py npm|group|guard APPS

It reaps what it started itself, and knows of nobody else: as any program that is not an init.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

START = ["npm", "run", "start"]
GUARD = ["/sexton-init", "--grace", "0.5", "--"]


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def start(how: str) -> tuple[int, subprocess.Popen[str]]:
    """Start one customer's server; gives its port once it listens."""
    port = free_port()
    words = GUARD + START if how == "guard" else START
    app = subprocess.Popen(
        words,
        cwd="/incident/shop",
        env=os.environ | {"PORT": str(port), "npm_config_update_notifier": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0 if how == "group" else None,
    )
    assert app.stdout
    while app.stdout.readline() != "listening\n":
        pass
    return port, app


def stop(how: str, app: subprocess.Popen[str]) -> None:
    """Stop one customer's server, as far as the platform can tell."""
    if how == "group":
        os.killpg(app.pid, signal.SIGTERM)
    else:
        app.terminate()
    app.wait()


def main() -> None:
    """Host until told on /control to stop every app, then stay."""
    how, count = sys.argv[1], int(sys.argv[2])
    apps = [start(how) for _ in range(count)]
    print("hosting", *(port for port, _ in apps), flush=True)
    with open("/control") as control:
        control.readline()
    for _, app in apps:
        stop(how, app)
    print("stopped", flush=True)
    signal.pause()


main()
