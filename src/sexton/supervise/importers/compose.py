"""docker-compose.yml: what it says of the processes; images, networks and volumes are no matter of ours."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from sexton.errors import UsageError
from sexton.supervise import envfile
from sexton.supervise.importers._draft import literal, said, seconds, size, split

if TYPE_CHECKING:
    from sexton.supervise.importers._draft import App, Draft

_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)(?:(:?[-+?])((?:[^{}]|\{[^{}]*\})*))?\})")
_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "ready",
    "service_completed_successfully": "completed",
}
# What means nothing here, or is so anyway.
_SILENT = {"init", "container_name", "hostname", "tty", "stdin_open", "platform", "pull_policy", "labels", "image"}
_SILENT |= {"build", "expose", "networks", "attach", "annotations", "restart", "scale"}
_SILENT_TOP = {"version", "services", "name", "networks", "volumes"}


def read(draft: Draft) -> None:
    """Every service whose command is known is an app."""
    import yaml

    try:
        found = yaml.safe_load(draft.source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{draft.source}{line}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("services"), dict):
        raise UsageError(f"{draft.source}: expected `services`, as docker compose has it")
    carry(draft, found)


def carry(draft: Draft, found: dict[str, Any]) -> None:
    """The same, of what was read already."""
    found = _Variables(draft).put(found)
    if not isinstance(found.get("services"), dict):
        raise UsageError(f"{draft.source}: expected `services`, as docker compose has it")
    for key in found.keys() - _SILENT_TOP:
        if not key.startswith("x-"):
            draft.lose(key, why=said(found[key]))
    if found.get("name"):
        draft.settings["name"] = str(found["name"])
    services = {str(name): service for name, service in found["services"].items()}
    for name, service in services.items():
        if isinstance(service, dict):
            _Service(draft, name, dict(service), list(services)).carry()
        else:
            draft.lose(name, why=f"{said(service)}: no service")
    draft.defaults["stop"] = {"scope": "child"}


class _Variables:
    """compose's ${NAME}, put in as they are now: here the file says what is so."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.known: dict[str, str] = {}
        try:
            self.known = envfile.read(draft.here / ".env")
        except FileNotFoundError:
            pass
        except UsageError as error:
            draft.lose(".env", why=str(error))
        self.known |= os.environ

    def put(self, value: Any) -> Any:
        """In every string of it."""
        match value:
            case str():
                return _VARIABLE.sub(self._value, value)
            case list():
                return [self.put(one) for one in value]
            case dict():
                return {name: self.put(one) for name, one in value.items()}
        return value

    def _value(self, found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        name, how, other = found[2] or found[3], found[4] or "", found[5] or ""
        there = name in self.known and (self.known[name] or ":" not in how)
        value = self.known.get(name, "")
        if how.endswith("+"):
            value = self.put(other) if there else ""
        elif how.endswith("-") and not there:
            value = self.put(other)
        self.draft.lose(f"${{{name}}}", why="put in as it is now" + ("" if value else ": it is empty"))
        return str(value)


class _Service:
    def __init__(self, draft: Draft, title: str, source: App, others: list[str]) -> None:
        self.draft, self.title, self.source, self.others = draft, title, source, others
        self.app: App = {}

    def take(self, key: str) -> Any:
        return self.source.pop(key, None)

    def table(self, key: str) -> dict[str, Any]:
        """What should be a table."""
        return self.draft.table(self.take(key), self.title, key)

    def row(self, key: str) -> list[Any]:
        """What should be a list."""
        return self.draft.row(self.take(key), self.title, key)

    def lose(self, key: str, why: str) -> None:
        self.draft.lose(self.title, key, why=why)

    def carry(self) -> None:
        """Make the app, and tell what is left."""
        name = self.draft.name(self.title)
        entrypoint, command = (split(self.take(key), "/bin/sh", "-c") for key in ("entrypoint", "command"))
        words = entrypoint + command
        if not words:
            what = f"image {self.source['image']}" if self.source.get("image") else "its image"
            self.lose("command", f"only {what} knows it: left out; write [apps.{name}] with the command")
            return
        if not entrypoint and words[0].startswith("-"):
            self.lose("command", f"{shlex.join(words)}: options for the program that only the image knows: left out")
            return
        if self.source.get("image"):
            self.lose("image", f"{self.source['image']}: {words[0]} must be on this machine")
        self.app["command"] = [literal(word) for word in words]
        self._place()
        self._environment()
        self._ports()
        self._after()
        self._health()
        self._restart()
        self._limits()
        self._log()
        if self.take("profiles"):
            self.app["autostart"] = False
            self.lose("profiles", "it is started by hand: sexton start " + name)
        for key, value in self.source.items():
            if key not in _SILENT and not key.startswith("x-") and value not in (None, False, [], {}):
                self.lose(key, said(value))
        self.draft.apps[name] = self.app

    def _place(self) -> None:
        volumes = self.row("volumes")
        mounts = dict(filter(None, map(_mount, volumes)))
        directory = self.take("working_dir")
        if self.draft.base != ".":
            self.app["cwd"] = self.draft.cwd("")
        if directory is not None:
            inside = os.path.normpath(str(directory))
            above = next((at for at in sorted(mounts, reverse=True) if f"{inside}/".startswith(f"{at}/")), None)
            if above is None:
                self.lose("working_dir", f"{inside} is in the image; it runs beside this file")
            else:
                self.app["cwd"] = self.draft.cwd(literal(os.path.join(mounts[above], os.path.relpath(inside, above))))
        if volumes:
            self.lose("volumes", "the app sees this machine's files: " + ", ".join(map(_volume, volumes)))
        if (user := self.take("user")) is not None:
            self.app["user"] = str(user)

    def _environment(self) -> None:
        given = self.take("environment")
        if isinstance(given, list):
            given = dict(str(one).split("=", 1) for one in given if "=" in str(one))
        given = self.draft.table(given, self.title, "environment")
        env = {name: _variable(value) for name, value in given.items() if value is not None}
        for name, value in env.items():
            for other in self.others:
                if re.search(rf"(?:^|[/@,= ]){re.escape(other)}(?::\d|/|,|$)", value):
                    self.lose(f"environment.{name}", f"{other} is no host here: 127.0.0.1, or ${{app.NAME.port}}")
        if env:
            self.app["env"] = {name: literal(value) for name, value in env.items()}
        files = self.row("env_file")
        names = [str(one.get("path", "")) if isinstance(one, dict) else str(one) for one in files]
        if names:
            self.app["env_file"] = [self.draft.place(name) for name in names]

    def _ports(self) -> None:
        ports: dict[str, int] = {}
        for one in self.row("ports"):
            published, inside, protocol = _port(one)
            if not _whole(inside) or protocol != "tcp":
                self.lose("ports", f"{said(one)}: expected one TCP port")
                continue
            ports["http" if not ports else f"p{inside}"] = int(inside)
            if published not in {"", inside}:
                self.lose("ports", f"{published} was published; the app itself listens on {inside}")
        if ports:
            self.app["ports"] = ports

    def _after(self) -> None:
        given = self.take("depends_on")
        if isinstance(given, list):
            given = dict.fromkeys(map(str, given))
        after = {}
        for name, how in self.draft.table(given, self.title, "depends_on").items():
            condition = str(self.draft.table(how, self.title, "depends_on").get("condition", "service_started"))
            after[self.draft.name(name)] = _CONDITIONS.get(condition, condition)
        if after:
            self.app["after"] = after

    def _health(self) -> None:
        health = self.table("healthcheck")
        test = None if health.get("disable") else health.get("test")
        words = ["CMD-SHELL", test] if isinstance(test, str) else list(map(str, test if isinstance(test, list) else []))
        words = words or ["NONE"]
        if words[0] == "NONE":
            return
        words = ["/bin/sh", "-c", *words[1:]] if words[0] == "CMD-SHELL" else words[1:]
        times = {key: seconds(health.get(key, 30)) or 0.0 for key in ("interval", "timeout")}
        start, retries = seconds(health.get("start_period", 0)) or 0.0, _whole(health.get("retries")) or 3
        deadline = start + retries * (times["interval"] + times["timeout"])
        interval = min(times["interval"], 1.0) or 1.0
        self.app["ready"] = {
            "exec": [literal(word) for word in words],
            "interval": interval,
            "timeout": times["timeout"] or 30.0,
            "deadline": deadline or 60.0,
        }
        self.lose("healthcheck", "it tells when the app is ready; to restart it when it is unwell, write [live]")

    def _restart(self) -> None:
        how, _, limit = str(self.source.get("restart") or "no").partition(":")
        deploy = self.table("deploy")
        self._deploy(deploy)
        if isinstance(policy := deploy.get("restart_policy"), dict):
            how = {"any": "always", "none": "no"}.get(policy.get("condition", "any"), "on-failure")
            limit = str(policy.get("max_attempts", ""))
        policies = {"no": "never", "False": "never", "always": "always", "unless-stopped": "always"}
        restart: App = {"policy": policies.get(how, how)}
        if (most := _whole(limit)) is not None:
            restart["limit"] = most
        self.app["restart"] = restart
        stop: App = {}
        if (signal := self.take("stop_signal")) is not None:
            stop["signal"] = signal
        if (grace := self.take("stop_grace_period")) is not None:
            stop["grace"] = seconds(grace) if seconds(grace) is not None else str(grace)
        if stop:
            self.app["stop"] = stop

    def _deploy(self, deploy: App) -> None:
        number = deploy.get("replicas", self.source.get("scale"))
        if number is not None:
            self.app["instances"] = _whole(number) if _whole(number) is not None else said(number)
        resources = self.draft.table(deploy.get("resources"), self.title, "deploy.resources")
        limits = self.draft.table(resources.get("limits"), self.title, "deploy.resources.limits")
        for ours, theirs in (("mem_limit", "memory"), ("pids_limit", "pids"), ("cpus", "cpus")):
            if theirs in limits:
                self.source.setdefault(ours, limits[theirs])
        for key in deploy.keys() - {"replicas", "resources", "restart_policy"}:
            self.lose(f"deploy.{key}", said(deploy[key]))

    def _limits(self) -> None:
        limits: App = {}
        if (memory := self.take("mem_limit")) is not None:
            limits["memory"] = size(memory) or said(memory)
        if (processes := self.take("pids_limit")) is not None and processes != -1:
            limits["processes"] = _whole(processes) or said(processes)
        if limits:
            self.app["limits"] = limits
        rlimits: App = {}
        for name, limit in self.table("ulimits").items():
            hard = limit.get("hard") if isinstance(limit, dict) else limit
            soft = limit.get("soft") if isinstance(limit, dict) else limit
            rlimits[name] = "unlimited" if soft == -1 else soft
            if hard != soft:
                self.lose("ulimits", f"{name}: soft {soft} is the hard one as well")
        if rlimits:
            self.app["rlimits"] = rlimits

    def _log(self) -> None:
        logging = self.table("logging")
        options, log = self.draft.table(logging.get("options"), self.title, "logging.options"), {}
        if "max-size" in options:
            log["max_size"] = size(options["max-size"]) or said(options["max-size"])
        if files := _whole(options.get("max-file")):
            log["keep"] = files - 1
        if logging.get("driver", "json-file") not in {"json-file", "local"}:
            self.lose("logging", f"{logging['driver']}: logs are files here")
        if log:
            self.app["log"] = log


def _whole(value: object) -> int | None:
    return int(str(value)) if re.fullmatch(r"[0-9]{1,6}", str(value)) else None


def _variable(value: object) -> str:
    """As compose makes a string of it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _port(one: object) -> tuple[str, str, str]:
    """(published, the app's own, protocol)"""
    if isinstance(one, dict):
        return str(one.get("published", "")), str(one.get("target", "")), str(one.get("protocol", "tcp"))
    text, _, protocol = str(one).partition("/")
    *before, inside = text.rsplit(":", 2) if not text.startswith("[") else text.rpartition("]:")[2].split(":")
    return before[-1] if before else "", inside, protocol or "tcp"


def _mount(volume: object) -> tuple[str, str] | None:
    """(where in the container, the directory of this machine), if it is one."""
    if isinstance(volume, dict):
        source, target = str(volume.get("source", "")), str(volume.get("target", ""))
    else:
        source, _, rest = str(volume).partition(":")
        target = rest.partition(":")[0]
    return (os.path.normpath(target), source) if source.startswith((".", "/")) and target else None


def _volume(volume: object) -> str:
    return f"{volume.get('source', '')}:{volume.get('target', '')}" if isinstance(volume, dict) else str(volume)
