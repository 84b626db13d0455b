"""`sexton up` and `sexton down` as a user starts them, with real apps."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from sexton.errors import Occupied
from sexton.supervise.journal import Journal
from sexton.supervise.run import lock
from tests.supervise.fake import serving
from tests.supervise.homes import SEXTON, Home
from tests.support import lines as support
from tests.support.lines import DEADLINE, Lines
from tests.support.processes import Handle, kill
from tests.support.running import Place, Running, namespace

WAITS = "exec sleep 1000"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 1000 & wait; done"


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    found = Home(tmp_path)
    found.write(a=WAITS)
    yield found
    found.write(a=WAITS)
    if found.state.exists():
        found.do("down")


def until(running: Running, text: str) -> None:
    assert running.out
    running.out.until(lambda line: text in line)


def test_in_the_foreground_until_it_is_told_to_stop(home: Home) -> None:
    home.write(a="echo hello; exec sleep 1000", db="echo there >&2; exec sleep 1000")
    with home.up() as running:
        missing = {"sexton | a.0: ready", "a.0    | hello", "db.0   | there"}

        def was_last(line: str) -> bool:
            missing.discard(line.strip())
            return not missing

        assert running.out
        running.out.until(was_last)
        running.send(signal.SIGTERM)
        done = running.wait()
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "a.0    | hello" in lines
    assert "db.0   | there" in lines
    assert "sexton | a.0: ended by SIGTERM" in lines
    assert not (home.state / "api.sock").exists()
    assert not Journal(home.state / "ledger").open


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_what_is_ready_is_told_with_its_ports(home: Home, words: list[str]) -> None:
    server = f"exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT"
    home.write(web=server + '#ports = { http = "auto" }\n')
    if words == ["up"]:
        with home.up() as running:
            until(running, "web.0: ready")
            said = f"web.0: ready, http={home.client.ports()['web.0']['http']}"
            running.send(signal.SIGTERM)
            assert f"sexton | {said}" in running.wait().out.splitlines()
    else:
        assert home.sexton(*words).returncode == 0
        said = f"web.0: ready, http={home.client.ports()['web.0']['http']}"
        assert f" {said}\n" in (home.state / "supervisor.log").read_text()


def test_a_second_interrupt_leaves_no_more_time(home: Home) -> None:
    home.write("stop_timeout = 2000", a=STUBBORN + "#stop = { grace = 1000 }\n")
    with home.up() as running:
        until(running, "a.0    | up")
        running.send(signal.SIGINT)
        until(running, "a.0: stopping")
        running.send(signal.SIGTERM)  # does not hurry: who stops a container may send several
        running.send(signal.SIGINT)
        done = running.wait()
    assert done.code == 0
    assert "a.0: ended by SIGKILL" in done.out


def test_a_hangup_reloads(home: Home) -> None:
    with home.up() as running:
        until(running, "a.0: ready")
        home.write(a=WAITS, b=WAITS)
        running.send(signal.SIGHUP)
        until(running, "b.0: ready")
        home.write(a="exit#nonsense = 1\n")
        running.send(signal.SIGHUP)
        until(running, "nothing was changed: ")
        assert set(home.pids()) == {"a.0", "b.0"}
        running.send(signal.SIGTERM)
        assert running.wait().code == 0


def test_it_ends_with_the_code_of_what_is_fatal(home: Home) -> None:
    home.write(a='exit 7#on_fatal = "exit"\nrestart = { policy = "never" }\n', b=WAITS)
    with home.up() as running:
        assert running.wait().code == 7


def test_it_ends_when_all_is_completed(home: Home) -> None:
    home.write(a="exit 0", b="exit 0")
    with home.up() as running:
        assert running.wait().code == 0


def test_in_the_background(home: Home) -> None:
    done = home.sexton("up", "-d")
    assert done.returncode == 0, done.stderr
    assert "1 up; supervisor" in done.stdout
    again = home.sexton("up", "-d")
    supervisor = home.supervisor
    assert again.returncode == 1
    assert f"a supervisor runs already: process {supervisor} holds" in again.stderr
    assert home.sexton("up").returncode == 1
    with closing(Handle(supervisor)) as held, closing(Handle(home.pids()["a.0"])) as app:
        assert home.sexton("down").returncode == 0
        assert not held.alive()
        assert not app.alive()
    assert home.sexton("down").returncode == 0
    assert home.sexton("status").returncode == 3


def test_in_the_background_it_says_what_failed(home: Home) -> None:
    home.write(a='exit 3#restart = { policy = "never" }\nready = { log = "never" }\n', b=WAITS)
    done = home.sexton("up", "-d")
    assert done.returncode == 1
    assert "1 up, 1 not" in done.stdout
    assert done.stderr.startswith("a.0 is fatal: ended with exit code 3\n`sexton logs` shows what they wrote")
    assert home.sexton("status").returncode == 1


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_file_with_a_mistake_starts_nothing(home: Home, words: list[str]) -> None:
    home.write(a="true#comand = 1\n")
    done = home.sexton(*words)
    assert done.returncode == 2
    assert "sexton.toml:" in done.stderr
    assert "comand" in done.stderr
    assert not home.state.exists()


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_state_directory_that_cannot_be_written_is_named(home: Home, words: list[str]) -> None:
    (home.directory / "file").touch()
    (home.directory / "sexton.toml").write_text('state = "file/state"\n[apps.a]\ncommand = "true"\n')
    done = home.sexton(*words)
    said = f"the state directory {home.directory}/file/state cannot be written: not a directory; the file's `state`"
    assert done.returncode == 1
    assert done.stderr.startswith(f"sexton: {said}")
    assert done.stderr.count("\n") == 1


def test_a_supervisor_that_was_killed_is_succeeded(home: Home) -> None:
    home.sexton("up", "-d")
    before, supervisor = home.pids(), home.supervisor
    kill(supervisor)
    assert home.sexton("status").returncode == 3
    assert home.sexton("up", "-d").returncode == 0
    status = home.client.status()
    assert home.pids() == before
    assert status.apps[0].instances[0].adopted
    assert status.epoch == 2


def test_the_supervisor_alone_can_be_ended(home: Home) -> None:
    home.sexton("up", "-d")
    before = home.pids()
    assert home.sexton("down", "--leave").returncode == 0
    assert home.sexton("down", "--leave").returncode == 3
    os.kill(before["a.0"], 0)
    assert home.sexton("up", "-d").returncode == 0
    assert home.pids() == before


def test_what_a_dead_supervisor_left_is_ended(home: Home) -> None:
    home.write(
        a=WAITS + "#instances = 2\n",
        b=WAITS + '#orphans = { policy = "reincarnation" }\n',
        c="trap 'exit 0' TERM; setsid sleep 1000 & wait#",
    )
    home.sexton("up", "-d")
    apps = home.pids()
    kill(home.supervisor)
    handles = [Handle(pid) for pid in apps.values()]
    done = home.sexton("down")
    assert done.returncode == 0, done.stderr
    assert sorted(line.partition(":")[0] for line in done.stdout.splitlines()) == ["a.0", "a.1", "b.0", "c.0"]
    for handle in handles:
        with closing(handle):
            assert not handle.alive()
    assert not Journal(home.state / "ledger").open
    assert home.sexton("down").stdout == ""


def test_a_second_down_leaves_no_more_time(home: Home) -> None:
    home.write("stop_timeout = 2000", a=STUBBORN + "#stop = { grace = 1000 }\nready = { log = 'up' }\n")
    home.sexton("up", "-d")
    events = home.client.events(follow=True)
    with subprocess.Popen([SEXTON, "down"], cwd=home.directory) as first:
        assert any(event.state == "stopping" for event in events)
        assert home.sexton("down").returncode == 0
        assert first.wait(DEADLINE) == 0
    assert any(event.exit and event.exit.signal == "KILL" for event in events)


def test_down_while_it_is_on_its_way_up(home: Home) -> None:
    home.write(a="echo never; exec sleep 1000#ready = { log = 'ready', deadline = 1000 }\n")
    with subprocess.Popen([SEXTON, "up", "-d"], cwd=home.directory, stderr=subprocess.PIPE, text=True) as up:
        support.until((home.state / "api.sock").exists, "the socket")
        assert any(event.state == "starting" for event in home.client.events(follow=True))
        assert home.sexton("down").returncode == 0
        assert up.stderr
        assert "before all was up" in up.stderr.read()
        assert up.wait(DEADLINE) == 1


def test_the_end_of_its_terminal_ends_it(home: Home) -> None:
    """SIGHUP is a reload, but not where the terminal has gone."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [SEXTON, "up"], cwd=home.directory, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # the tests have one thread
    ) as process:  # fmt: skip
        os.close(theirs)
        lines = Lines(ours, "terminal")
        lines.until(lambda line: "a.0: ready" in line)
        lines.close()
        assert process.wait(DEADLINE) == 0
    assert not Journal(home.state / "ledger").open


