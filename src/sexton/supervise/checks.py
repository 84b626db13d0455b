"""What must hold between the keys of a file, and between its apps, whatever each of them says for itself."""

from __future__ import annotations

import os
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from sexton.errors import UsageError
from sexton.supervise.shape import PROBES
from sexton.supervise.values import nearest
from sexton.supervise.variables import expand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from sexton.supervise.config import App, Condition, Config, Probe
    from sexton.supervise.positions import Path
    from sexton.supervise.values import Problems

LONGEST_SOCKET = 107
"""Bytes of the path of a unix socket: what sockaddr_un holds, see unix(7)."""
_NUMBERS = 999  # a path must have room for as many instances, for somebody may scale
_ANY = {"", "0.0.0.0", "[::]", "*"}  # noqa: S104 - compared with, not bound to


def settle_conditions(app: App, wanted: Mapping[str, Condition | None], apps: Mapping[str, App]) -> App:
    """With a condition for each app that it waits for: ready where that can be told, else started."""

    def suits(name: str) -> Condition:
        other = apps.get(name)
        told = other is not None and (other.ready is not None or "auto" in other.ports.values())
        return "ready" if told else "started"

    return msgspec.structs.replace(app, after={name: said or suits(name) for name, said in wanted.items()})


def check(config: Config, problems: Problems) -> None:
    """Tell `problems` of everything that does not fit together."""
    for app in config.apps.values():
        path = ("apps", app.name)
        _check_app(app, config, problems, path)
        _check_names(app, problems, path)
        _check_variables(app, config, problems, path)
        for name, probe in (("ready", app.ready), ("live", app.live)):
            if probe is not None:
                _check_probe(probe, problems, (*path, name))
    _check_completed(config, problems)
    _check_addresses(config, problems)
    _check_sockets(config, problems)


def _check_app(app: App, config: Config, problems: Problems, path: Path) -> None:
    if app.on_demand and not app.listen:
        problems.add((*path, "on_demand"), "it wants a socket to wait at: expected `listen`")
    if app.idle is not None and not app.on_demand:
        problems.add((*path, "idle"), "nothing would start it again: expected on_demand = true")
    orphans = app.orphans
    if orphans.policy == "expiration" and orphans.maximum is None:
        problems.add((*path, "orphans", "policy"), '"expiration" wants `maximum`, the seconds it lives at most')
    if orphans.policy != "expiration" and orphans.maximum is not None:
        problems.add((*path, "orphans", "maximum"), 'expected policy = "expiration": no other has a maximum')
    if app.stop.grace > config.stop_timeout:
        problems.add(
            (*path, "stop", "grace"),
            f"{app.stop.grace:g} s are more than stop_timeout, {config.stop_timeout:g} s, leaves for everything: "
            f"expected a longer stop_timeout, or a shorter grace",
        )
    if app.restart.maximum < app.restart.backoff:
        problems.add(
            (*path, "restart", "maximum"),
            f"{app.restart.maximum:g} s: expected {app.restart.backoff:g}, the backoff, or more",
        )


def _check_names(app: App, problems: Problems, path: Path) -> None:
    if app.name == "all":
        problems.add(path, "all means every app: call it otherwise")
    variables: dict[str, str] = {}
    for name in app.ports:
        variable = f"PORT_{name.upper().replace('-', '_')}"
        if variable in variables:
            problems.add((*path, "ports", name), f"it would be {variable}, as {variables[variable]} already is")
        variables[variable] = name


def _check_probe(probe: Probe, problems: Problems, path: Path) -> None:
    kinds = [kind for kind in PROBES if getattr(probe, kind) not in {None, False}]
    if len(kinds) != 1:
        problems.add(path, f"expected exactly one of {', '.join(PROBES)}, found {', '.join(kinds) or 'none'}")
    if probe.watchdog is not None and not probe.notify:
        problems.add((*path, "watchdog"), "it is fed by sd_notify(3): expected notify = true")


# --- variables ---


def _check_variables(app: App, config: Config, problems: Problems, path: Path) -> None:
    """That every ${...} will mean something."""
    own = dict.fromkeys(app.ports, 1)

    def port_of(name: str, port: str | None) -> int:
        other = config.apps.get(name)
        if other is None:
            raise UsageError(f"${{app.{name}.port}}: there is no app {name}{nearest(name, config.apps)}")
        if not other.ports:
            raise UsageError(f"${{app.{name}.port}}: {name} has no ports")
        if port is not None and port not in other.ports:
            raise UsageError(f"${{app.{name}.port.{port}}}: {name} has no such port, but {', '.join(other.ports)}")
        return 1

    def nobodys(name: str, port: str | None) -> int:
        variable = f"app.{name}.port" + (f".{port}" if port else "")
        raise UsageError(f"${{{variable}}}: a probe asks its own instance: expected ${{port}} or ${{port.NAME}}")

    for place, text in _texts(app):
        try:
            expand(text, own=own, number=0, port_of=nobodys if place[0] in {"ready", "live"} else port_of)
        except UsageError as error:
            problems.add((*path, *place), str(error))


