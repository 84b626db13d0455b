"""A sexton.toml that is being made from a file of another kind, and what could not be carried over."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from sexton.errors import UsageError
from sexton.supervise import envfile
from sexton.supervise.shape import APP, FILE, PROBES
from sexton.supervise.values import LONGEST, Duration, Kind, Map, Problems, Table, Wrong, shown

if TYPE_CHECKING:
    from pathlib import Path

App = dict[str, Any]

_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def literal(text: str) -> str:
    """A text that means itself, where ${...} would mean something."""
    return re.sub(r"\$(?=[${]|\Z)", "$$", text)


class Draft:
    """What a user would write.

    source     the file it is made from
    base       the way from the directory of the sexton.toml to that of the source
    settings   the keys of the top
    defaults   those of [defaults]
    lost       what could not be carried over, and what became different, for people
    """

    def __init__(self, source: Path, base: str) -> None:
        self.source = source
        self.base = base
        self.settings: dict[str, Any] = {}
        self.defaults: App = {}
        self.apps: dict[str, App] = {}
        self.lost: list[str] = []
        self._names: dict[str, str] = {}
        self._taken = {"all"}

    @property
    def here(self) -> Path:
        """Where the source lies."""
        return self.source.parent

    def lose(self, *where: str, why: str = "") -> None:
        """Something is not carried over."""
        text = ": ".join(filter(None, (*where, why)))
        text = "".join(char if char.isprintable() else " " for char in text)
        if text not in self.lost:
            self.lost.append(text)

    def name(self, name: str) -> str:
        """An app's name, as we have them; the same for the same."""
        return self._names.get(name) or self.new_name(name)

    def new_name(self, name: str) -> str:
        """One that no other app has; of those that were called the same, name() gives the first one's."""
        tidied = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:60] or "app"
        chosen, number = tidied, 2
        while chosen in self._taken:
            chosen, number = f"{tidied}-{number}", number + 1
        self._taken.add(chosen)
        self._names.setdefault(name, chosen)
        if chosen != name:
            self.lose(name, why=f"it is called {chosen} here")
        return chosen

    def table(self, value: object, *where: str) -> dict[str, Any]:
        """What should be a table; {} where it is none, which is told."""
        if value and not isinstance(value, dict):
            self.lose(*where, why=f"{said(value)}: expected a table")
        return {str(name): one for name, one in value.items()} if isinstance(value, dict) else {}

    def row(self, value: object, *where: str) -> list[Any]:
        """What should be a list; one thing alone is a list of it."""
        if isinstance(value, dict | bool):
            self.lose(*where, why=f"{said(value)}: expected a list")
            return []
        return value if isinstance(value, list) else [] if value is None else [value]

    def place(self, path: str) -> str:
        """A path of the source, as the sexton.toml has it."""
        return os.path.normpath(os.path.join(self.base, path))

    def cwd(self, path: str) -> str:
        """The same for a directory to run in, whose variables are ours already."""
        return os.path.normpath(os.path.join(literal(self.base), path))

    def settings_of_all(self) -> dict[str, Any]:
        """The whole document, which loads: what would not is taken out, and told."""
        self._check((), FILE, self.settings)
        self._check(("defaults",), APP, self.defaults)
        for name, app in list(self.apps.items()):
            self._files(name, app)
            self._check((name,), APP, app)
            if "command" in app:
                self.apps[name] = {key: app[key] for key in APP.keys if key in app}
            else:
                del self.apps[name]
        if not self.apps:
            raise UsageError(f"{self.source}: there is no app in it that can be carried over: {'; '.join(self.lost)}")
        self._ports()
        self._after()
        self._timeout()
        document = {**self.settings, "defaults": self.defaults, "apps": self.apps}
        return {name: value for name, value in document.items() if value != {}}

    def _check(self, where: tuple[str, ...], kind: Kind, table: App) -> None:
        """Take out what the loader would refuse, of each table what is wrong in it."""
        for key, value in list(table.items()):
            below = kind.keys[key].kind if isinstance(kind, Table) else kind
            if isinstance(value, dict) and isinstance(below, Table | Map):
                self._check((*where, key), below, value)
                asked = key not in {"ready", "live"} or any(name in value for name in PROBES)
                if value and asked:
                    continue
                del table[key]
                continue
            found = Problems("", {})
            try:
                if isinstance(kind, Map):
                    kind.read({key: value}, (), found)
                else:
                    below.read([value] if key == "command" and table.get("shell") else value, (), found)
                found.check()
            except (Wrong, UsageError) as error:
                del table[key]
                text = str(error).split("\n")[0]
                self.lose(*where[:1], ".".join((*where[1:], key)), why=re.sub(r"^:\d+: ", "", text))

    def _files(self, name: str, app: App) -> None:
        """Files of variables that are there, and can be read."""
        good = []
        for path in app.pop("env_file", []):
            try:
                envfile.read(self.here / os.path.relpath(path, self.base))
                good.append(path)
            except (OSError, UsageError) as error:
                why = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
                self.lose(name, "env_file", why=f"{path}: {why}")
        if good:
            app["env_file"] = good

    def _ports(self) -> None:
        """A fixed port has one app, and that one instance."""
        owner: dict[int, str] = {}
        for name, app in self.apps.items():
            for port, wanted in list(app.get("ports", {}).items()):
                if wanted == "auto":
                    continue
                if app.get("instances", 1) > 1:
                    app["ports"][port] = "auto"
                    self.lose(name, "ports", why=f"several instances cannot share {wanted}: each has its own, in PORT")
                elif wanted in owner:
                    del app["ports"][port]
                    self.lose(
                        name, "ports", why=f"{wanted} is {owner[wanted]}'s already, and all are on one machine here"
                    )
                else:
                    owner[wanted] = name
            if not app.get("ports", True):
                del app["ports"]

    def _after(self) -> None:
        """Nobody waits for an app that is not there, or for one that waits for it."""
        for name, app in self.apps.items():
            for other in list(app.get("after", {})):
                if other not in self.apps:
                    del app["after"][other]
                    self.lose(name, "after", why=f"{other} is not there")
                elif self._waits(other, name, set()):
                    del app["after"][other]
                    self.lose(name, "after", why=f"{other} waits for it, too")
                elif (
                    app["after"][other] == "completed" and self.apps[other].get("restart", {}).get("policy") == "always"
                ):
                    self.apps[other]["restart"]["policy"] = "on-failure"
                    self.lose(other, "restart", why=f"{name} waits until it is completed: not started again after that")
            if not app.get("after", True):
                del app["after"]

    def _waits(self, name: str, what: str, seen: set[str]) -> bool:
        if name == what:
            return True
        seen.add(name)
        others = self.apps.get(name, {}).get("after", {})
        return any(other not in seen and self._waits(other, what, seen) for other in others)

    def _timeout(self) -> None:
        """Stopping everything may take as long as the longest grace."""
        graces = [app.get("stop", {}).get("grace", 0) for app in (self.defaults, *self.apps.values())]
        longest = max(Duration().read(grace, (), Problems("", {})) for grace in graces)
        if longest >= 60:
            self.settings["stop_timeout"] = min(longest + 10, LONGEST)