GARBAGE = [
    b"",
    b"GET",
    b"\x00" * 4096,
    b"POST /v1/down HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
    b"\n" * 70_000,
]


def test_garbage_harms_no_app(home: Home) -> None:
    home.sexton("up", "-d")
    before = home.pids()
    with ExitStack() as stack:
        for data in GARBAGE * 10:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(str(home.state / "api.sock"))
            with suppress(BrokenPipeError, ConnectionResetError):
                peer.sendall(data)
        assert home.pids() == before
        assert home.sexton("restart", "a").returncode == 0
        assert home.sexton("down").returncode == 0
    assert "Traceback" not in (home.state / "supervisor.log").read_text()


def test_down_where_nothing_ever_was(home: Home) -> None:
    assert home.sexton("down").returncode == 3


def test_the_commands_on_real_apps(home: Home) -> None:
    home.write(web="echo up; exec sleep 1000#ports = { http = 'auto' }\nready = { log = 'up' }\n", b=WAITS)
    home.sexton("up", "-d")
    before = home.pids()
    assert home.sexton("scale", "web=3").returncode == 0
    assert home.sexton("restart", "web").returncode == 0
    assert home.sexton("stop", "b").stdout == "b.0 is stopped\n"
    after = home.pids()
    assert set(after) == {"web.0", "web.1", "web.2", "b.0"}
    assert after["web.0"] != before["web.0"]
    ports = json.loads(home.sexton("ports", "--json").stdout)
    assert len({ports[name]["http"] for name in ("web.0", "web.1", "web.2")}) == 3
    assert home.sexton("start", "all").returncode == 0
    assert home.sexton("signal", "KILL", "web.2").returncode == 0
    ends = (one.exit.signal for one in home.client.events(follow=True) if one.instance == "web.2" and one.exit)
    assert "KILL" in ends
    assert "sexton_app_restarts_total" in home.client.metrics()
    home.write(b=WAITS)
    assert home.sexton("reload").stdout == "removed: web\n"
    assert "web" not in home.sexton("ports").stdout


