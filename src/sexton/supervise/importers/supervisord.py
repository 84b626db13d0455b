"""supervisord.conf."""

from __future__ import annotations

import configparser
import os
import re
import shlex
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from sexton.errors import UsageError
from sexton.supervise.importers._draft import literal, said, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sexton.supervise.importers._draft import App, Draft

_PERCENT = re.compile(r"%(?:%|\((\w+)\)(\d*)([sd]))")
_STDOUT = {"/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "/proc/self/fd/1", "/proc/self/fd/2"}
_YES = {"true", "on", "yes", "1"}
# What means nothing here, or is so anyway.
_SILENT = {"process_name", "priority", "killasgroup", "redirect_stderr", "numprocs_start", "stopasgroup", "startsecs"}
_SILENT_TOP = {"nodaemon", "pidfile", "silent", "strip_ansi", "nocleanup", "loglevel", "logfile", "identifier"}


def read(draft: Draft) -> None:
    """Every program is an app, in the order of their priorities; they are asked to stop as supervisord asks them."""
    sections = _sections(draft.source)
    for name in sections:
        if name == "include":
            continue
        kind = name.partition(":")[0]
        match kind:
            case "program" | "fcgi-program":
                pass
            case "supervisord":
                _supervisord(draft, sections[name])
            case "unix_http_server" | "supervisorctl" | "rpcinterface":
                pass
            case "inet_http_server":
                draft.lose(f"[{name}]", why="the control API is on a unix socket; on TCP it wants a token: [api]")
            case "eventlistener":
                draft.lose(f"[{name}]", why="supervisor's protocol is not spoken here; see `sexton events --json`")
            case "group":
                draft.lose(f"[{name}]", why="there are no groups; name the apps: sexton restart APP ...")
            case _:
                draft.lose(f"[{name}]", why="nothing here is like it")
    programs = [name for name in sections if name.startswith(("program:", "fcgi-program:"))]
    for name in sorted(programs, key=lambda name: _whole(sections[name].get("priority", "")) or 999):
        _Program(draft, name.partition(":")[2], dict(sections[name]), fcgi=name.startswith("fcgi")).carry()
    draft.defaults["stop"] = {"scope": "child"}


def _sections(source: Path) -> Mapping[str, Mapping[str, str]]:
    parser = _parser()
    try:
        parser.read_string(source.read_text(encoding="utf-8"), str(source))
        for pattern in parser.get("include", "files", fallback="").split():
            where = pattern.replace("%(here)s", str(source.parent))
            for path in sorted(glob(os.path.join(source.parent, where))):
                parser.read_string(Path(path).read_text(encoding="utf-8"), path)
    except configparser.Error as error:
        raise UsageError(f"{source}: {' '.join(error.message.split())}") from None
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _parser() -> configparser.RawConfigParser:
    return configparser.RawConfigParser(
        strict=False, comment_prefixes=("#", ";"), inline_comment_prefixes=("#", ";"), default_section="\0"
    )


def _supervisord(draft: Draft, section: Mapping[str, str]) -> None:
    program = _Program(draft, "[supervisord]", dict(section))
    app: App = {}
    if identifier := section.get("identifier"):
        draft.settings["name"] = identifier
    if "environment" in section:
        app["env"] = program.variables(section["environment"])
    if "directory" in section:
        app["cwd"] = draft.cwd(program.put(section["directory"]))
    if "umask" in section:
        app["umask"] = section["umask"]
    if "user" in section and section["user"] != "root":
        app["user"] = section["user"]
    if "childlogdir" in section:
        app["log"] = {"directory": draft.place(program.put(section["childlogdir"]))}
    for key in section.keys() - {"environment", "directory", "umask", "user", "childlogdir"} - _SILENT_TOP:
        if not key.startswith("logfile"):
            draft.lose("[supervisord]", key, why=said(section[key]))
    draft.defaults.update(app)


class _Program:
    """One section, on its way to be an app."""

    def __init__(self, draft: Draft, name: str, section: dict[str, str], *, fcgi: bool = False) -> None:
        self.draft, self.source, self.section, self.fcgi = draft, name, section, fcgi
        self.app: App = {}
        self.fetched: set[str] = set()  # variables of supervisord's environment in the command

    def take(self, key: str) -> str | None:
        return self.section.pop(key, None)

    def lose(self, key: str, why: str) -> None:
        self.draft.lose(self.source, key, why=why)

    def carry(self) -> None:
        """Make the app, and tell what is left."""
        name = self.draft.name(self.source)
        number = _whole(self.take("numprocs") or "")
        if number is not None and number != 1:
            self.app["instances"] = number
        self._command(self.take("command"))
        self._place()
        self._restart()
        self._stop()
        self._log()
        if self.fcgi:
            self._socket(self.take("socket"))
        if (self.take("autostart") or "true").lower() not in _YES:
            self.app["autostart"] = False
        for key, value in self.section.items():
            if key not in _SILENT:
                self.lose(key, said(value))
        self.draft.apps[name] = self.app

    def put(self, text: str, *, later: bool = False) -> str:
        """With supervisor's %(...)s put in, and the rest meaning itself.

        later  leave the variables of the environment, as NUL NAME NUL, to a shell
        """
        parts, at = [], 0
        for found in _PERCENT.finditer(text):
            variable = (found[1] or "").removeprefix("ENV_")
            parts.append(literal(text[at : found.start()]))
            if found[1] is None:
                parts.append("%")
            elif variable == found[1]:
                parts.append(self._value(found))
            elif later:
                self.fetched.add(variable)
                parts.append(f"\0{variable}\0")
            else:
                now = os.environ.get(variable, "")
                self.lose(found[0], "put in as it is now" + ("" if now else ": it is empty"))
                parts.append(literal(now))
            at = found.end()
        return "".join((*parts, literal(text[at:])))

    def _value(self, found: re.Match[str]) -> str:
        match found[1]:
            case "here":
                return literal(os.path.abspath(self.draft.here))
            case "program_name" | "group_name":
                return self.source
            case "host_node_name":
                return literal(os.uname().nodename)
            case "numprocs":
                return str(self.app.get("instances", 1))
            case "process_num":
                if found[2]:
                    self.lose("process_num", f"{found[0]} has leading zeros, ${{instance}} has none")
                if _whole(self.section.get("numprocs_start", "")):
                    self.lose("numprocs_start", "instances are counted from 0")
                return "${instance}"
        self.lose(found[0], "nothing here is like it")
        return literal(found[0])

    def _command(self, command: str | None) -> None:
        if command is None:
            self.lose("command", "it has none: left out")
            return
        try:
            words = [self.put(word, later=True) for word in shlex.split(command.replace("\n", " "))]
        except ValueError as error:
            self.lose("command", f"{said(command)}: {error}")
            return
        if not self.fetched:
            self.app["command"] = words
            return
        # A variable of the environment: a shell knows it when the app is started.
        text = " ".join(re.sub("\0(\\w+)\0", r"""'"$\1"'""", shlex.quote(word)) for word in words)
        self.app["command"] = f"exec {text}".replace("''\"", '"').replace("\"''", '"')
        self.app["shell"] = True

    def _place(self) -> None:
        if directory := self.take("directory"):
            self.app["cwd"] = self.draft.cwd(self.put(directory))
        if environment := self.take("environment"):
            self.app["env"] = self.variables(environment)
        if user := self.take("user"):
            self.app["user"] = user
        if umask := self.take("umask"):
            self.app["umask"] = umask

    def variables(self, text: str) -> dict[str, str]:
        """Of KEY="value",KEY='value',KEY=value."""
        lexer = shlex.shlex(text.replace("\n", " "))
        lexer.wordchars += "/.+-():@%$"
        try:
            words = [word for word in lexer if word != ","]
        except ValueError as error:
            self.lose("environment", str(error).lower())
            return {}
        found = {}
        for name, equals, value in zip(words[::3], words[1::3], words[2::3], strict=False):
            if equals == "=":
                found[name] = self.put(value[1:-1] if value[:1] in {'"', "'"} else value)
        if len(words) % 3 or len(found) * 3 != len(words):
            self.lose("environment", f"{said(text)}: not all of it was understood")
        return found

    def _restart(self) -> None:
        restart: App = {}
        policy = (self.take("autorestart") or "unexpected").lower()
        if policy != "unexpected":
            restart["policy"] = "always" if policy in _YES else "never"
        codes = {code.strip() for code in (self.take("exitcodes") or "0").split(",")}
        if codes != {"0"} and policy == "unexpected":
            self.lose("exitcodes", f"{', '.join(sorted(codes))}: 0 alone is a good end here")
        if (stable := _number(self.section.get("startsecs", ""))) is not None:
            restart["stable"] = stable
        if (limit := _whole(self.take("startretries") or "")) is not None:
            restart["limit"] = limit
        if restart:
            self.app["restart"] = restart

    def _stop(self) -> None:
        stop: App = {}
        if signal := self.take("stopsignal"):
            stop["signal"] = signal
        if (grace := _number(self.take("stopwaitsecs") or "")) is not None:
            stop["grace"] = grace
        if (self.section.get("stopasgroup") or "false").lower() in _YES:
            stop["scope"] = "group"
        if stop:
            self.app["stop"] = stop

    def _log(self) -> None:
        log: App = {}
        path = self.take("stdout_logfile")
        if path in _STDOUT:  # `sexton up` prints it
            self.take("stdout_logfile_maxbytes")
        elif path == "syslog":
            self.lose("stdout_logfile", "syslog: logs are files here")
        elif path and path.upper() not in {"NONE", "AUTO"}:
            log["directory"] = self.draft.place(os.path.dirname(self.put(path)) or ".")
            self.lose("stdout_logfile", f"{path}: the file is called {self.draft.name(self.source)}.N.log")
        if (limit := self.take("stdout_logfile_maxbytes")) is not None:
            if most := size(limit):
                log["max_size"] = most
            else:
                self.lose("stdout_logfile_maxbytes", f"{limit}: a log is not without a limit here")
        if (keep := _whole(self.take("stdout_logfile_backups") or "")) is not None:
            log["keep"] = keep
        if log:
            self.app["log"] = log
        self._errors()

    def _errors(self) -> None:
        for key in [key for key in self.section if key.startswith("stderr_logfile")]:
            if (value := self.section.pop(key)) not in _STDOUT and key == "stderr_logfile":
                self.lose(key, f"{value}: both streams are in one file")

    def _socket(self, address: str | None) -> None:
        if address is None:
            return
        where = self.put(address)
        kind, _, rest = where.partition("://")
        self.app["listen"] = {"fcgi": rest if kind == "tcp" else f"unix:{rest}"}
        self.lose("socket", "the app has it as descriptor 3 (LISTEN_FDS), not as its standard input")


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
