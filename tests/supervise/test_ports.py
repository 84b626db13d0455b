"""Reserved ports: that nobody gets them, that real programs do, and what becomes of those that cannot share."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sexton.errors import UsageError
from sexton.supervise.listener import who_listens
from sexton.supervise.ports import Ports, write_ports_file
from tests.supervise import servers
from tests.supervise.servers import Server
from tests.support.lines import DEADLINE

NETWORK = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
SHARING = ["node", "python", "asyncio", "c reuseaddr", "c reuseport", "c reuseaddr reuseport"]
HOSTS = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "::1", "::": "127.0.0.1"}


@pytest.fixture(scope="session")
def listens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of listens.c."""
    return servers.build(tmp_path_factory.mktemp("listens"))


@pytest.fixture
def ports() -> Iterator[Ports]:
    """What a supervisor has."""
    made = Ports()
    yield made
    made.close()


def test_nobody_gets_a_reserved_port() -> None:
    """See the docstring of ports.py."""
    script = Path(__file__).with_name("narrow.py")
    ran = subprocess.run([*NETWORK, sys.executable, script], stdout=subprocess.PIPE, timeout=DEADLINE, check=True)
    reserved, before, during, after, others, why, again = json.loads(ran.stdout)
    whole = set(range(40000, 40020))
    assert len(set(reserved)) == 5
    for found in (before, during, after):
        assert len(found) == 26
        for way, got in found.items():
            assert set(got) == whole - set(reserved), way
    assert sorted(reserved + others) == sorted(whole), "each exactly once, over two supervisors"
    assert "no port is left" in why
    assert again in reserved, "once the first supervisor has closed"


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", SHARING)
def test_a_program_listens_on_its_reserved_port_life_after_life(
    ports: Ports, listens: Path, kind: str, host: str
) -> None:
    port = ports.take("web.0", "http", "auto")
    for _ in range(2):  # the second time after connections that the first one closed: they are in TIME_WAIT
        ports.secure("web.0")
        assert ports.take("web.0", "http", "auto") == port
        with Server(servers.command(kind, listens, host, port)) as server:
            assert server.listens
            # asyncio alone takes :: for IPv6 and no more.
            client = "::1" if (kind, host) == ("asyncio", "::") else HOSTS[host]
            assert servers.ask(client, port).endswith(b"hello\n")
            found = who_listens(port, {server.pid})
            assert (found.whose, found.pid) == ("ours", server.pid)
        assert who_listens(port, ()).whose == "nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user")
def test_a_program_of_another_user_listens_too(ports: Ports, listens: Path) -> None:
    listens.parent.chmod(0o755)
    port = ports.take("web.0", "http", "auto")
    shared = Path("/tmp") / f"listens-{os.getpid()}"  # where every user may come
    shared.write_bytes(listens.read_bytes())
    shared.chmod(0o755)
    try:
        for option, works in (("reuseaddr", True), ("reuseport", False)):
            words = [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                str(shared),
                "::",
                str(port),
                option,
            ]
            with Server(words) as server:
                assert server.listens == works
    finally:
        shared.unlink()


@pytest.mark.parametrize("host", HOSTS)
def test_a_program_that_shares_nothing_is_let_have_its_port(ports: Ports, listens: Path, host: str) -> None:
    port = ports.take("web.0", "http", "auto")
    with Server(servers.command("c", listens, host, port)) as server:
        assert (server.listens, server.child.returncode) == (False, errno.EADDRINUSE)
    ports.missed("web.0", "http")
    ports.secure("web.0")
    assert ports.take("web.0", "http", "auto") == port
    with Server(servers.command("c", listens, host, port)) as server:
        assert server.listens
        assert ports.take("web.0", "http", "auto") == port, "asked by another app, while it listens"
        with socket.create_connection((HOSTS[host], port)) as client:
            assert client.recv(100) == b"hello\n"
            assert client.recv(100) == b""
    # It closed a connection, so its port rests for a minute: it could not listen there itself.
    ports.secure("web.0")
    other = ports.take("web.0", "http", "auto")
    assert other != port
    with Server(servers.command("c", listens, host, other)) as server:
        assert server.listens


def test_a_miss_for_another_reason_is_undone_by_the_next(ports: Ports, listens: Path) -> None:
    port = ports.take("web.0", "http", "auto")
    ports.missed("web.0", "http")
    ports.secure("web.0")
    with Server(["false"]):
        pass
    ports.missed("web.0", "http")
    ports.secure("web.0")
    assert ports.of("web.0") == {"http": port}
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    with Server(servers.command("c reuseaddr", listens, "::", port)) as server:
        assert server.listens


