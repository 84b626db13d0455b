"""What is wrong with a sexton.toml: each mistake is told with its line, its key and what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sexton.errors import UsageError
from sexton.supervise import peers, shape
from sexton.supervise.load import load
from sexton.supervise.values import Table

A = '[apps.a]\ncommand = "a"\n'
B = '[apps.b]\ncommand = "b"\n'


def mistakes(directory: Path, text: str) -> list[str]:
    """Without the file's name."""
    path = directory / "sexton.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(path)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


CYCLES = {"a": ["c"], "b": ["a"], "c": ["b"], "d": ["e", "a"], "e": ["d"], "f": ["f"], "g": ["a", "f"]}

CASES = [
    # the file
    ("", "1: apps is missing: expected a table, such as [apps.web]"),
    ("[apps]", "1: apps: it is empty: expected a table for each app"),
    ("a = ", "1: Invalid value"),
    ("a = 1\na = 2", "2: Cannot overwrite a value"),
    ("[apps.a]\ncommand = 'a'\n[apps.a]", "3: Cannot declare"),
    ('x = """', "1: "),
    ("apps = 1", "1: apps: 1: expected a table"),
    ("apps.a = 1", "1: apps.a: 1: expected a table"),
    (f"nmae = 'x'\n{A}", "1: nmae: there is no such key (did you mean name?)"),
    (f"zzz = 'x'\n{A}", "1: zzz: there is no such key (expected one of name, state, strategy"),
    (f"name = 'Ä'\n{A}", '1: name: "Ä": expected a name of a-z'),
    (f"strategy = 'one_for_al'\n{A}", '1: strategy: "one_for_al": expected "one_for_one"'),
    (f"strategy = 'one_for_al'\n{A}", "did you mean one_for_all?"),
    (f"stop_timeout = 0\n{A}", "1: stop_timeout: 0: expected seconds, more than 0"),
    (f"[api]\nlisten = ':1'\n{A}", "1: api: token_file is missing"),
    (f"[defaults]\nenv = 1\n{A}", "2: defaults.env: 1: expected a table"),
    (f"defaults = 1\n{A}", "1: defaults: 1: expected a table"),
    ("[defaults.restart]\nbackoff = 'x'\n[apps]\na.command = 'a'", '2: defaults.restart.backoff: "x"'),
    (f"{A}[web]\ncommand = 'x'\n", "3: web: there is no such key: an app is [apps.web]"),
    (f"{A}[services.web]\ncommand = 'x'\n", "3: services: there is no such key: an app is [apps.web]"),
    (f"{A}[app.web]\nimage = 'x'\n", "3: app: there is no such key (did you mean apps?)"),
    # names
    (A.replace(".a", ".Web"), "1: apps.Web: expected a name of a-z, 0-9, _ and -"),
    (A.replace(".a", ".-x"), "1: apps.-x: expected a name"),
    (A.replace(".a", ".'a.b'"), '1: apps."a.b": expected a name'),
    (A.replace(".a", ".all"), "1: apps.all: all means every app"),
    (f"{A}ports = {{ HTTP = 1 }}", "3: apps.a.ports.HTTP: expected a name"),
    (f"{A}ports = {{ a-b = 1, a_b = 2 }}", "3: apps.a.ports.a_b: it would be PORT_A_B, as a-b already is"),
    # commands
    ("[apps.a]\ncwd = '/'", "1: apps.a: command is missing: expected a command"),
    ("[apps.a]\ncommand = []", "2: apps.a.command: a list: expected a command"),
    ("[apps.a]\ncommand = ' '", '2: apps.a.command: " ": expected a command'),
    ("[apps.a]\ncommand = ['']", "2: apps.a.command: a list: expected a command"),
    ("[apps.a]\ncommand = ['a', 1]", "2: apps.a.command: a list: expected a command"),
    ('[apps.a]\ncommand = "a\\u0000b"', "expected a command"),
    ('[apps.a]\ncommand = "a \'b"', "a shell could not split it: no closing quotation"),
    (
        "[apps.a]\ncommand = 'cd x && y'",
        '2: apps.a.command: "cd x && y": cd is for a shell, and none runs it: expected `cwd`',
    ),
    ("[apps.a]\ncommand = 'A=1 b'", "A=1 is for a shell, and none runs it: expected `env`, or shell = true (or quotes"),
    ("[apps.a]\ncommand = 'a :$PORT'", "$PORT is for a shell, and none runs it: expected `${port}`, or shell = true"),
    (f"[defaults]\nready.exec = 'a | b'\n{A}", '2: defaults.ready.exec: "a | b": | is for a shell, and none runs it'),
    (f"{A}stop.command = 'a > b'", 'expected ["/bin/sh", "-c", "..."] (or quotes around what is to be a word)'),
    ("[apps.a]\ncommand = ['a']\nshell = true", "2: apps.a.command: a list: expected a string, for shell = true"),
    # values
    (f"{A}shell = 'yes'", '3: apps.a.shell: "yes": expected true or false'),
    (f"{A}autostart = 1", "3: apps.a.autostart: 1: expected true or false"),
    (f"{A}instances = true", "3: apps.a.instances: true: expected a whole number"),
    (f"{A}instances = -1", "3: apps.a.instances: -1: expected a whole number from 0"),
    (f"{A}instances = 2.0", "3: apps.a.instances: 2.0: expected a whole number"),
    (f"{A}env = {{ A = true }}", "3: apps.a.env.A: true: expected a string or a whole number"),
    (f"{A}env = {{ 'A=B' = '' }}", '3: apps.a.env."A=B": expected a name without ='),
    (f"{A}umask = 27", "3: apps.a.umask: 27: expected octal digits in a string"),
    (f"{A}umask = '8'", '3: apps.a.umask: "8": expected octal digits'),
    (f"{A}user = ':x'", "3: apps.a.user"),
    (
        f"{A}rlimits = {{ nofiles = 1 }}",
        "3: apps.a.rlimits.nofiles: expected a limit of setrlimit(2) (did you mean nofile?)",
    ),
    (f"{A}rlimits = {{ nofile = 'many' }}", '3: apps.a.rlimits.nofile: "many": expected a whole number'),
    (f"{A}ports = {{ x = 0 }}", '3: apps.a.ports.x: 0: expected a whole number from 1 to 65535, or "auto"'),
    (f"{A}ports = {{ x = 'any' }}", '3: apps.a.ports.x: "any": expected'),
    (f"{A}listen = {{ x = 'localhost' }}", '3: apps.a.listen.x: "localhost": expected an address'),
    (f"{A}listen = {{ x = 'h:99999' }}", "expected an address"),
    (f"{A}listen = {{ x = '::1:80' }}", "expected an address"),
    (f"{A}listen = {{ x = 'unix:' }}", "expected an address"),
    (f"{A}listen = {{ x = 'unix:/x?mode=9' }}", "expected an address"),
    (f"{A}listen = {{ x = 'unix:/{'x' * 107}' }}", "has 108 bytes, and the path of a socket has 107 at most"),
    (f"{A}limits.memory = '512 MiBs'", '3: apps.a.limits.memory: "512 MiBs": expected bytes'),
    (f"{A}limits.memory = '512iB'", "expected bytes"),
    (f"{A}limits.memory = 0", "expected bytes, at least 1"),
    (f"{A}restart.backoff = '1x'", '3: apps.a.restart.backoff: "1x": expected seconds'),
    (f"{A}restart.backoff = '90'", "expected seconds"),
    (f"{A}restart.backoff = nan", "expected seconds"),
    (f"{A}restart.backoff = inf", "expected seconds"),
    (f"{A}restart.backoff = 2e9", "expected seconds"),
    (f"{A}restart.factor = 0.5", "3: apps.a.restart.factor: 0.5: expected a number, 1 or more"),
    (f"{A}restart.jitter = 2", "expected a number from 0 to 1"),
    (
        f"{A}restart.limit = 'none'",
        '3: apps.a.restart.limit: "none": expected a whole number, 0 or more, or "unlimited"',
    ),
    (
        f"{A}restart = {{ backoff = 9, maximum = 3 }}",
        "3: apps.a.restart.maximum: 3 s: expected 9, the backoff, or more",
    ),
    # as others say it
    (f"{A}restart = 'always'", '3: apps.a.restart: "always": expected a table: restart = { policy = "always" }'),
    (f"{A}restart = 'unless-stopped'", 'expected a table: restart = { policy = "always" }'),
    (f"{A}restart = 'No'", 'expected a table: restart = { policy = "never" }'),
    (f"{A}restart = true", '3: apps.a.restart: true: expected a table: restart = { policy = "always" }'),
    (f"{A}restart = false", 'expected a table: restart = { policy = "never" }'),
    (f"{A}restart = 'on-failure:3'", 'expected a table: restart = { policy = "on-failure", limit = 3 }'),
    (f"{A}restart = 3", '3: apps.a.restart: 3: expected a table, such as { policy = "on-failure", backoff'),
    (f"{A}restart = 'sometimes'", '"sometimes": expected a table, such as { policy = "on-failure"'),
    (
        f"{A}restart.policy = 'unexpected'",
        'policy: "unexpected": expected "always", "on-failure" or "never" (here it is "on-failure")',
    ),
    (f"{A}restart.policy = false", 'or "never" (here it is "never")'),
    (f"{A}restart.policy = 'on-failur'", 'or "never" (did you mean on-failure?)'),
    (f"{A}restart.policy = 3", '3: apps.a.restart.policy: 3: expected "always", "on-failure" or "never"'),
    (f"{A}autorestart = 'unexpected'", "3: apps.a.autorestart: there is no such key: here it is restart = { policy"),
    (f"{A}Restart = 'always'", "3: apps.a.Restart: there is no such key: here it is restart = { policy"),
    (f"[defaults]\nautorestart = true\n{A}", "2: defaults.autorestart: there is no such key: here it is restart ="),
    (f"{A}depends_on = ['b']\n{B}", "3: apps.a.depends_on: there is no such key: here it is after"),
    (f"{A}stop = 'TERM'", '3: apps.a.stop: "TERM": expected a table, such as { signal = "TERM"'),
    (f"{A}ready = 'http://127.0.0.1/'", '": expected a table, such as { http = "'),
    (f"{A}ports = [8080]", '3: apps.a.ports: a list: expected a table, such as { http = "auto" }'),
    (f"{A}env = ['A=1']", '3: apps.a.env: a list: expected a table, such as { NAME = "value" }'),
    (f"{A}stop.signal = 'TREM'", '3: apps.a.stop.signal: "TREM": expected a signal'),
    (f"{A}stop.signal = 0", "expected a signal"),
    (f"{A}stop.signal = '99'", '3: apps.a.stop.signal: "99": expected a signal: a name such as "TERM", or 1 to 64'),
    (f"{A}stop.grace = 61", "3: apps.a.stop.grace: 61 s are more than stop_timeout, 60 s"),
    (f"{A}log.keep = -1", "3: apps.a.log.keep: -1: expected"),
    (f"{A}orphans.policy = 'gentel'", "did you mean gentle?"),
    (f"{A}env_file = 'nope.env'", "3: apps.a.env_file: nope.env: no such file or directory"),
    (f"{A}env_file = 1", "3: apps.a.env_file: 1: expected a string, or a list of strings"),
    (f"{A}cwd = ''", "3: apps.a.cwd"),
    (f"{A}start = 1979-05-27", "3: apps.a.start: there is no such key"),
    (f"{A}cwd = 1979-05-27", "3: apps.a.cwd: 1979-05-27: expected a path"),
    # probes
    (f"{A}ready = {{}}", "3: apps.a.ready: expected exactly one of http, tcp, exec, log, notify, found none"),
    (f"{A}ready = {{ tcp = 1, log = 'x' }}", "found tcp, log"),
    (f"{A}ready = {{ notify = false }}", "found none"),
    (f"{A}ready = {{ http = '/health' }}", '3: apps.a.ready.http: "/health": expected a URL'),
    (f"{A}ready = {{ tcp = 'host:x' }}", "3: apps.a.ready.tcp"),
    (f"{A}ready = {{ log = '(' }}", '3: apps.a.ready.log: "(": no regular expression'),
    (f"{A}ready = {{ notify = true, watchdog = 1 }}", "3: apps.a.ready.watchdog: only [live] has it"),
    (f"{A}ready = {{ tcp = 1, timeout = 0 }}", "3: apps.a.ready.timeout: 0: expected seconds, more than 0"),
    (f"{A}live = {{ log = 'x' }}", "3: apps.a.live.log: only [ready] has it"),
    (f"{A}live = {{ tcp = 1, deadline = 1 }}", "3: apps.a.live.deadline: only [ready] has it"),
    (f"{A}live = {{ tcp = 1, watchdog = 1 }}", "3: apps.a.live.watchdog: it is fed by sd_notify(3)"),
    # between keys
    (f"{A}on_demand = true", "3: apps.a.on_demand: it wants a socket to wait at"),
    (f"{A}idle = 5", "3: apps.a.idle: nothing would start it again: expected on_demand = true"),
    (f"{A}orphans.policy = 'expiration'", '3: apps.a.orphans.policy: "expiration" wants `maximum`'),
    (f"{A}orphans.maximum = 3", '3: apps.a.orphans.maximum: expected policy = "expiration"'),
    # variables
    (f"{A}cwd = '${{HOME}}'", "3: apps.a.cwd: ${HOME}: expected ${port}"),
    (f"{A}env.X = '${{port}}'", "3: apps.a.env.X: ${port}: the app has no ports"),
    (
        "[apps.a]\ncommand = ['a',\n'${port.x}']\nports.y = 1",
        "2: apps.a.command: ${port.x}: the app has no such port, but y",
    ),
    (f"{A}env.X = '${{app.c.port}}'\n{B}", "3: apps.a.env.X: ${app.c.port}: there is no app c"),
    (f"{A}env.X = '${{app.b.port}}'\n{B}", "3: apps.a.env.X: ${app.b.port}: b has no ports"),
    (f"{A}env.X = '${{app.b.port.q}}'\n{B}ports.p = 1", "3: apps.a.env.X: ${app.b.port.q}: b has no such port, but p"),
    (
        f"{A}ready.tcp = '${{app.b.port}}'\n{B}ports.p = 1",
        "3: apps.a.ready.tcp: ${app.b.port}: a probe asks its own instance",
    ),
    # the order
    (f"{A}after = ['bb']\n{B}", "3: apps.a.after.bb: there is no app bb"),
    (f"{A}after = 'b'\n{B}", '3: apps.a.after: "b": expected a table of apps'),
    (f"{A}after = {{ b = 'up' }}\n{B}", '3: apps.a.after.b: "up": expected "started", "ready" or "completed"'),
    (f"{A}after = ['a']", "3: apps.a.after: a cycle: a waits for a"),
    (
        f"{A}after = ['b']\n{B}after = ['c']\n[apps.c]\ncommand = 'c'\nafter.a = 'ready'",
        "3: apps.a.after: a cycle: a waits for b, b for c, c for a",
    ),
    (f"{A}after.b = 'completed'\n{B}restart.policy = 'always'", '3: apps.a.after.b: "completed" never comes'),
    # addresses
    (f"{A}ports.p = 80\n{B}ports.q = 80", "6: apps.b.ports.q: port 80 is that of a.ports.p already"),
    (f"{A}ports.p = 80\nports.q = 80", "4: apps.a.ports.q: port 80 is that of a.ports.p already"),
    (f"{A}ports.p = 80\n{B}listen.q = '127.0.0.1:80'", "6: apps.b.listen.q: port 80 is that of a.ports.p already"),
    (f"{A}listen.p = 'localhost:80'\n{B}listen.q = '127.0.0.1:80'", "port 80 is that of a.listen.p already"),
    (f"{A}listen.p = 'unix:/x'\n{B}listen.q = 'unix:/x?mode=600'", "/x is that of a.listen.p already"),
    (f"{A}instances = 2\nports.p = 80", "4: apps.a.ports.p: 2 instances cannot share port 80"),
    (
        f"[api]\nlisten = ':80'\ntoken_file = 't'\n{A}ports.p = 80",
        "2: api.listen: port 80 is that of a.ports.p already",
    ),
    (f"state = '/{'x' * 91}'\n{A}", "1: state: /xxx"),
]