def _texts(app: App) -> Iterator[tuple[Path, str]]:
    """Where variables may stand."""
    for word in app.command:
        yield ("command",), word
    for name, value in app.env.items():
        yield ("env", name), value
    if app.cwd is not None:
        yield ("cwd",), app.cwd
    for name in ("ready", "live"):
        probe = getattr(app, name)
        if probe is None:
            continue
        for kind in ("http", "tcp"):
            if isinstance(text := getattr(probe, kind), str):
                yield (name, kind), text
        for word in probe.exec or ():
            yield (name, "exec"), word


# --- the order ---


def check_order(after: Mapping[str, Iterable[str]], apps: Collection[str], problems: Problems) -> None:
    """Tell `problems` of what is waited for and is not there, and of cycles; `after`: whom each app waits for."""
    for app, others in after.items():
        for name in others:
            if name not in apps:
                problems.add(("apps", app, "after", name), f"there is no app {name}{nearest(name, apps)}")
    for cycle in _cycles(after):
        first, *others = [*cycle, cycle[0]]
        told = f"{first} waits for {others[0]}" + "".join(f", {one} for {other}" for one, other in pairwise(others))
        problems.add(("apps", cycle[0], "after"), f"a cycle: {told}")


def _check_completed(config: Config, problems: Problems) -> None:
    for app in config.apps.values():
        for name, condition in app.after.items():
            other = config.apps.get(name)
            if other and condition == "completed" and other.restart.policy == "always":
                text = f'"completed" never comes: {name} is always restarted (restart.policy)'
                problems.add(("apps", app.name, "after", name), text)


def _cycles(after: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Those that wait for themselves, each waiting for the next one; each is cut where it is told."""
    graph = {name: [other for other in others if other in after] for name, others in after.items()}
    order = list(after)
    found: list[list[str]] = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            cycle = error.args[1][:0:-1]
            first = min(range(len(cycle)), key=lambda place: order.index(cycle[place]))
            cycle = cycle[first:] + cycle[:first]
            graph[cycle[0]].remove(cycle[1 % len(cycle)])
            found.append(cycle)
        else:
            return found


# --- addresses ---


def _check_addresses(config: Config, problems: Problems) -> None:
    """No port and no socket twice; no port for more than one instance."""
    taken: list[tuple[str, int | str, str]] = []  # host, port or path, whose

    def take(host: str, port: int | str, path: Path, whose: str) -> None:
        for other_host, other_port, other in taken:
            if port == other_port and (host == other_host or host in _ANY or other_host in _ANY):
                what = f"port {port}" if isinstance(port, int) else port
                problems.add(path, f"{what} is that of {other} already")
                return
        taken.append((host, port, whose))

    for app in config.apps.values():
        path: Path = ("apps", app.name)
        for name, wanted in app.ports.items():
            if isinstance(wanted, int):
                take("", wanted, (*path, "ports", name), f"{app.name}.ports.{name}")
                if app.instances > 1:
                    text = f'{app.instances} instances cannot share port {wanted}: expected "auto", or `listen`'
                    problems.add((*path, "ports", name), text)
        for name, address in app.listen.items():
            take(*_parts(address), (*path, "listen", name), f"{app.name}.listen.{name}")
    if config.api:
        take(*_parts(config.api.listen), ("api", "listen"), "the API")


def _parts(address: str) -> tuple[str, int | str]:
    if address.startswith("unix:"):
        return "", address.removeprefix("unix:").partition("?mode=")[0]
    host, _, port = address.rpartition(":")
    return "127.0.0.1" if host == "localhost" else host, int(port)


def _check_sockets(config: Config, problems: Problems) -> None:
    """That each socket's path is one."""
    names = ["api.sock"]
    for app in config.apps.values():
        number = max(app.instances - 1, _NUMBERS)
        if any(probe and probe.notify for probe in (app.ready, app.live)):
            names.append(f"run/{app.name}.{number}.notify")
        if app.orphans.policy in {"gentle", "expiration"}:
            names.append(f"run/{app.name}.{number}.guard")
        for name, address in app.listen.items():
            socket = _parts(address)[1]
            if isinstance(socket, str) and len(os.fsencode(socket)) > LONGEST_SOCKET:
                problems.add(("apps", app.name, "listen", name), _too_long(socket))
    longest = max((os.path.join(config.state, name) for name in names), key=lambda name: len(os.fsencode(name)))
    if len(os.fsencode(longest)) > LONGEST_SOCKET:
        text = f"{_too_long(longest)}: expected a shorter `state` (or SEXTON_STATE), or shorter names of apps"
        problems.add(("state",), text)


def _too_long(path: str) -> str:
    return f"{path} has {len(os.fsencode(path))} bytes, and the path of a socket has {LONGEST_SOCKET} at most"
