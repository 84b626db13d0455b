"""The hosting platform of the incident: PID 1 of its container, starts customers' servers and stops them, all day long.

It does what its operators tell it on /control, a line each, and says when it is done:

    start N       start so many, each on a port of its own; says their ports
    stop I...     stop those; says nothing of them
    restart I...  stop and start those; says their ports

It stops what it started, npm; it reaps that, and knows of nobody else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess

apps: list[subprocess.Popen[str]] = []


def free_ports(count: int) -> list[int]:
    """Ports that nobody has; and nobody will, one hopes, until the servers have them."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def start(port: int) -> subprocess.Popen[str]:
    """Start a customer's server."""
    return subprocess.Popen(
        ["npm", "run", "start"],
        cwd="/incident/01-npm-run-start/shop",
        env=os.environ | {"PORT": str(port), "npm_config_update_notifier": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def await_all(started: list[subprocess.Popen[str]]) -> None:
    """Until they listen."""
    for app in started:
        assert app.stdout
        while app.stdout.readline() != "listening\n":
            pass


def stop(app: subprocess.Popen[str]) -> None:
    """Stop it, as far as the platform can tell."""
    app.terminate()
    app.wait()


def main() -> None:
    """Do as the operators say, for ever."""
    print("hosting", flush=True)
    while True:
        with open("/control") as control:
            words = control.readline().split()
        ports: list[int] = []
        match words:
            case ["start", count]:
                ports = free_ports(int(count))
                new = [start(port) for port in ports]
                await_all(new)
                apps.extend(new)
            case ["stop", *which]:
                for at in which:
                    stop(apps[int(at)])
            case ["restart", *which]:
                ports = free_ports(len(which))
                for at, port in zip(which, ports, strict=True):
                    stop(apps[int(at)])
                    apps[int(at)] = start(port)
                await_all([apps[int(at)] for at in which])
        print("done", *ports, flush=True)


main()
