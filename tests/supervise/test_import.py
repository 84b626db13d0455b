"""What is made of the files of other supervisors; what is made always loads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sexton.errors import UsageError
from sexton.supervise.config import App, Config
from sexton.supervise.importers import convert
from sexton.supervise.load import load, parse
from sexton.supervise.variables import expand
from tests.supervise import homes
from tests.support.lines import DEADLINE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_STATE", "/run/s")
    monkeypatch.delenv("LOG_LEVEL", raising=False)


def made(directory: Path, name: str, text: str) -> tuple[Config, str]:
    """What a file means, and what is said not to be carried over."""
    (directory / name).write_text(text)
    found = convert(directory / name, directory / "sexton.toml")
    config = parse(found.text, directory / "sexton.toml")
    assert list(config.apps) == list(found.apps)
    for line in found.lost:
        assert f"#   {line}" in found.text.split("\n")
    return config, "\n".join(found.lost)


def words(app: App, number: int = 0) -> tuple[str, ...]:
    """The command of an instance."""
    ports = dict.fromkeys(app.ports, 4000)
    return tuple(expand(word, own=ports, number=number, port_of=lambda _app, _port: 0) for word in app.command)


@pytest.mark.parametrize(
    "source", sorted(EXAMPLES.glob("*/[!s]*")) + sorted(EXAMPLES.glob("*/*.conf")), ids=lambda path: path.name
)
def test_the_examples_are_what_is_made(source: Path) -> None:
    found = convert(source, source.parent / "sexton.toml")
    assert found.text == (source.parent / "sexton.toml").read_text()
    assert load(source.parent / "sexton.toml").apps


# --- supervisord ---


def test_supervisord(tmp_path: Path) -> None:
    config, lost = made(
        tmp_path,
        "supervisord.conf",
        """
[supervisord]
identifier=shop
environment=A="1",B='x, y'
umask=027
minfds=5000
[program:late]
command=/bin/late "a b" '$HOME' ${X} 100%%  ; a comment
priority=999
autostart=false
autorestart=false
[program:Early One]
command=early --n=%(process_num)02d --name=%(program_name)s
priority=1
numprocs=3
process_name=%(program_name)s_%(process_num)d
directory=/srv/%(program_name)s
environment=PATH="/a:/b",
  NAME=plain-1.2,QUOTED="say \\'x\\'"
user=www
umask=022
startsecs=3
startretries=7
stopsignal=QUIT
stopwaitsecs=61
stopasgroup=true
stdout_logfile=/var/log/early.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=3
serverurl=AUTO
[fcgi-program:php]
command=php-cgi
socket=unix:///run/php.sock
[inet_http_server]
port=9001
""",
    )
    assert list(config.apps) == ["early-one", "late", "php"]
    assert config.name == "shop"
    assert config.stop_timeout > 61
    late, early, php = config.apps["late"], config.apps["early-one"], config.apps["php"]
    assert words(late) == ("/bin/late", "a b", "$HOME", "${X}", "100%")
    assert (late.autostart, late.restart.policy, late.umask) == (False, "never", 0o27)
    assert (late.stop.scope, early.stop.scope) == ("child", "group")
    assert late.env == {"A": "1", "B": "x, y"}
    assert words(early, 2) == ("early", "--n=2", "--name=Early One")
    assert early.cwd == "/srv/Early One"
    assert (early.instances, early.user, early.umask) == (3, "www", 0o22)
    assert (early.restart.stable, early.restart.limit, early.restart.policy) == (3, 7, "on-failure")
    assert (early.stop.signal, early.stop.grace) == ("QUIT", 61)
    assert (early.log.directory, early.log.max_size, early.log.keep) == ("/var/log", 5 << 20, 3)
    assert early.env["PATH"] == "/a:/b"
    assert early.env["NAME"] == "plain-1.2"
    assert php.listen == {"fcgi": "unix:/run/php.sock"}
    for part in ("minfds", "serverurl", "[inet_http_server]", "leading zeros", "is called early-one", "descriptor 3"):
        assert part in lost


def test_supervisord_variables_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TAG", "it's ${x}")
    config, lost = made(
        tmp_path,
        "supervisord.conf",
        """
