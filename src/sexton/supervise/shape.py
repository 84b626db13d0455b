"""The shape of sexton.toml, as a user writes it: the keys of each table, what each may be, and what it means.

load.py reads by it, schema.py shows it; what the keys mean in full is in sexton.toml(5).
"""

from __future__ import annotations

import re
import resource
from typing import TYPE_CHECKING, Any

import msgspec

from sexton.spawn._record import name_of
from sexton.supervise import config, peers
from sexton.supervise.values import (
    Choice,
    Command,
    Duration,
    Either,
    Flag,
    Key,
    Many,
    Map,
    Number,
    Problems,
    Size,
    Table,
    Text,
    Whole,
    Word,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sexton.supervise.positions import Path

NAME = r"[a-z0-9_][a-z0-9_-]*"
NAMES = "a name of a-z, 0-9, _ and -"
PROBES = ("http", "tcp", "exec", "log", "notify")
"""The keys of a probe of which there must be exactly one."""

RLIMITS = sorted(name[len("RLIMIT_") :].lower() for name in dir(resource) if name.startswith("RLIMIT_"))
CONDITIONS = ("started", "ready", "completed")


def _defaults(struct: type[msgspec.Struct], *left_out: str) -> Mapping[str, object]:
    """Those of a struct that a file could have."""
    return {
        field.name: field.default
        for field in msgspec.structs.fields(struct)
        if field.name not in left_out and isinstance(field.default, str | int | float)
    }


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return text


def _port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"\$\{.*\}", port) and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("expected HOST:PORT or a port, from 1 to 65535")
    return value if host or not value.startswith(":") else port


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < 65536) or (":" in host and not re.fullmatch(r"\[.*\]", host)):
        raise ValueError('expected "HOST:PORT", ":PORT" or "unix:/PATH"')
    return value


_COMMAND = Command()
_INSTEAD = {"cd": "cwd", "=": "env", "export": "env", "umask": "umask", "ulimit": "rlimits", "$PORT": "${port}"}
_PORT = Whole(1, 65535)
_PATH = Text("a path", r"[^\0]+")
_SIGNAL = Either(Whole(1, 64), Text(check=name_of), expected='a signal: a name such as "TERM", or 1 to 64')
_TCP = Either(
    _PORT,
    Text(r"unix:[^\0]+", pattern=r"unix:[^\0]+"),
    Text(check=_port),
    expected='a port, "HOST:PORT" or "unix:/PATH"',
)
_LISTEN = Either(
    _PORT,
    Text(pattern=r"unix:[^\0?]+(?:\?mode=0?[0-7]{3})?"),
    Text(check=_address),
    expected='an address: "HOST:PORT", ":PORT", a port, "unix:/PATH" or "unix:/PATH?mode=660"',
)

_ASKED: Mapping[str, Key] = {
    "http": Key(
        Text(
            "a URL: http://HOST:PORT/PATH, https://... or http+unix://%2FSOCKET/PATH",
            r"https?://[^/\s]+\S*|http\+unix://\S+",
        ),
        "a URL; 2xx and 3xx are good",
    ),
    "tcp": Key(_TCP, "a port, HOST:PORT or unix:/PATH; good when it accepts"),
    "exec": Key(_COMMAND, "a command; good when it exits with 0"),
    "notify": Key(Flag(), "the app says READY=1 itself, by the protocol of sd_notify(3)"),
    "timeout": Key(Duration(zero=False), "that one probe may take"),
}