@pytest.mark.parametrize(("text", "said"), CASES)
def test_a_mistake(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_STATE", "/run/s")
    found = mistakes(tmp_path, text)
    assert len(found) == 1, found
    assert said in found[0]
    if said[0].isdigit():
        assert found[0].startswith(said)


def test_all_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = mistakes(tmp_path, f"zzz = 1\n{A}instances = true\n{B}instances = false\n[defaults]\nidle = 'x'\n")
    assert [one.split(":")[0] for one in found] == ["1", "4", "7", "9"]


def test_the_order_is_looked_at_though_keys_are_wrong(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path, f"{A}comand = 'a'\nafter = ['b', 'c', 'd']\n{B}after = {{ a = 'ready', d = 'up' }}\n[apps.c]\n"
    )  # fmt: skip
    assert [one.partition(" (")[0].partition(": a list")[0] for one in found] == [
        "3: apps.a.comand: there is no such key",
        "4: apps.a.after.d: there is no app d",
        "4: apps.a.after: a cycle: a waits for b, b for a",
        '7: apps.b.after.d: "up": expected "started", "ready" or "completed"',
        "8: apps.c: command is missing: expected a command",
    ]


def test_a_table_that_is_none_is_an_app_nevertheless(tmp_path: Path) -> None:
    assert mistakes(tmp_path, f"apps.b = 1\n{A}after = ['b']\n") == [
        '1: apps.b: 1: expected a table, such as { command = "..." }'
    ]


@pytest.mark.parametrize("name", sorted(peers.KEYS))
def test_what_others_call_it_is_no_key_here(name: str) -> None:
    assert name not in shape.APP.keys
    said = re.search(r"here it is (\w+)(?: = \{ (\w+))?", peers.KEYS[name])
    assert said
    kind = shape.APP.keys[said[1]].kind
    assert not said[2] or (isinstance(kind, Table) and said[2] in kind.keys)


def test_a_default_that_does_not_fit_an_app_is_told_where_it_stands(tmp_path: Path) -> None:
    found = mistakes(tmp_path, f"[defaults]\nautostart = false\nidle = 3\n{A}")
    assert found == ["3: apps.a.idle: nothing would start it again: expected on_demand = true"]


def test_every_cycle_is_told(tmp_path: Path) -> None:
    text = "".join(f"[apps.{name}]\ncommand = 'x'\nafter = {after}\n" for name, after in CYCLES.items())
    assert mistakes(tmp_path, text) == [
        "3: apps.a.after: a cycle: a waits for c, c for b, b for a",
        "12: apps.d.after: a cycle: d waits for e, e for d",
        "18: apps.f.after: a cycle: f waits for f",
    ]


def test_a_long_way_is_no_cycle(tmp_path: Path) -> None:
    apps = "".join(f"[apps.a{number}]\ncommand = 'x'\nafter = ['a{number + 1}']\n" for number in range(3000))
    (tmp_path / "sexton.toml").write_text(f"{apps}[apps.a3000]\ncommand = 'x'\n")
    found = load(tmp_path / "sexton.toml").order()
    assert [app.name for app in found] == [f"a{number}" for number in range(3000, -1, -1)]


def test_addresses_that_differ_may_share_a_port(tmp_path: Path) -> None:
    (tmp_path / "sexton.toml").write_text(f"{A}listen.p = '127.0.0.1:80'\n{B}listen.q = '127.0.0.2:80'\n")
    assert load(tmp_path / "sexton.toml").apps["b"].listen == {"q": "127.0.0.2:80"}


def test_a_line_of_an_env_file_that_cannot_be_read(tmp_path: Path) -> None:
    for number, line in enumerate(("no value", "=x", 'A="open', "A='a' b")):
        (tmp_path / "x.env").write_text(f"OK=1\n{line}\n")
        found = mistakes(tmp_path, f"{A}env_file = 'x.env'\n")
        assert len(found) == 1, number
        assert f"3: apps.a.env_file: {tmp_path}/x.env:2:" in found[0]
        assert "expected NAME=VALUE" in found[0]