def split(value: object, *otherwise: str) -> list[str]:
    """The words of a list, or of a line as a shell splits it; a line that cannot be split is one, after `otherwise`."""
    if isinstance(value, list):
        return [str(word) for word in value]
    try:
        return shlex.split(str(value)) if value is not None else []
    except ValueError:
        return [*otherwise, str(value)]


def size(text: object) -> int | str | None:
    """Of "512m", "1G", "50MB" or a number, in which k is 1024: as we write it; None: it is none, or 0."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(text).strip().lower())
    number = int(float(found[1]) * _BYTES[found[2]]) if found else 0
    for unit in ("GiB", "MiB", "KiB"):
        each = _BYTES[unit[0].lower()]
        if number and number % each == 0:
            return f"{number // each}{unit}"
    return number or None


def seconds(text: object) -> float | None:
    """Of a number, or of a duration as Go has it ("1m30s"); None: it is none."""
    if isinstance(text, int | float):
        return float(text)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|us|ns|m|s)", str(text))
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return float(str(text)) if re.fullmatch(r"\d+(?:\.\d+)?", str(text)) else None
    return round(sum(float(number) * units[unit] for number, unit in parts), 6)


def said(value: object) -> str:
    """A value of the source, for a message."""
    return shown(value) if not isinstance(value, str) else value if len(value) <= 60 else value[:57] + "..."