def test_its_api_on_tcp(home: Home) -> None:
    token = home.directory / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o644)
    home.write('api = { listen = "127.0.0.1:1", token_file = "token" }', a=WAITS)
    done = home.sexton("up", "-d")
    assert done.returncode == 2
    assert f"chmod 600 {token}" in done.stderr


def test_the_lock_is_of_one_process(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from sexton.supervise.run import lock\n"
    code += "with lock(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(Occupied, match=f"process {other.pid} holds"), lock(tmp_path):
            pass
        kill(other.pid)
    with lock(tmp_path):
        assert (tmp_path / "supervisor.pid-lock").read_text() == f"{os.getpid()}\n"


def test_down_says_of_a_supervisor_that_does_not_answer(home: Home) -> None:
    home.state.mkdir(mode=0o700)
    with lock(home.state):
        done = home.sexton("down")
        assert done.returncode == 1
        assert f"process {os.getpid()}" in done.stderr


def as_pid_1(home: Home) -> Running:
    """`sexton up` as PID 1 of a namespace of its own."""
    return Running(
        subprocess.Popen(
            [*namespace(), SEXTON, "up"],
            cwd=home.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ),
        Place.PID1,
    )


def test_as_pid_1_it_is_behind_an_init(home: Home) -> None:
    """The orphan that the app leaves outside of its tree's guard comes to the init: nobody is a zombie."""
    with as_pid_1(home) as running:
        until(running, "a.0: ready")
        assert Path(f"/proc/{running.init.pid}/comm").read_text().startswith("sexton-init")
        running.send(signal.SIGHUP)
        until(running, "reload")
        running.send(signal.SIGTERM)
        done = running.wait()
    assert done.code == 0, done.err
    assert "a.0: ended by SIGTERM" in done.out


def test_down_from_within_its_container_is_a_success(home: Home) -> None:
    """The end of the supervisor is that of PID 1, which then stops whoever else is there."""
    with as_pid_1(home) as running:
        until(running, "a.0: ready")
        enter = ["nsenter", "--target", str(running.init.pid), "--pid", "--mount", f"--wd={home.directory}"]
        enter += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        done = subprocess.run(
            [*enter, SEXTON, "down"], capture_output=True, text=True, timeout=DEADLINE, check=False
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert running.wait().code == 0


FULL = """
cd "$1" && mount -t tmpfs -o size=2m,mode=0700 none state && "$2" up -d || exit 9
kill -9 $(cat state/supervisor.pid-lock) && flock state/supervisor.pid-lock true
cat /dev/zero >state/filler 2>/dev/null
"$2" up -d && "$2" status --json && "$2" stop a && "$2" start a && tr -d '\\0' <state/ledger
"$2" down
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_it_comes_up_where_the_disk_is_full(home: Home) -> None:
    home.state.mkdir(mode=0o700)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL, "sh", home.directory, SEXTON],
        capture_output=True, text=True, timeout=2 * DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space left" not in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    [status] = [one for one in found if "apps" in one]
    assert [one["adopted"] for app in status["apps"] for one in app["instances"]] == [True]
    assert [one["epoch"] for one in found if one.get("event") == "epoch"] == [1, 2]


def test_status_watch_ends_with_the_supervisor(home: Home) -> None:
    home.sexton("up", "-d")
    with subprocess.Popen([SEXTON, "status", "--watch"], cwd=home.directory, stdout=subprocess.PIPE) as watching:
        assert watching.stdout
        lines = Lines(os.dup(watching.stdout.fileno()), "status --watch")
        lines.until(lambda line: line.startswith("a.0"))
        home.sexton("down")
        lines.rest()
        lines.close()


def test_serving_a_fake_is_like_serving_a_real_one(tmp_path: Path) -> None:
    """What the tests of the API have behind it has every method that the API calls."""
    from sexton.supervise.supervisor import Supervisor

    with serving(tmp_path / "api.sock") as served:
        names = {name for name in dir(served.fake) if not name.startswith("_")}
    names -= {"states", "asked", "hold", "broken", "capture", "config", "epoch", "events", "since", "stopping"}
    assert names <= set(dir(Supervisor))