READY = Table(
    {
        **_ASKED,
        "log": Key(
            Text("a regular expression", check=_pattern), "a regular expression; good when a line of the output matches"
        ),
        "interval": Key(Duration(zero=False), "the longest pause between two probes"),
        "deadline": Key(Duration(zero=False), "that getting ready may take, from the start"),
    },
    example='{ http = "http://127.0.0.1:${port}/" }',
    elsewhere=dict.fromkeys(("failures", "delay", "watchdog"), "only [live] has it"),
    defaults=_defaults(config.Probe, "failures", "delay"),
)
LIVE = Table(
    {
        **_ASKED,
        "interval": Key(Duration(zero=False), "the pause between two probes"),
        "failures": Key(Whole(1), "so many in a row, and it is restarted"),
        "delay": Key(Duration(), "before the first probe"),
        "watchdog": Key(Duration(zero=False), "with notify: WATCHDOG=1 must come at least so often"),
    },
    example='{ http = "http://127.0.0.1:${port}/" }',
    elsewhere={
        "log": "only [ready] has it: a line that was written says nothing of now",
        "deadline": "only [ready] has it; here it is failures times interval",
    },
    defaults=_defaults(config.Probe, "deadline"),
)
RESTART = peers.Restarts(
    {
        "policy": Key(
            peers.Policy("always", "on-failure", "never"), "after which ends of the command it is started again"
        ),
        "backoff": Key(Duration(), "the first pause before a restart"),
        "factor": Key(Number(1), "each further pause is so many times longer"),
        "maximum": Key(Duration(), "the longest pause"),
        "jitter": Key(Number(0, 1), "plus or minus this share of the pause"),
        "stable": Key(Duration(), "after so long a life the count begins anew"),
        "limit": Key(Either(Whole(0), Word("unlimited", None)), "more restarts than that make it fatal"),
    },
    example='{ policy = "on-failure", backoff = "1s", limit = 10 }',
    defaults=_defaults(config.Restart),
)
STOP = Table(
    {
        "signal": Key(_SIGNAL, "how it is asked to end"),
        "grace": Key(Duration(), "from then to SIGKILL"),
        "scope": Key(Choice("child", "group", "tree"), "whom the signal is sent to at first"),
        "command": Key(_COMMAND, "run before the signal, within the grace"),
    },
    example='{ signal = "TERM", grace = "10s" }',
    defaults=_defaults(config.Stop),
)
ORPHANS = Table(
    {
        "policy": Key(
            Choice("gentle", "expiration", "termination", "reincarnation"), "what becomes of it without its supervisor"
        ),
        "lease": Key(Duration(zero=False), "how long it goes on without one"),
        "maximum": Key(Duration(zero=False), "expiration: how long it lives at most"),
    },
    example='{ policy = "gentle", lease = "60s" }',
    defaults=_defaults(config.Orphans),
)
LIMITS = Table(
    {
        "memory": Key(Size(), "of the whole tree"),
        "processes": Key(Whole(1), "and threads of the whole tree"),
    },
    example='{ memory = "512MiB" }',
)
LOG = Table(
    {
        "format": Key(Choice("text", "json"), "lines as they were written, or JSON objects"),
        "directory": Key(_PATH, "where the files are, instead of logs/ in the state directory"),
        "max_size": Key(Size(), "of a file, before the next one is begun"),
        "keep": Key(Whole(0), "so many older files are kept"),
    },
    example='{ format = "text", max_size = "10MB", keep = 5 }',
    defaults=_defaults(config.Log),
)


class After(Map):
    """What an app waits for: a table of conditions, or a list of apps."""

    def __init__(self) -> None:
        super().__init__(Choice(*CONDITIONS), NAME, "the name of an app", example="")
        self.expected = 'a table of apps and conditions, such as { db = "ready" }, or a list of apps'
        self.schema = {"anyOf": [self.schema, {"type": "array", "items": {"type": "string"}}]}

    def read(self, value: object, path: Path, problems: Problems) -> dict[str, str | None]:
        """The condition of each; None: the one that suits it."""
        if isinstance(value, dict):
            return super().read(value, path, problems)
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.wrong(value)
        return dict.fromkeys(value)


class AppTable(Table):
    """The table of an app: with `shell` its command is a text for /bin/sh, which nobody splits."""

    def read(self, value: object, path: Path, problems: Problems) -> dict[str, Any]:
        """As any table."""
        if isinstance(value, dict) and value.get("shell") is True and "command" in value:
            command = value["command"]
            if isinstance(command, str) and command.strip() and "\0" not in command:
                value = {**value, "command": ["/bin/sh", "-c", command]}
            else:
                text = f"{shown(command)}: expected a string, for shell = true hands it to /bin/sh as it is"
                problems.add((*path, "command"), text)
        return super().read(value, path, problems)


