"""What a sexton.toml means."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from sexton.errors import UsageError
from sexton.supervise import shell
from sexton.supervise.config import App, Config, Limits, Log, Orphans, Probe, Restart, Stop
from sexton.supervise.importers import procfile
from sexton.supervise.load import load
from sexton.supervise.where import default_path

FULL = """
name = "shop"
state = "var"
strategy = "rest_for_one"
stop_timeout = "2m"

[api]
listen = "127.0.0.1:9000"
token_file = "secret/token"

[apps.db]
command = "redis-server --port ${port}"
ports = { main = "auto" }

[apps.web]
command = ["node", "server.js"]
cwd = "site/${instance}"
env = { DB = "127.0.0.1:${app.db.port.main}", N = 3 }
user = "www:www"
umask = "027"
rlimits = { nofile = 1024, core = "unlimited", as = "2GiB" }
instances = 3
ports = { http = "auto", admin = "auto" }
listen = { a = "127.0.0.1:8080", b = ":8081", c = 8082, d = "unix:run/web.sock?mode=660", e = "[::1]:8083" }
after = { db = "started" }
on_fatal = "exit"
on_demand = true
idle = "10m"
autostart = false
limits = { memory = "512MB", processes = 64 }
log = { format = "json", directory = "log", max_size = "1.5MiB", keep = 2 }
[apps.web.ready]
http = "http://127.0.0.1:${port}/health"
timeout = "500ms"
deadline = 30
interval = 2
[apps.web.live]
exec = "check --port '${port.admin}'"
interval = "1m30s"
failures = 2
delay = 1.5
[apps.web.restart]
policy = "always"
backoff = 0.25
factor = 3
maximum = "1h"
jitter = 0
stable = 5
limit = "unlimited"
[apps.web.stop]
signal = "SIGINT"
grace = 20
scope = "tree"
command = ["drain", "--now"]
[apps.web.orphans]
policy = "expiration"
lease = "1d"
maximum = "2d"
"""


ENV = r"""
# a comment
export A=1
B = spaced out # comment
C="q \"x\"\n" # c
D='$HOME \n'
E=
F=a#b
PRICE=$5 ${port}
"""


def read(directory: Path, text: str) -> Config:
    path = directory / "sexton.toml"
    path.write_text(text)
    return load(path)


def test_everything(tmp_path: Path) -> None:
    found = read(tmp_path, FULL)
    assert (found.name, found.strategy, found.stop_timeout) == ("shop", "rest_for_one", 120)
    assert (found.path, found.directory, found.state) == (
        str(tmp_path / "sexton.toml"),
        str(tmp_path),
        str(tmp_path / "var"),
    )
    assert found.api
    assert (found.api.listen, found.api.token_file) == ("127.0.0.1:9000", str(tmp_path / "secret/token"))
    assert found.apps["web"] == App(
        name="web",
        command=("node", "server.js"),
        cwd=str(tmp_path / "site/${instance}"),
        env={"DB": "127.0.0.1:${app.db.port.main}", "N": "3"},
        user="www:www",
        umask=0o27,
        rlimits={"nofile": 1024, "core": -1, "as": 2 << 30},
        instances=3,
        ports={"http": "auto", "admin": "auto"},
        listen={
            "a": "127.0.0.1:8080",
            "b": ":8081",
            "c": "8082",
            "d": f"unix:{tmp_path}/run/web.sock?mode=660",
            "e": "[::1]:8083",
        },
        after={"db": "started"},
        ready=Probe(http="http://127.0.0.1:${port}/health", timeout=0.5, deadline=30, interval=2),
        live=Probe(exec=("check", "--port", "${port.admin}"), interval=90, failures=2, delay=1.5),
        restart=Restart(policy="always", backoff=0.25, factor=3, maximum=3600, jitter=0, stable=5, limit=None),
        on_fatal="exit",
        stop=Stop(signal="INT", grace=20, scope="tree", command=("drain", "--now")),
        orphans=Orphans(policy="expiration", lease=86400, maximum=172800),
        limits=Limits(memory=512_000_000, processes=64),
        log=Log(format="json", directory=str(tmp_path / "log"), max_size=3 << 19, keep=2),
        on_demand=True,
        idle=600,
        autostart=False,
    )
    assert [app.name for app in found.order()] == ["db", "web"]


def test_what_is_not_said_is_the_structs_default(tmp_path: Path) -> None:
    found = read(tmp_path, '[apps.a]\ncommand = "a"\n')
    assert found.apps["a"] == App(name="a", command=("a",), cwd=str(tmp_path))


def test_a_command_is_split_as_a_shell_would_and_run_by_none(tmp_path: Path) -> None:
    found = read(tmp_path, """[apps.a]\ncommand = 'a "b c" d\\ e "|" *'\n""")
    assert found.apps["a"].command == ("a", "b c", "d e", "|", "*")


@pytest.mark.parametrize(
    "command",
    [
        "nginx -g 'daemon off;'", 'nginx -g "daemon off;"', "nginx -g daemon\\ off\\;",
        "sh -c 'cd x && exec y >z 2>&1 $HOME `id`'", 'sh -c "exec y | z $PORT $(id)"',
        "curl http://h/?a=1&b=2;c", "a --match x|y -k 'a or b' *.py ~ [x] {a,b} # !", "a --set b=c -D=e",
        "env A=1 b", "a $$HOME $lower $1 ${port}", "psql -c VACUUM;", "a->b a=>b", "find . -exec rm {} \\;",
        "./cd x", "a cd exec",
    ],
)  # fmt: skip
def test_what_may_be_meant_for_the_program_itself(command: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"""[apps.a]\nports.http = 1\ncommand = {json.dumps(command)}\n""")
    assert found.apps["a"].command == tuple(shlex.split(command))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("cd x && npm start", "cd"), ("npm i&&npm start", "&&"), ("a || b", "||"), ("a | b", "|"), ("a |& b", "|&"),
        ("a ; b", ";"), ("a; b", ";"), ("while true; do a; done", ";"), ("a &", "&"),
        ("a >f", ">"), ("a > f", ">"), ("a 2>&1", "2>&1"), ("a >>f", ">>"), ("a <f", "<"), ("a <<<b", "<<<"),
        ("a &>f", "&>"),
        ("a $(id)", "$("), ("a -p=`id`", "`"), ("a :$PORT", "$PORT"), ("a $HOME/b", "$HOME"),
        ("A=1 b", "A=1"), ("A='b c' d", "A="), ("exec a", "exec"), ("export A=1", "export"), ("ulimit -n 9", "ulimit"),
    ],
)  # fmt: skip
def test_what_only_a_shell_would_understand(command: str, told: str, tmp_path: Path) -> None:
    assert shell.meant_for(command) == told
    with pytest.raises(
        UsageError, match=f"{re.escape(told)} is for a shell, and none runs it: expected .*shell = true"
    ):
        read(tmp_path, f"""[apps.a]\ncommand = {json.dumps(command)}\n""")
    assert procfile.needs_shell(command)


def test_a_shell_where_one_is_asked_for(tmp_path: Path) -> None:
    found = read(tmp_path, """[apps.a]\nshell = true\ncommand = "a 'b | c $HOME"\n""")
    assert found.apps["a"].command == ("/bin/sh", "-c", "a 'b | c $HOME")


def test_defaults_are_under_what_each_app_says(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
[defaults]
env = { A = "1", B = "1" }
shell = true
restart = { backoff = 5, limit = 2 }
ready = { tcp = "${port}", deadline = 5 }
ports = { http = "auto" }
[apps.a]
command = "x | y"
env = { B = "2" }
restart.limit = 3
[apps.b]
command = ["x"]
shell = false
ready.log = "up"
""",
    )
    a, b = found.apps["a"], found.apps["b"]
    assert a.env == {"A": "1", "B": "2"}
    assert a.restart == Restart(backoff=5, limit=3)
    assert a.ready == Probe(tcp="${port}", deadline=5)
    assert a.command == ("/bin/sh", "-c", "x | y")
    assert b.command == ("x",)
    assert b.ready == Probe(log="up", deadline=5)


