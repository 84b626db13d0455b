"""An app that listens answers every request: while it is restarted, scaled, and while its supervisor is killed."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.supervise.homes import Home
from tests.supervise.servers import free_port
from tests.support.lines import DEADLINE
from tests.support.processes import kill

# It answers with its instance and pid, and on SIGTERM ends between two requests.
SERVER = """
import os, select, signal, socket
listener = socket.socket(fileno=3)
listener.setblocking(False)
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
signal.signal(signal.SIGTERM, lambda *_: None)
assert os.environ["LISTEN_PID"] == str(os.getpid())
print("up", flush=True)
while reading not in (ready := select.select([listener, reading], [], [])[0]):
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        continue
    connection.setblocking(True)
    connection.recv(100)
    connection.sendall(f"{os.environ['SEXTON_INSTANCE']} {os.getpid()}".encode())
    connection.close()
"""


class Load:
    """Requests, one after the other, from so many threads, until it is left; each answer is kept, and each failure."""

    def __init__(self, port: int, threads: int = 3) -> None:
        self.port = port
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(threads)]
        self.counted = threading.Condition()

    def ask(self) -> None:
        while not self.over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as connection:
                    connection.sendall(b"?")
                    answer = connection.recv(100).decode()
            except OSError as error:
                self.failures.append(repr(error))
                return
            with self.counted:
                (self.answers if answer else self.failures).append(answer)
                self.counted.notify_all()

    def more(self, count: int = 50) -> None:
        """Wait until there are so many more answers."""
        with self.counted:
            wanted = len(self.answers) + count
            assert self.counted.wait_for(lambda: len(self.answers) >= wanted or self.failures, DEADLINE)

    def heard_of(self, instance: int) -> None:
        """Wait until that instance has answered."""
        with self.counted:
            assert self.counted.wait_for(
                lambda: self.failures or any(one.startswith(f"{instance} ") for one in self.answers), DEADLINE
            )

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(DEADLINE)


class Shop(Home):
    """Two instances of that server on one socket."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        (directory / "server.py").write_text(SERVER)
        self.file.write_text(
            f"""
            state = "state"
            [apps.web]
            command = ["{sys.executable}", "server.py"]
            instances = 2
            listen = {{ http = "127.0.0.1:{self.port}" }}
            ready = {{ log = "^up" }}
            restart = {{ backoff = 0.05 }}
            """
        )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    one = Shop(tmp_path)
    one.do("up", "-d")
    yield one
    one.do("down")


def test_restarted_and_scaled_under_load(shop: Shop) -> None:
    before = shop.pids()
    with Load(shop.port) as load:
        load.more()
        shop.do("restart", "web")
        load.more()
        shop.do("scale", "web=3")
        load.heard_of(2)
        shop.do("scale", "web=1")
        load.more()
    assert load.failures == []
    after = shop.pids()
    assert set(after) == {"web.0"}
    assert before["web.0"] != after["web.0"]


def test_its_supervisor_is_killed_and_succeeded_under_load(shop: Shop) -> None:
    before = shop.pids()
    with Load(shop.port) as load:
        load.more()
        for _ in range(3):
            kill(shop.supervisor)
            load.more()
            shop.do("up", "-d")
            load.more()
        assert shop.pids() == before
        # The sockets came along: a new instance, and one that is started again, answer on them.
        shop.do("restart", "web")
        shop.do("scale", "web=3")
        load.heard_of(2)
    assert load.failures == []


def test_a_supervisor_is_exchanged_under_load(shop: Shop) -> None:
    before, supervisor = shop.pids(), shop.supervisor
    with Load(shop.port) as load:
        load.more()
        shop.do("down", "--leave")
        load.more()
        shop.do("up", "-d")
        load.more()
    assert load.failures == []
    assert shop.pids() == before
    assert shop.supervisor != supervisor
