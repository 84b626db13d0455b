"""Trees inside programs that fork and reap by themselves: gunicorn, pytest-xdist, forking servers, a fork server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.spawn.troop import Troop
from tests.support.lines import DEADLINE, Lines
from tests.support.monsters import double_forked
from tests.support.processes import Handle

APP = """
import json, os, sexton, sexton.errors
LOG, WORDS = int(os.environ["LOG"]), json.loads(os.environ["WORDS"])
preloaded = sexton.Tree(WORDS, pass_fds=[LOG])  # the master's: this is run before the workers are forked
trees = []

def app(environ, start_response):
    what = environ["PATH_INFO"]
    if what == "/start":
        trees.append(sexton.Tree(WORDS, pass_fds=[LOG]))
        said = os.getpid()
    elif what == "/run":
        said = sexton.run(["sh", "-c", "sleep 1000 & exit 3"], capture_output=True).returncode
    else:
        try:
            said = preloaded.poll()
        except sexton.errors.NotOwner:
            said = "not the owner"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(said).encode()]
"""


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(self.path))


def get(path: Path, what: str) -> str:
    with contextlib.closing(Connection(path)) as connection:
        connection.request("GET", what)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text


@pytest.fixture
def program(tmp_path: Path, troop: Troop) -> Iterator[Any]:
    """Starts a program that has the words of a tree of two, and their log, in its environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **more: Any) -> subprocess.Popen[bytes]:
        words_of_tree = json.dumps(troop.words(double_forked(), "polite"))
        env = {
            **os.environ,
            "LOG": str(troop.log.write_fd),
            "TESTER": str(os.getpid()),
            "WORDS": words_of_tree,
            "PYTHONPATH": str(tmp_path),
        }
        started.append(subprocess.Popen(words, cwd=tmp_path, env=env, **troop.handed, **more))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def test_gunicorn(tmp_path: Path, troop: Troop, program: Any) -> None:
    (tmp_path / "app.py").write_text(APP)
    place = tmp_path / "http"
    words = ["--bind", f"unix:{place}", "--workers", "2", "--preload", "--no-control-socket", "app:app"]
    process = program(sys.executable, "-m", "gunicorn", *words, stderr=subprocess.PIPE)
    troop.ready(2)
    log = Lines(process.stderr.fileno(), "gunicorn's log")
    log.until(lambda line: "Listening at" in line)
    assert get(place, "/run") == "3"
    assert get(place, "/preloaded") == "not the owner"
    worker = Handle(int(get(place, "/start")))
    tree = [Handle(note.pid) for note in troop.ready(2)]

    worker.kill()
    for each in tree:
        each.wait_dead()
    log.until(lambda line: str(worker.pid) in line)  # the master has noticed
    assert get(place, "/run") == "3"
    get(place, "/start")
    troop.ready(2)

    process.terminate()
    assert process.wait(DEADLINE) == 0
    troop.end()


XDIST = """
import json, os, subprocess, sexton
import pytest
LOG, WORDS = 200, json.loads(os.environ["WORDS"])  # a number that nothing else has in a worker
os.dup2(os.open(f"/proc/{os.environ['TESTER']}/fd/{os.environ['LOG']}", os.O_WRONLY), LOG, inheritable=False)
WORDS[1] = str(LOG)

@pytest.mark.parametrize("number", range(6))
def test_run(number):
    assert sexton.run(["sh", "-c", f"sleep 1000 & exit {number}"], capture_output=True).returncode == number

@pytest.mark.parametrize("number", range(3))
def test_tree(tree, number):
    assert tree(["sh", "-c", "setsid sleep 1000 & sleep 1000"]).poll() is None

def test_leaks():
    subprocess.run(["sh", "-c", "setsid sleep 0.01 >/dev/null 2>&1 & setsid sleep 1001 >/dev/null 2>&1 &"])

def test_crash():
    kept = sexton.Tree(WORDS, pass_fds=[LOG])
    os.kill(os.getpid(), 9)
"""


def test_pytest_xdist(tmp_path: Path, troop: Troop, program: Any) -> None:
    (tmp_path / "test_it.py").write_text(XDIST)
    options = ["-p", "no:cacheprovider", "-n", "2", "-rA", "--sexton-leaks=fail", "test_it.py"]
    words = ["-m", "sexton", "run", "--", sys.executable, "-m", "pytest", *options]  # so that what leaks is ended
    process = program(sys.executable, *words, stdout=subprocess.PIPE)
    out = process.communicate(timeout=3 * DEADLINE)[0].decode()
    assert "test_it.py::test_leaks left 1 behind" in out, out
    assert "sleep 1001" in out or "setsid" in out, out
    assert "crashed while running 'test_it.py::test_crash'" in out, out
    assert "10 passed" in out, out
    troop.end()


FORKING = """
import json, os, socketserver, sys, sexton
LOG, WORDS = int(os.environ["LOG"]), json.loads(os.environ["WORDS"])
own = sexton.Tree(WORDS, pass_fds=[LOG])

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        code = sexton.run(["sh", "-c", "sleep 1000 & exit 5"], capture_output=True).returncode
        tree = sexton.Tree(WORDS, pass_fds=[LOG])
        self.wfile.write(b"%d %d\\n" % (os.getpid(), code))
        self.rfile.readline()  # forgets its tree

class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    pass

with Server(sys.argv[1], Handler) as server:
    print(own.poll(), flush=True)
    for _ in range(3):
        server.handle_request()
print(own.poll(), own.stop().empty, flush=True)
"""


def test_a_server_that_forks_for_each_request(tmp_path: Path, troop: Troop, program: Any) -> None:
    process = program(sys.executable, "-c", FORKING, str(tmp_path / "socket"), stdout=subprocess.PIPE)
    troop.ready(2)
    out = Lines(process.stdout.fileno(), "the server's output")
    assert out.line() == "None"
    for _ in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(DEADLINE)
            client.connect(str(tmp_path / "socket"))
            answer = client.makefile("rb").readline().split()
            assert answer[1] == b"5"
            tree = [Handle(note.pid) for note in troop.ready(2)]
        for each in tree:
            each.wait_dead()
            each.close()
    assert out.line() == "None True"
    assert process.wait(DEADLINE) == 0
    troop.end()


FORKSERVER = """
import multiprocessing, os, sexton

def one(number):
    return sexton.run(["sh", "-c", f"sleep 1000 & exit {number}"], capture_output=True).returncode

def keeps(say):
    tree = sexton.Tree(["sleep", "1000"])
    say.send(tree.guard)
    say.close()
    os._exit(0)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    with context.Pool(2) as pool:
        print(pool.map(one, range(6)), flush=True)
    here, there = context.Pipe()
    child = context.Process(target=keeps, args=(there,))
    child.start()
    there.close()
    print(here.recv(), flush=True)
    child.join()
    print(child.exitcode, flush=True)
"""


def test_multiprocessings_fork_server(tmp_path: Path, program: Any) -> None:
    (tmp_path / "main.py").write_text(FORKSERVER)
    words = ["-m", "sexton", "run", "--", sys.executable, "main.py"]  # with Python's own helpers, which end late
    process = program(sys.executable, *words, stdout=subprocess.PIPE)
    out = Lines(process.stdout.fileno(), "the program's output")
    assert out.line() == "[0, 1, 2, 3, 4, 5]"
    with contextlib.suppress(ProcessLookupError):
        guard = Handle(int(out.line() or 0))
        guard.wait_dead()
        guard.close()
    assert out.line() == "0"
    assert process.wait(DEADLINE) == 0