[program:a]
command=printf '<%%s>' pre-%(ENV_SHOP_TAG)s %(ENV_SHOP_TAG)s 'a b' "$HOME" "don't"
environment=T="%(ENV_SHOP_TAG)s"
""",
    )
    app = config.apps["a"]
    # The shell that it is for says what it means.
    done = subprocess.run(words(app), capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "<pre-it's ${x}><it's ${x}><a b><$HOME><don't>"
    assert app.env == {"T": "it's $${x}"}
    assert lost == "a: %(ENV_SHOP_TAG)s: put in as it is now", "which may be a secret"


def test_supervisord_includes(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("[program:b]\ncommand=b\n")
    config, _ = made(
        tmp_path, "supervisord.conf", "[program:a]\ncommand=%(here)s/a\n[include]\nfiles = conf.d/*.conf /nope/*.conf\n"
    )
    assert words(config.apps["a"]) == (f"{tmp_path}/a",)
    assert words(config.apps["b"]) == ("b",)


# --- Procfile ---


def test_procfile(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SECRET=x\n")
    config, lost = made(
        tmp_path,
        "Procfile.dev",
        """# a comment
web: bin/server --port $PORT

Mail_Worker:   python worker.py "a b" -v
clock: while true; do sleep ${N:-60}; echo $$; done
other: FOO=1 node x.js
""",
    )
    assert list(config.apps) == ["web", "mail_worker", "clock", "other"]
    assert words(config.apps["web"]) == ("/bin/sh", "-c", "bin/server --port $PORT")
    assert config.apps["web"].ports == {"http": 5000}
    assert words(config.apps["mail_worker"]) == ("python", "worker.py", "a b", "-v")
    assert words(config.apps["clock"])[2] == "while true; do sleep ${N:-60}; echo $$; done"
    assert words(config.apps["other"]) == ("/bin/sh", "-c", "FOO=1 node x.js")
    assert config.apps["clock"].env == {"SECRET": "x"}
    assert "Mail_Worker: it is called mail_worker here" in lost
    assert "ports = { http = 5100 }" in lost


# --- pm2 ---


def test_pm2(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    apps = [
        {
            "name": "api",
            "script": "./api.js",
            "args": "--x 'a b'",
            "node_args": ["--a"],
            "env": {"PORT": 3000, "N": 1, "T": True, "D": "${X}"},
        },
        {"name": "api", "script": "run", "interpreter": "none", "kill_timeout": 3000, "min_uptime": 5000},
        {
            "script": "jobs/mail.py",
            "instances": 3,
            "env": {"PORT": "3000"},
            "increment_var": "PORT",
            "autorestart": False,
        },
        {
            "name": "sh",
            "script": "a && b",
            "args": ["c d"],
            "max_memory_restart": "1G",
            "restart_delay": 4000,
            "uid": 33,
        },
        {"name": "long", "script": "x.js", "kill_timeout": "2m"},
        {"name": "odd", "script": "x.js", "kill_timeout": "soon", "min_uptime": "10s", "gid": "x", "zzz": [1]},
        {"name": "none"},
    ]
    config, lost = made(tmp_path, "ecosystem.config.json", json.dumps({"apps": apps}))
    assert list(config.apps) == ["api", "api-2", "mail", "sh", "long", "odd"]
    api, second = config.apps["api"], config.apps["api-2"]
    assert {app.restart.policy for app in config.apps.values()} == {"always", "never"}
    assert all(app.stop.signal == "INT" and app.stop.scope == "tree" for app in config.apps.values())
    assert words(api) == ("node", "--a", "./api.js", "--x", "a b")
    assert (api.ports, api.env) == ({"http": 3000}, {"N": "1", "T": "true", "D": "$${X}"})
    assert (words(second), second.stop.grace, second.restart.stable) == (("./run",), 3, 5)
    mail = config.apps["mail"]
    assert words(mail) == ("python3", "jobs/mail.py")
    assert (mail.instances, mail.ports, mail.restart.policy) == (3, {"http": "auto"}, "never")
    assert words(config.apps["sh"]) == ("/bin/sh", "-c", "a && b 'c d'")
    assert (config.apps["sh"].limits.memory, config.apps["sh"].user) == (1 << 30, "33")
    assert (config.apps["sh"].restart.backoff, config.apps["sh"].restart.factor) == (4, 1)
    assert config.apps["odd"].restart.stable == 10
    assert (config.apps["long"].stop.grace, config.stop_timeout) == (120, 130)
    for part in ('odd: stop.grace: "soon": expected seconds', "odd: zzz: a list", "none: script: it has none"):
        assert part in lost


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ecosystem.config.js", "module.exports = { apps: [{ name: 'a', script: 'a.js', args: [String(1 + 1)] }] }"),
        ("ecosystem.config.cjs", "module.exports = [{ name: 'a', script: 'a.js', args: '2' }]"),
        ("ecosystem.config.mjs", "export default { apps: { name: 'a', script: 'a.js', args: '2' } }"),
        ("ecosystem.config.json", "{ // comments\n apps: [{ name: 'a', script: 'a.js', args: '2', }] }"),
        ("process.json", '{"name": "a", "script": "a.js", "args": ["2"]}'),
    ],
)
def test_pm2_in_javascript(name: str, text: str, tmp_path: Path) -> None:
    config, lost = made(tmp_path, name, text)
    assert words(config.apps["a"]) == ("node", "a.js", "2")
    assert not lost


# --- compose ---


def test_compose(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=7\nEMPTY=\n")
    (tmp_path / "a.env").write_text("FROM_FILE=$x ${y}\n")
    config, lost = made(
        tmp_path,
        "compose.yaml",
        """
