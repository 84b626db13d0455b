"""From sexton.toml to a Config: strictly, and with everything that is wrong in it told at once."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sexton.errors import UsageError
from sexton.supervise import checks, config, envfile, where
from sexton.supervise.positions import positions
from sexton.supervise.shape import DEFAULTS, FILE, PROBES
from sexton.supervise.values import Problems
from sexton.supervise.variables import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRUCTS: Mapping[str, type[msgspec.Struct]] = {
    "ready": config.Probe,
    "live": config.Probe,
    "restart": config.Restart,
    "stop": config.Stop,
    "orphans": config.Orphans,
    "limits": config.Limits,
    "log": config.Log,
}
_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def load(path: Path) -> config.Config:
    """Read it. Nothing is written, started or opened but that file and those of `env_file`.

    Raises UsageError with every mistake in it, a line each: FILE:LINE: KEY: VALUE: what was expected.
    """
    return parse(where.text_of(path), path)


def parse(text: str, path: Path) -> config.Config:
    """What that text would mean in that file. Raises UsageError as load() does."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        line = at[1] if at and at[1] else text.count("\n") + 1
        raise UsageError(f"{path}:{line}: {_AT.sub('', str(error))}") from None
    return _Loader(path, Problems(str(path), positions(text))).make(raw)


class _Loader:
    def __init__(self, path: Path, problems: Problems) -> None:
        self.path = Path(os.path.abspath(path))  # where it lies: a link to it is followed by nobody
        self.problems = problems

    def make(self, raw: dict[str, Any]) -> config.Config:
        known = FILE.read(_merged(raw), (), self.problems)
        half_read = bool(self.problems)
        checks.check_order(
            {name: app.get("after", {}) for name, app in known.get("apps", {}).items()},
            raw["apps"] if isinstance(raw.get("apps"), dict) else {},
            self.problems,
        )
        if half_read:
            self.problems.check()
        if not known["apps"]:
            self.problems.add(("apps",), "it is empty: expected a table for each app, as [apps.web]")
        apps = {name: self._app(name, app) for name, app in known["apps"].items()}
        for name, app in apps.items():
            apps[name] = checks.settle_conditions(app, known["apps"][name].get("after", {}), apps)
        directory = self.path.parent
        api = known.get("api")
        if api:
            api = config.Api(listen=api["listen"], token_file=self._place(api["token_file"]))
        found = config.Config(
            path=str(self.path),
            directory=str(directory),
            name=known.get("name") or where.tidied(directory.name),
            state=str(where.state(self.path, state=known.get("state"), name=known.get("name"))),
            apps=apps,
            api=api,
            **{name: known[name] for name in ("strategy", "stop_timeout") if name in known},
        )
        checks.check(found, self.problems)
        self.problems.check()
        return found

    def _place(self, path: str) -> str:
        """A path of the file: relative ones begin where it lies."""
        return os.path.normpath(self.path.parent / path)

    def _app(self, name: str, known: dict[str, Any]) -> config.App:
        """What the file says of an app, as a struct; `after` is settled when all are known."""
        known = dict(known)
        path = ("apps", name)
        env = self._env_files(path, known.pop("env_file", ())) | {
            key: str(value) for key, value in known.pop("env", {}).items()
        }
        known.pop("after", None)
        known.pop("shell", None)
        if "umask" in known:
            known["umask"] = int(known["umask"], 8)
        if "listen" in known:
            known["listen"] = {key: self._address(str(value)) for key, value in known["listen"].items()}
        for key, struct in _STRUCTS.items():
            if key in known:
                known[key] = struct(**known[key])
        log = known.get("log")
        if log and log.directory is not None:
            known["log"] = msgspec.structs.replace(log, directory=self._place(log.directory))
        here = quote(str(self.path.parent))
        known["cwd"] = os.path.normpath(os.path.join(here, known.get("cwd", "")))
        return config.App(name=name, env=env, **known)

    def _address(self, address: str) -> str:
        if address.startswith("unix:"):
            return "unix:" + self._place(address.removeprefix("unix:"))
        return address

    def _env_files(self, path: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names:
            try:
                found |= envfile.read(Path(self._place(name)))
            except OSError as error:
                self.problems.add((*path, "env_file"), f"{name}: {os.strerror(error.errno or 0).lower()}")
            except UsageError as error:
                self.problems.add((*path, "env_file"), str(error))
        return {name: quote(value) for name, value in found.items()}


def _merged(raw: dict[str, Any]) -> dict[str, Any]:
    """With what [defaults] says put into each app that does not say it; not if there are mistakes in it."""
    defaults, apps = raw.get("defaults"), raw.get("apps")
    if not isinstance(defaults, dict) or not isinstance(apps, dict):
        return raw
    found = Problems("", {})
    DEFAULTS.read(defaults, (), found)
    if found:
        return raw
    return {**raw, "apps": {name: _over(defaults, app) for name, app in apps.items()}}


def _over(defaults: dict[str, Any], own: Any) -> Any:
    """Tables are merged key by key; of a probe that asks in a way of its own no other way is left."""
    if not isinstance(own, dict):
        return own
    merged = dict(defaults)
    if any(kind in own for kind in PROBES):
        merged = {key: value for key, value in merged.items() if key not in PROBES}
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, dict) else value
    return merged