def test_a_list_of_apps_waits_for_what_suits_each(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
[apps]
probed = { command = "a", ready = { log = "up" } }
ported = { command = "a", ports = { x = "auto" } }
plain = { command = "a" }
last = { command = "a", after = ["probed", "ported", "plain"] }
""",
    )
    assert found.apps["last"].after == {"probed": "ready", "ported": "ready", "plain": "started"}


def test_files_of_variables(tmp_path: Path) -> None:
    (tmp_path / "one.env").write_text(ENV)
    (tmp_path / "two.env").write_text("A=2\r\nG=a=b\r\n")
    found = read(
        tmp_path,
        """
[apps.a]
command = "a"
env_file = ["one.env", "two.env"]
env = { G = "mine" }
[apps.b]
command = "b"
env_file = "two.env"
""",
    )
    assert found.apps["a"].env == {
        "A": "2",
        "B": "spaced out",
        "C": 'q "x"\n',
        "D": "$$HOME \\n",
        "E": "",
        "F": "a#b",
        "PRICE": "$$5 $${port}",  # it means itself
        "G": "mine",
    }
    assert found.apps["b"].env == {"A": "2", "G": "a=b"}


def test_a_directory_with_a_dollar_means_itself(tmp_path: Path) -> None:
    odd = tmp_path / "a$b ${port}"
    odd.mkdir()
    found = read(odd, 'state = "/run/x"\n[apps.a]\ncommand = "a"\ncwd = "sub"\n')
    assert found.apps["a"].cwd == f"{tmp_path}/a$$b $${{port}}/sub"


def test_two_files_without_a_name_share_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEXTON_STATE", str(tmp_path / "state"))
    found = []
    for above in ("x", "y"):
        directory = tmp_path / above / "My Shop"
        directory.mkdir(parents=True)
        found.append(read(directory, '[apps.a]\ncommand = "a"\n'))
    assert [one.name for one in found] == ["my-shop", "my-shop"]
    assert found[0].state != found[1].state
    assert all(one.state.startswith(f"{tmp_path}/state/up/my-shop-") for one in found)
    named = read(tmp_path, 'name = "n"\n[apps.a]\ncommand = "a"\n')
    assert named.state == f"{tmp_path}/state/up/n"
    assert not (tmp_path / "state").exists(), "reading writes nothing"


def test_equal_files_are_equal(tmp_path: Path) -> None:
    assert read(tmp_path, FULL) == read(tmp_path, FULL)


def test_the_nearest_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(UsageError, match=r"there is no sexton.toml in .*a/b or above it: name one with --file FILE"):
        default_path()
    (tmp_path / "sexton.toml").touch()
    assert str(default_path()) == "../../sexton.toml"
    Path("sexton.toml").touch()
    assert str(default_path()) == "sexton.toml"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.toml: no such file or directory"):
        load(tmp_path / "nope.toml")
    with pytest.raises(UsageError, match="is a directory"):
        load(tmp_path)


def test_a_file_of_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "sexton.toml").write_bytes(b"name = '\xff'\n")
    with pytest.raises(UsageError, match="UTF-8; byte 8 is not"):
        load(tmp_path / "sexton.toml")


def test_a_relative_path_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text("a = 1\n")
    with pytest.raises(UsageError, match=r"^x\.toml:1: a: there is no such key"):
        load(Path("x.toml"))
    assert os.getcwd() == str(tmp_path)