name: shop
services:
  db: { image: "postgres:${TAG}" }
  cache:
    command: cache --port 7000 --price $$5 ${EMPTY:-none} ${TAG-x} ${NOPE:-${TAG}} $TAG
    ports: ["127.0.0.1:80:7000", "8080-8090:8080-8090", "53:53/udp", { target: 7001, published: 7001 }]
    healthcheck: { test: ["CMD", "ping"], interval: 1m30s, retries: 2, start_period: 10s }
    depends_on: [db]
  web:
    entrypoint: sh -c
    command: ["exec web $$PORT"]
    working_dir: /app/src
    volumes: ["./code:/app:ro"]
    environment: [A=1, "B=x=y", PASSED]
    env_file: [a.env, { path: nope.env, required: false }]
    depends_on:
      cache: { condition: service_healthy }
      one: { condition: service_completed_successfully }
    restart: on-failure:4
    stop_signal: SIGQUIT
    stop_grace_period: 1m15s
    user: "1000:1000"
    mem_limit: 512m
    pids_limit: 50
    ulimits: { nofile: 1024, core: -1 }
    ports: ["7000"]
    profiles: [debug]
    privileged: true
  one:
    command: once
    restart: always
  x: { command: x, depends_on: [y] }
  y: { command: y, depends_on: [x] }
  options: { image: x, command: --verbose }