def test_the_port_of_a_program_that_runs_already_is_reserved_when_it_is_down(ports: Ports, listens: Path) -> None:
    with Another() as earlier:
        port = earlier.take("web.0", "http", "auto")
        with Server(servers.command("c reuseaddr", listens, "::", port)) as server:
            earlier.close()  # that supervisor was killed
            ports.adopt("web.0", "http", port)
            assert ports.take("web.0", "http", "auto") == port
            assert server.listens
        ports.secure("web.0")
        assert ports.of("web.0") == {"http": port}
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))


def test_a_port_that_a_stranger_got_in_between_is_replaced(ports: Ports, listens: Path) -> None:
    with Another() as earlier:
        port = earlier.take("web.0", "http", "auto")
    ports.adopt("web.0", "http", port)
    with Server(servers.command("c", listens, "127.0.0.1", port)) as stranger:
        assert stranger.listens
        ports.secure("web.0")
        assert ports.of("web.0")["http"] != port


def test_a_lost_race_is_run_again_on_another_port(ports: Ports, listens: Path) -> None:
    port = ports.take("web.0", "http", "auto")
    with (
        Server(servers.command("c reuseaddr", listens, "0.0.0.0", port)) as stranger,  # it asked for this very number
        Server(servers.command("c reuseaddr", listens, "::", port)) as late,
    ):
        assert (stranger.listens, late.listens) == (True, False)
        found = who_listens(port, {late.pid})
        assert (found.whose, found.pid, found.name) == ("other", stranger.pid, "listens")
        other = ports.again("web.0", "http")
        assert other != port
        assert ports.of("web.0") == {"http": other} == {"http": ports.take("web.0", "http", "auto")}
        with Server(servers.command("c reuseaddr", listens, "::", other)) as server:
            assert who_listens(other, {server.pid}).whose == "ours"


def test_fixed_ports_are_given_once(ports: Ports) -> None:
    assert ports.take("web.0", "http", 8080) == 8080
    assert ports.take("web.0", "http", 8080) == 8080
    assert ports.again("web.0", "http") == 8080
    with pytest.raises(UsageError, match=r"port 8080 \(http\) of api\.0 is the port 'http' of web\.0"):
        ports.take("api.0", "http", 8080)
    ports.release("web.0")
    assert ports.take("api.0", "http", 8080) == 8080
    assert ports.of("web.0") == {}


def test_a_port_is_another_when_the_configuration_says_so(ports: Ports) -> None:
    ports.take("web.0", "http", 8080)
    auto = ports.take("web.0", "http", "auto")
    assert auto != 8080
    assert ports.take("api.0", "http", 8080) == 8080
    assert ports.take("web.0", "http", auto) == auto
    with socket.socket() as app:
        app.bind(("127.0.0.1", auto))  # no longer reserved


def test_a_released_port_is_anybodys(ports: Ports) -> None:
    port = ports.take("web.0", "http", "auto")
    ports.take("web.1", "http", "auto")
    ports.release("web.0")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
    assert list(ports.of("web.1")) == ["http"]


def test_what_is_configured_by_number_is_never_an_auto_port() -> None:
    script = """
import sys
from pathlib import Path
from sexton.errors import SextonError
from sexton.supervise.ports import Ports
Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40019")
ports = Ports()
ports.avoid(range(40000, 40019))
print(ports.take("web.0", "http", "auto"))
try:
    ports.take("web.1", "http", "auto")
except SextonError:
    print("none")
"""
    ran = subprocess.run(
        [*NETWORK, sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=DEADLINE, check=True, text=True
    )
    assert ran.stdout.split() == ["40019", "none"]


def test_the_ports_file_is_whole_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    write_ports_file(path, {"web.0": {"http": 1}})
    with path.open("rb") as old:
        write_ports_file(path, {"web.0": {"http": 40001, "admin": 40002}, "api.0": {"http": 40003}})
        assert json.load(old) == {"web.0": {"http": 1}}
    assert json.loads(path.read_text()) == {"web.0": {"http": 40001, "admin": 40002}, "api.0": {"http": 40003}}
    assert os.listdir(tmp_path) == ["ports.json"]


def test_a_ports_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ports.json").mkdir()
    with pytest.raises(OSError, match=r"ports\.json"):
        write_ports_file(tmp_path / "ports.json", {})
    assert os.listdir(tmp_path) == ["ports.json"]


class Another(Ports):
    """Those of another supervisor, until its end."""

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
