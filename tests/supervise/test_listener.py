"""Who listens on a port: our tree, somebody else, nobody; by both families, in any network namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sexton.spawn import Tree
from sexton.supervise.listener import Listener, who_listens
from tests.supervise.test_ports import NETWORK
from tests.support.lines import DEADLINE, Lines

LISTEN = """
import os, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print(s.getsockname()[1], os.getpid(), flush=True)
sys.stdin.read()
"""


def words(host: str, port: int = 0) -> list[str]:
    return [sys.executable, "-S", "-c", LISTEN, host, str(port)]


def listening(tree: Tree) -> tuple[int, int]:
    """Its port and the pid of who listens."""
    assert tree.stdout
    lines = Lines(os.dup(tree.stdout.fileno()))
    port, pid = (lines.line() or "it ended first").split()
    lines.close()
    return int(port), int(pid)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_ours_is_whatever_process_of_the_tree_listens(host: str) -> None:
    # The shell's child, in a session of its own, and no child of anybody by now.
    nest = ["sh", "-c", 'setsid -f "$@" <&0; exec cat', "sh", *words(host)]
    with Tree(nest, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
        port, pid = listening(tree)
        pids = {process.pid for process in tree.processes()}
        found = who_listens(port, pids)
        assert (found.whose, found.pid) == ("ours", pid)
        assert found.name == Path(f"/proc/{pid}/comm").read_text().strip()
        assert who_listens(port, pids - {pid}) == Listener("other", pid, found.name)
    assert who_listens(port, pids) == Listener("nobody")


def test_a_bound_socket_and_a_connection_are_no_listeners() -> None:
    with socket.socket() as bound, socket.create_server(("127.0.0.1", 0)) as server:
        bound.bind(("127.0.0.1", 0))
        assert who_listens(bound.getsockname()[1], {os.getpid()}).whose == "nobody"
        with socket.create_connection(server.getsockname()) as client:
            assert who_listens(client.getsockname()[1], {os.getpid()}).whose == "nobody"
            accepted, _ = server.accept()
            server.close()
            with accepted:
                assert who_listens(accepted.getsockname()[1], {os.getpid()}).whose == "nobody"


def test_a_tree_in_another_network_is_looked_at_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with Tree([*NETWORK, *words("0.0.0.0", port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
            assert listening(tree)[0] == port
            pids = {process.pid for process in tree.processes()}
            assert who_listens(port, pids).whose == "ours"
        assert who_listens(port, ()) == Listener("other", os.getpid(), Path("/proc/self/comm").read_text().strip())


def test_one_of_two_that_share_a_port_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as four:
        port = four.getsockname()[1]
        with Tree(words("::1", port), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
            _, pid = listening(tree)
            assert who_listens(port, {pid}).whose == "ours"
            assert who_listens(port, {os.getpid()}).whose == "ours"


def test_thousands_of_connections_are_not_read() -> None:
    """A listener is found whatever comes after it; sockets that listen come first in the kernel's list."""
    with socket.create_server(("127.0.0.1", 0), backlog=300) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(300)]
        with socket.create_server(("127.0.0.1", 0)) as late:
            assert who_listens(late.getsockname()[1], {os.getpid()}).whose == "ours"
        for client in clients:
            client.close()


def test_a_process_that_has_ended_is_passed_over() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait(DEADLINE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert who_listens(server.getsockname()[1], {child.pid, os.getpid()}).whose == "ours"
