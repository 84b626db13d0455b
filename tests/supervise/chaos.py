"""Chaos: whatever of `sexton up` can be killed is killed, at random, under load; then the books are compared.

    python -m tests.supervise.chaos [--seconds 600] [--seed N]

In a PID namespace and a mount namespace of its own (root, or a kernel that lets users make them). Ten minutes by hand;
test_chaos.py does some seconds of it. Ends with 1 and says what was wrong, or with 0 and says how much was survived.

What is held to be true: of an instance there is never a second copy, its daemons included; every exit that an app
announced is in the ledger as it announced it, unless the app or its guard was killed meanwhile; the ledger can be read
at any moment; afterwards every app comes up again; after `sexton down` no process is left, and nothing is open in the
ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sexton.errors import SextonError
from sexton.supervise import models
from sexton.supervise.client import Client
from sexton.supervise.journal import Journal
from tests.supervise.homes import SEXTON

APP = Path(__file__).with_name("chaos_app.py")
DEADLINE = 60.0
ROOM = 24 << 20  # bytes of the disk that is filled

FILE = """\
state = "state"
{apps}
"""
TABLE = """
[apps.{name}]
command = [{python!r}, "-I", {app!r}, {book!r}]
instances = 2
ports = {ports}
restart = {{ policy = "always", backoff = 0.05, maximum = 0.2, stable = 0.5, limit = 1000000 }}
stop = {{ grace = 2 }}
log = {{ max_size = 200000, keep = 1 }}
"""
APPS = {"web": '{ http = "auto" }', "api": '{ http = "auto" }', "worker": "{}", "queue": "{}"}


class Chaos:
    """One run of it; `wrong` is what was not as it should be."""

    def __init__(self, here: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.here = here
        self.book = here / "book"
        self.state = here / "state"
        self.client = Client(self.state / "api.sock", timeout=DEADLINE)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.killed: set[str] = set()  # trees whose app or guard we killed, or that were told to stop
        self.exits: dict[str, models.Exit] = {}
        self.commands: list[subprocess.Popen[str]] = []
        self.full_until = 0.0
        apps = [
            TABLE.format(name=name, python=sys.executable, app=str(APP), book=str(here), ports=ports)
            for name, ports in APPS.items()
        ]
        (here / "sexton.toml").write_text(FILE.format(apps="".join(apps)).replace("'", '"'))
        self.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "chaos", self.state], check=True)

    # --- what is done ---

    def up(self) -> None:
        """A supervisor, as often as it takes: it may need the room that we have taken."""
        end = time.monotonic() + DEADLINE
        while True:
            done = self.sexton("up", "-d").wait_for()
            with contextlib.suppress(SextonError):
                self.client.status()
                return
            if time.monotonic() > end:
                raise AssertionError(f"it does not come up: {done.stderr}")
            self.done["up failed"] += 1
            if not self.full_until:
                self.wrong.append(f"sexton up failed, and the disk was not full: {done.stderr}")
            self.empty()

    def sexton(self, *words: str) -> Command:
        return Command([str(SEXTON), *words], self.here)

    def look(self) -> list[models.Instance]:
        try:
            return [one for app in self.client.status().apps for one in app.instances]
        except SextonError:
            return []

    def read_ledger(self) -> None:
        """Every whole line of it is one; the last one may be being written."""
        lines = (self.state / "ledger").read_bytes().rstrip(b"\0").split(b"\n")
        for line in lines[:-1]:
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:
                self.wrong.append(f"the ledger has a line that is none: {line[:200]!r}")
                continue
            if said["event"] == "exit":
                self.exits[said["tree"]] = models.Exit(**said["exit"])

    def kill_supervisor(self) -> None:
        pid = int((self.state / "supervisor.pid-lock").read_text() or 0)
        if pid > 1 and "sexton" in name_of(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.done["killed"] += 1
        if self.chance.random() < 0.3:
            time.sleep(self.chance.random())  # the apps go on, and end, without one
        self.up()

    def kill_guard(self) -> None:
        self._kill(lambda one: one.guard)

    def kill_app(self) -> None:
        self._kill(lambda one: one.pid)

    def _kill(self, which: Callable[[models.Instance], int]) -> None:
        there = [one for one in self.look() if which(one)]
        if not there:
            return
        pid = which(self.chance.choice(there))
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        with open(fd, closefd=True, mode="rb", buffering=0), contextlib.suppress(OSError):
            tree = tree_of(pid)
            if tree:
                self.killed.add(tree)
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                self.done["killed"] += 1

    def fill(self) -> None:
        """Take all room on the disk of the state directory, to the last byte."""
        self.full_until = time.monotonic() + self.chance.uniform(0.5, 3)
        with open(self.state / "junk", "ab", buffering=0) as junk, contextlib.suppress(OSError):
            while True:
                junk.write(b"x" * 65_536)

    def empty(self) -> None:
        self.full_until = 0.0
        (self.state / "junk").unlink(missing_ok=True)

    def talk_nonsense(self) -> None:
        """To the control API: noise, half a request, a request that never ends, and one that is nearly right."""
        noise = self.chance.randbytes(self.chance.randrange(1, 70_000))
        said = self.chance.choice((
            noise,
            b"POST /v1/apps/web/restart HTTP/1.1\r\nContent-Le",
            b'POST /v1/down HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"leave":',
            b"POST /v1/apps/%00%ff/signal HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull",
            b"GET /v1/events?since=-1 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: \xff\r\n\r\n",
            b"GET /v1/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        ))  # fmt: skip
        with socket.socket(socket.AF_UNIX) as peer, contextlib.suppress(OSError):
            peer.settimeout(1)
            peer.connect(str(self.state / "api.sock"))
            peer.sendall(said)
            if self.chance.random() < 0.5:
                peer.recv(1000)

    def command(self) -> None:
        """Something that an operator does; it may fail when what does it is killed."""
        app = self.chance.choice(list(APPS))
        words = self.chance.choice((
            ["restart", f"{app}.0"], ["restart", app], ["stop", app], ["start", "all"], ["scale", f"{app}=3"],
            ["scale", f"{app}=1"], ["reload"], ["status", "--json"], ["signal", "USR2", app],
        ))  # fmt: skip
        self.commands.append(self.sexton(*words).popen)

    # --- the whole ---

    def run(self, seconds: float) -> None:
        actions: list[tuple[Callable[[], None], int]] = [
            (self.kill_app, 6), (self.kill_guard, 4), (self.kill_supervisor, 3), (self.talk_nonsense, 5),
            (self.command, 2), (self.fill, 1),
        ]  # fmt: skip
        self.up()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.wrong:
            (action,) = self.chance.choices([one for one, _ in actions], [weight for _, weight in actions])
            action()
            self.done[action.__name__.replace("_", " ")] += 1
            if self.full_until and time.monotonic() > self.full_until:
                self.empty()
            self.read_ledger()
            time.sleep(self.chance.uniform(0, 0.2))
        self.recover()
        self.end()
        self.compare()

    def recover(self) -> None:
        """All comes up again, when nobody harms it any more."""
        self.empty()
        self.up()
        for command in self.commands:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.communicate(timeout=DEADLINE)
                continue
            command.kill()
            self.wrong.append(f"{command.args!r} hangs")
        self.sexton("start", "all").wait_for()
        for instance in sorted(self.seen()):
            end = time.monotonic() + DEADLINE
            while not any(one.name == instance and one.state == "ready" for one in self.look()):
                if time.monotonic() > end:
                    self.wrong.append(f"{instance} does not come up again: {self.look()}")
                    break
                time.sleep(0.05)

    def seen(self) -> set[str]:
        return {one.name for one in self.look()}

    def end(self) -> None:
        done = self.sexton("down").wait_for()
        if done.returncode:
            self.wrong.append(f"sexton down ended with {done.returncode}: {done.stderr}")
        self.read_ledger()
        left = [(pid, name_of(pid)) for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))]
        left = [(pid, name) for pid, name in left if pid not in {1, os.getpid()}]
        if left:
            self.wrong.append(f"left after the end: {left}")
        journal = Journal(self.state / "ledger")
        if journal.open:
            self.wrong.append(f"open in the ledger: {journal.open}")

    def compare(self) -> None:
        """What the apps wrote, with what the ledger says."""
        for line in self.book.read_text().splitlines():
            what, name, tree, about = line.split(" ", 3)
            self.done[f"apps: {what}"] += 1
            if what == "second":
                self.wrong.append(f"{name} was started a second time, tree {tree}")
            if what != "end" or tree in self.killed:
                continue
            how, found = int(about), self.exits.get(tree)
            said = None if found is None else found.code if found.code is not None else -number_of(found.signal)
            if said != how:
                self.wrong.append(f"{name} ended with {how}, tree {tree}; the ledger has {found}")


class Command:
    """A `sexton` that runs."""

    def __init__(self, words: list[str], where: Path) -> None:
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen(words, cwd=where, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    def wait_for(self) -> subprocess.CompletedProcess[str]:
        out, err = self.popen.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(self.popen.args, self.popen.returncode, out, err)


def number_of(name: str | None) -> int:
    return int(signal.Signals[f"SIG{name}"]) if name else 0


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or "(zombie?)"
    except OSError:
        return ""


def tree_of(pid: int) -> str:
    """The mark of the tree that a process belongs to, or guards."""
    try:
        marks = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((mark[12:].decode() for mark in marks if mark.startswith(b"SEXTON_TREE=")), "")


def within(seconds: float, seed: int) -> int:
    """In namespaces of our own already."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        chaos = Chaos(Path(name), seed)
        chaos.run(seconds)
        subprocess.run(["umount", chaos.state], check=True)
    for what, count in sorted(chaos.done.items()):
        print(f"{count:6} {what}")
    print(f"{len(chaos.exits):6} exits in the ledger")
    for text in chaos.wrong:
        print(f"WRONG: {text}")
    return bool(chaos.wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    if options.within:
        return within(options.seconds, seed)
    print(f"seed {seed}", flush=True)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid():
        unshare += ["--user", "--map-root-user"]
    init = os.environ.get("SEXTON_INIT") or str(SEXTON.with_name("sexton-init"))
    ourselves = [sys.executable, "-m", "tests.supervise.chaos", "--within", "--seed", str(seed)]
    command = [*unshare, init, "--", *ourselves, "--seconds", str(options.seconds)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
