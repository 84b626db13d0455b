"""The ecosystem file of pm2: .json as it is, .js as node reads it."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sexton.errors import SextonError, UsageError
from sexton.spawn import DEVNULL, PIPE, run
from sexton.supervise.importers import compose
from sexton.supervise.importers._draft import literal, said, size, split

if TYPE_CHECKING:
    from sexton.supervise.importers._draft import App, Draft

SECONDS = 30  # that node may take
# pm2 takes a .json with comments, too.
_JSON = (
    "const fs = require('fs'), vm = require('vm');"
    "process.stdout.write(JSON.stringify(vm.runInNewContext('(' + fs.readFileSync(process.argv[1], 'utf8') + ')')))"
)
_JS = (
    "import(require('url').pathToFileURL(process.argv[1])).then("
    "found => process.stdout.write(JSON.stringify(found.default ?? found)))"
)
_INTERPRETERS = {
    ".js": "node",
    ".cjs": "node",
    ".mjs": "node",
    ".ts": "bun",
    ".tsx": "bun",
    ".py": "python3",
    ".rb": "ruby",
    ".sh": "bash",
    ".php": "php",
    ".pl": "perl",
}
# What means nothing here, or is so anyway.
_SILENT = {"exec_mode", "merge_logs", "combine_logs", "vizion", "source_map_support", "disable_source_map_support"}
_SILENT |= {"pmx", "automation", "increment_var", "windowsHide", "treekill", "restart_delay", "listen_timeout"}

_WHY = {
    "watch": "files are not watched here",
    "ignore_watch": "files are not watched here",
    "cron_restart": "nothing is done by the clock here",
    "cron": "nothing is done by the clock here",
}


def read(draft: Draft) -> None:
    """Every app of `apps` is one; it is asked to stop as pm2 asks it."""
    found = _content(draft.source)
    if isinstance(found, dict) and "services" in found and "apps" not in found:
        compose.carry(draft, found)
        return
    apps = found.get("apps", found.get("pm2")) if isinstance(found, dict) else found
    if apps is None and isinstance(found, dict) and "script" in found:
        apps = [found]
    if isinstance(apps, dict):
        apps = [apps]
    if not isinstance(apps, list) or not all(isinstance(app, dict) for app in apps):
        raise UsageError(f"{draft.source}: expected an object with `apps`, as pm2 has it")
    for app in apps:
        _App(draft, dict(app)).carry()
    if isinstance(found, dict) and "deploy" in found:
        draft.lose("deploy", why="nothing is deployed here")
    draft.defaults["restart"] = {"policy": "always"}
    draft.defaults["stop"] = {"signal": "INT", "scope": "tree"}


def _content(source: Path) -> Any:
    if source.suffix.lower() == ".json":
        try:
            return json.loads(source.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            plain = f"{source}:{error.lineno}: {error.msg.lower()}"
        return _by_node(source, _JSON, plain)
    source.read_bytes()  # that it is there, before node is asked
    return _by_node(source, _JS, f"{source} is JavaScript")


def _by_node(source: Path, script: str, otherwise: str) -> Any:
    """What node makes of it."""
    words = ["node", "-e", script, os.path.abspath(source)]
    try:
        done = run(words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, timeout=SECONDS, cwd=source.parent, check=False)
    except FileNotFoundError:
        raise UsageError(f"{otherwise}; there is no node here, which could read it") from None
    except (SextonError, OSError) as error:
        raise UsageError(f"{otherwise}; node could not read it: {error}") from None
    try:
        return json.loads(done.stdout)
    except ValueError:
        errors = bytes(done.stderr or b"").decode(errors="replace").strip().splitlines()
        why = next((line for line in errors if "Error" in line), errors[-1] if errors else "it has no value")
        raise UsageError(f"{otherwise}; node could not read it: {why}") from None


class _App:
    def __init__(self, draft: Draft, source: App) -> None:
        self.draft, self.source = draft, source
        self.title = str(source.pop("name", None) or Path(str(source.get("script", "app"))).stem)
        self.app: App = {}
        self.name = draft.new_name(self.title)

    def take(self, *keys: str) -> Any:
        """The first of them that there is."""
        found = [self.source.pop(key) for key in keys if key in self.source]
        return next((one for one in found if one is not None), None)

    def lose(self, key: str, why: str) -> None:
        self.draft.lose(self.title, key, why=why)

    def carry(self) -> None:
        """Make the app, and tell what is left."""
        self._place()
        self._command()
        self._instances()
        self._environment()
        self._restart()
        self._stop()
        self._log()
        memory = self.take("max_memory_restart")
        if memory is not None:
            self.app["limits"] = {"memory": size(memory) or said(memory)}
            self.lose("max_memory_restart", "a limit of the whole tree: beyond it the kernel ends a process of it")
        if self.take("autostart") is False:
            self.app["autostart"] = False
        for key, value in self.source.items():
            if key not in _SILENT and value not in (None, False, [], {}):
                self.lose(key, _WHY.get(key) or said(value))
        self.draft.apps[self.name] = self.app

    def _place(self) -> None:
        cwd = self.take("cwd")
        if cwd is not None or self.draft.base != ".":
            self.app["cwd"] = self.draft.cwd(literal(str(cwd or "")))
        user, group = self.take("user", "uid"), self.take("gid")
        if user is not None:
            self.app["user"] = str(user) if group is None else f"{user}:{group}"

    def _command(self) -> None:
        script = str(self.take("script", "exec", "cmd") or "")
        args = split(self.take("args"))
        before = split(self.take("node_args", "interpreter_args", "interpreterArgs"))
        interpreter = self.take("interpreter", "exec_interpreter")
        if not script:
            self.lose("script", "it has none: left out")
            return
        if " " in script and not self._is_file(script):  # pm2 gives it to bash
            self.app["command"] = literal(" ".join((script, *map(shlex.quote, args))))
            self.app["shell"] = True
            return
        if not interpreter:
            interpreter = _INTERPRETERS.get(Path(script).suffix.lower(), "none")
        if interpreter == "none" and "/" not in script and self._is_file(script):
            script = f"./{script}"
        words = [script, *args] if interpreter == "none" else [str(interpreter), *before, script, *args]
        self.app["command"] = [literal(word) for word in words]

    def _is_file(self, script: str) -> bool:
        cwd = os.path.relpath(self.app.get("cwd", self.draft.base), self.draft.base)
        return (self.draft.here / cwd / script).is_file()

    def _instances(self) -> None:
        wanted = self.take("instances")
        if wanted is None:
            return
        number = int(wanted) if re.fullmatch(r"-?\d+", str(wanted)) else 0
        if number <= 0:
            cores = len(os.sched_getaffinity(0))
            number = max(cores + number, 1)
            self.lose("instances", f"{said(wanted)} of this machine's {cores} cores is {number}")
        self.app["instances"] = number
        if str(self.source.get("exec_mode", "")).startswith("cluster"):
            self.lose("exec_mode", "cluster: instances do not share a port of node's; see `listen`, or use ${port}")

    def _environment(self) -> None:
        env = self.draft.table(self.take("env"), self.title, "env")
        env = {name: _variable(value) for name, value in env.items() if value is not None}
        port = env.get("PORT", str(self.take("port") or ""))
        number = self.app.get("instances", 1)
        counted = self.source.get("increment_var")
        if port.isdecimal() and 0 < int(port) < 65536:
            env.pop("PORT", None)
            self.app["ports"] = {"http": int(port)}
        elif counted:
            self.lose("increment_var", f"{counted}: write ports, and ${{port}} for it")
        which = str(self.take("instance_var") or "NODE_APP_INSTANCE")
        env = {name: literal(value) for name, value in env.items()}
        if number > 1:
            env.setdefault(which, "${instance}")
        if env:
            self.app["env"] = env
        if file := self.take("env_file"):
            self.app["env_file"] = [self.draft.place(str(file))]
        for key in [key for key in self.source if key.startswith("env_")]:
            self.lose(key, f"{said(self.source.pop(key))}: one file is one environment; see env_file")

    def _restart(self) -> None:
        restart: App = {}
        codes = self.take("stop_exit_codes")
        if self.take("autorestart") is False:
            restart["policy"] = "never"
        elif codes is not None:
            restart["policy"] = "on-failure"
            if {str(code) for code in (codes if isinstance(codes, list) else [codes])} != {"0"}:
                self.lose("stop_exit_codes", f"{codes}: 0 alone is a good end here")
        if (limit := self.take("max_restarts")) is not None:
            restart["limit"] = limit
        if (stable := self.take("min_uptime")) is not None:
            restart["stable"] = _milliseconds(stable)
        delay = _milliseconds(self.source.get("restart_delay") or 0)
        growing = _milliseconds(self.take("exp_backoff_restart_delay") or 0)
        if growing:
            restart |= {
                "backoff": growing,
                "factor": 1.5,
                "maximum": max(15.0, growing) if isinstance(growing, float) else 15,
            }
        elif delay:
            restart |= {"backoff": delay, "factor": 1, "maximum": delay}
        if restart:
            self.app["restart"] = restart

    def _stop(self) -> None:
        stop: App = {}
        if (grace := self.take("kill_timeout")) is not None:
            stop["grace"] = _milliseconds(grace)
        if self.source.get("treekill") is False:
            stop["scope"] = "child"
        if stop:
            self.app["stop"] = stop
        if self.take("wait_ready"):
            self.lose("wait_ready", "process.send('ready') is not heard here; see `ready`: http, tcp, log or notify")
        if self.take("shutdown_with_message"):
            self.lose("shutdown_with_message", "it is sent the signal")

    def _log(self) -> None:
        log: App = {}
        out = self.take("out_file", "output", "out", "log_file", "log")
        if isinstance(out, str) and out not in {"/dev/null", "NULL"}:
            log["directory"] = self.draft.place(os.path.dirname(out) or ".")
            self.lose("out_file", f"{out}: the file is called {self.name}.N.log")
        if isinstance(error := self.take("error_file", "error", "err_file"), str) and error != out:
            self.lose("error_file", f"{error}: both streams are in one file")
        if self.take("log_type") == "json":
            log["format"] = "json"
        if log:
            self.app["log"] = log


def _variable(value: object) -> str:
    """As node makes a string of it."""
    return value if isinstance(value, str) else json.dumps(value)


def _milliseconds(value: object) -> float | str:
    """Seconds of pm2's numbers, which are milliseconds, and of its "10s"."""
    text = str(value)
    if re.fullmatch(r"\d+(?:\.\d+)?", text) and math.isfinite(float(text)):
        return float(text) / 1000
    return text