class FileTable(Table):
    """The whole file."""

    def meant(self, name: str, value: object) -> str:
        """An app has its table below another one elsewhere, or at the top."""
        tables = {name: value} | (value if isinstance(value, dict) else {})
        app = next((one for one, table in tables.items() if isinstance(table, dict) and "command" in table), None)
        return super().meant(name, value) if app is None else f": an app is [apps.{app}]"


_APP: Mapping[str, Key] = {
    "command": Key(Command("shell = true", _INSTEAD), "what is executed; ${port}, ${instance} and the like are put in"),
    "shell": Key(Flag(), "have /bin/sh run the command, which then is one string"),
    "cwd": Key(_PATH, "the directory it runs in; otherwise that of this file"),
    "env": Key(
        Map(
            Either(Text(), Whole(-(2**63)), expected="a string or a whole number"),
            r"[^=\0]+",
            "a name without =",
            example='{ NAME = "value" }',
        ),
        "environment variables, beside those of the supervisor",
    ),
    "env_file": Key(Many(), "files of NAME=VALUE lines; `env` has the last word"),
    "user": Key(Text("USER, USER:GROUP or their numbers", r"[^:\0]+(?::[^:\0]+)?"), "who runs it"),
    "umask": Key(Text('octal digits in a string, such as "027"', r"0?[0-7]{1,3}"), "of what it creates"),
    "rlimits": Key(
        Map(
            Either(Whole(0), Size(), Word("unlimited", -1), expected='a whole number, a size or "unlimited"'),
            r".*",
            "a limit of setrlimit(2)",
            example="{ nofile = 1024 }",
            known=RLIMITS,
        ),
        "resource limits of each process",
    ),
    "instances": Key(Whole(0, 10_000), "so many of it run"),
    "ports": Key(
        Map(Either(_PORT, Word("auto", "auto")), NAME, NAMES, example='{ http = "auto" }'),
        "ports of each instance, by name; the first one is in PORT, each in PORT_NAME",
    ),
    "listen": Key(
        Map(_LISTEN, NAME, NAMES, example='{ http = ":8000" }'),
        "sockets that the supervisor opens and that all instances are given (LISTEN_FDS)",
    ),
    "after": Key(After(), "the apps it waits for, and until they are what"),
    "ready": Key(READY, "how it is known to be ready"),
    "live": Key(LIVE, "how it is known to be well"),
    "restart": Key(RESTART, "when it is started again, and how soon"),
    "on_fatal": Key(Choice("nothing", "stop", "exit"), "when it is given up: nothing else, stop the others, or end"),
    "stop": Key(STOP, "how it is stopped"),
    "orphans": Key(ORPHANS, "what becomes of it when the supervisor dies"),
    "limits": Key(LIMITS, "of its whole tree, by a cgroup"),
    "log": Key(LOG, "where its output goes"),
    "on_demand": Key(Flag(), "start it when the first connection to `listen` comes"),
    "idle": Key(Duration(zero=False), "on_demand: stop it when nobody has been connected for so long"),
    "autostart": Key(Flag(), "start it with the supervisor"),
}
_APP_DEFAULTS = _defaults(config.App)

APP = AppTable(_APP, example='{ command = "..." }', required=["command"], elsewhere=peers.KEYS, defaults=_APP_DEFAULTS)
DEFAULTS = Table(_APP, elsewhere=peers.KEYS)
API = Table(
    {
        "listen": Key(Text("HOST:PORT", check=_address), "the address of the control API, beside its socket"),
        "token_file": Key(_PATH, "the file that holds the token callers must show"),
    },
    required=["listen", "token_file"],
)
FILE = FileTable(
    {
        "name": Key(Text(NAMES, NAME), "of the whole; otherwise that of the directory"),
        "state": Key(_PATH, "the state directory"),
        "strategy": Key(
            Choice("one_for_one", "one_for_all", "rest_for_one"), "who else is restarted when an instance has failed"
        ),
        "stop_timeout": Key(Duration(zero=False), "that stopping everything may take"),
        "api": Key(API, "the control API on TCP"),
        "defaults": Key(DEFAULTS, "what holds for each app that does not say otherwise"),
        "apps": Key(Map(APP, NAME, NAMES, example="[apps.web]"), "the apps, by name"),
    },
    required=["apps"],
    defaults=_defaults(config.Config),
)