""",
    )
    assert config.name == "shop"
    assert list(config.apps) == ["cache", "web", "one", "x", "y"]
    cache, web, one, x, y = config.apps.values()
    assert words(cache) == ("cache", "--port", "7000", "--price", "$5", "none", "7", "7", "7")
    assert cache.ports == {"http": 7000, "p7001": 7001}
    assert cache.ready
    assert (cache.ready.exec, cache.ready.deadline) == (("ping",), 10 + 2 * (90 + 30))
    assert words(web) == ("sh", "-c", "exec web $PORT")
    assert web.cwd == str(tmp_path / "code/src")
    assert web.env == {"A": "1", "B": "x=y", "FROM_FILE": "$$x $${y}"}
    assert web.after == {"cache": "ready", "one": "completed"}
    assert (x.after, y.after) == ({}, {"x": "started"})
    assert (web.restart.policy, web.restart.limit, one.restart.policy) == ("on-failure", 4, "on-failure")
    assert (web.stop.signal, web.stop.grace, web.stop.scope) == ("QUIT", 75, "child")
    assert (web.user, web.limits.memory, web.limits.processes) == ("1000:1000", 512 << 20, 50)
    assert web.rlimits == {"nofile": 1024, "core": -1}
    assert web.ports == {}, "the port is the cache's"
    assert not web.autostart
    for part in (
        "db: command: only image postgres:7 knows it",
        "options: command: --verbose: options for the program",
        "cache: after: db is not there",
        "x: after: y waits for it, too",
        "one: restart: web waits until it is completed",
        "8080-8090",
        "53:53/udp",
        "80 was published; the app itself listens on 7000",
        "web: env_file: nope.env: no such file",
        "7000 is cache's already",
        "web: privileged: true",
        "${EMPTY}: put in as it is now",
    ):
        assert part in lost, part


# --- all of them ---


def test_paths_begin_where_the_new_file_lies(tmp_path: Path) -> None:
    (tmp_path / "old $x").mkdir()
    source = tmp_path / "old $x" / "Procfile"
    source.write_text("web: ./server\n")
    (source.parent / ".env").write_text("A=1\n")
    target = tmp_path / "new" / "sexton.toml"
    target.parent.mkdir()
    config = parse(convert(source, target).text, target)
    cwd = config.apps["web"].cwd
    assert cwd
    assert expand(cwd, own={}, number=0, port_of=lambda _app, _port: 0) == str(source.parent)
    assert config.apps["web"].env == {"A": "1"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.txt", "", "expected a supervisord.conf, a Procfile"),
        ("Procfile", "no colon here\n", "Procfile:1: 'no colon here': expected NAME: COMMAND"),
        ("Procfile", "", "there is no app in it"),
        ("a.conf", "key=1\n", "no section headers"),
        ("a.conf", "[program:a]\n", "there is no app in it that can be carried over: a: command: it has none"),
        ("a.yml", "a: [\n", "a.yml:2: "),
        ("a.yml", "a: 1\n", "expected `services`"),
        ("a.json", "[1]", "expected an object with `apps`"),
        ("a.json", "{", "node could not read it: .*SyntaxError"),
        ("a.js", "throw new Error('no such luck')", "node could not read it: .*no such luck"),
        ("a.js", "module.exports = {}", "expected an object with `apps`"),
    ],
)
def test_what_is_none_of_them(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        convert(tmp_path / name, tmp_path / "sexton.toml")


@pytest.mark.parametrize("name", ["Procfile", "a.conf", "a.yml", "a.json", "a.js"])
def test_what_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name}: no such file or directory"):
        convert(tmp_path / name, tmp_path / "sexton.toml")


def test_javascript_without_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.js").write_text("module.exports = {}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no node here, which could read it"):
        convert(tmp_path / "a.js", tmp_path / "sexton.toml")


MANY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 99999),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.lists(st.text(max_size=4), max_size=2),
)
KEYS = st.sampled_from(
    "args cwd instances env interpreter user gid max_memory_restart min_uptime max_restarts restart_delay kill_timeout "
    "exp_backoff_restart_delay out_file port env_file stop_exit_codes exec_mode log_type autostart treekill".split()
)


@MANY
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=5), min_size=1, max_size=3))
def test_whatever_pm2_may_say_what_is_made_loads(tmp_path: Path, apps: list[dict[str, Any]]) -> None:
    source = (
        json.dumps({"apps": [{"script": "ok.js"}, *({"script": "a.js", **app} for app in apps)]})
        .replace("NaN", "1e99")
        .replace("Infinity", "1e99")
    )
    made(tmp_path, "a.json", source)


SERVICE = st.sampled_from(
    "working_dir environment env_file ports depends_on healthcheck restart deploy stop_signal user scale "
    "stop_grace_period mem_limit pids_limit ulimits logging profiles volumes privileged".split()
)


@MANY
@given(st.lists(st.dictionaries(SERVICE, VALUES, max_size=5), min_size=1, max_size=3))
def test_whatever_compose_may_say_what_is_made_loads(tmp_path: Path, services: list[dict[str, Any]]) -> None:
    source = {"services": {f"s{number}": {"command": "a", **service} for number, service in enumerate([{}, *services])}}
    made(tmp_path, "a.yml", yaml.safe_dump(source))


PROGRAM = st.sampled_from(
    "directory environment user umask numprocs priority autostart autorestart startsecs startretries exitcodes "
    "stopsignal stopwaitsecs stopasgroup stdout_logfile stdout_logfile_maxbytes stdout_logfile_backups "
    "stderr_logfile command".split()
)
SAID = st.one_of(
    st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8),
    st.sampled_from(
        ["true", "0", "-1", "1e9", "TERM", "%(here)s/x", "%(process_num)02d", "%(ENV_HOME)s", "%", "%(", "A='", "${x}$"]
    ),
)


@MANY
@given(st.lists(st.dictionaries(PROGRAM, SAID, max_size=5), min_size=1, max_size=3))
def test_whatever_supervisord_may_say_what_is_made_loads(tmp_path: Path, programs: list[dict[str, str]]) -> None:
    sections = [
        f"[program:p{number}]\n" + "".join(f"{key}={value}\n" for key, value in {"command": "a", **program}.items())
        for number, program in enumerate([{}, *programs])
    ]
    made(tmp_path, "a.conf", "\n".join(sections))


@MANY
@given(st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20)))
def test_whatever_a_procfile_may_say_what_is_made_loads(tmp_path: Path, commands: list[str]) -> None:
    made(tmp_path, "Procfile", "".join(f"p{number}: x {command}\n" for number, command in enumerate(["", *commands])))


# --- the command ---


def sexton(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return homes.sexton(directory, "import", *arguments)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: ./server\nMail: ./mail\n")
    done = sexton(tmp_path, "Procfile")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("sexton.toml: 2 apps: web, mail\nNot carried over, or different:\n  ")
    assert list(load(tmp_path / "sexton.toml").apps) == ["web", "mail"]
    again = sexton(tmp_path, "Procfile")
    assert again.returncode == 2
    assert "sexton.toml is there already: name another file with -o" in again.stderr
    other = sexton(tmp_path, "Procfile", "-o", "-")
    assert other.stdout == (tmp_path / "sexton.toml").read_text()
    nowhere = sexton(tmp_path, "Procfile", "-o", "no/where.toml")
    assert (nowhere.returncode, "no/where.toml: no such file or directory" in nowhere.stderr) == (2, True)
