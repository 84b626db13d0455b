"""The ports of instances: no two of them, of this supervisor or of another one on the machine, ever have the same.

An auto port is reserved, from when it is chosen until its instance is no more, by a socket of ours that is bound to it
and never listens, with SO_REUSEADDR and SO_REUSEPORT, on [::] for both families. Found by experiment on Linux 6.18, in
a network namespace with 20 ephemeral ports of which 5 were reserved; tests/supervise/test_ports.py does it again:

- the kernel gives such a port to nobody: bind(0) by sockets with and without SO_REUSEADDR and SO_REUSEPORT, on
  127.0.0.1, 0.0.0.0, ::1, :: (both kinds) and ::ffff:127.0.0.1, and connect(2) of both families, get the other 15,
  then EADDRINUSE and EADDRNOTAVAIL. So does the reservation of another supervisor, which is a bind(0) too;
- a program that sets SO_REUSEADDR binds it, on any of those addresses, and listens, whoever it runs as. Node, Go, Java,
  nginx, Python's servers and whatever else must be able to restart while old connections are in TIME_WAIT do set it;
- so does one that sets SO_REUSEPORT alone, if it runs as our user; that is why ours has it too;
- while somebody listens the port is EADDRINUSE for everybody else, as ever; a connection goes to who listens, never to
  the reservation; and when who listened has gone, the reservation holds as before;
- a program that sets neither gets EADDRINUSE. For those there is missed(): the next start finds the port free, with
  the moment between that and its bind(2) that every supervisor has at every start;
- a stranger who asks for this very number, with SO_REUSEADDR and before the program has come to listen, gets it. So
  who listens is looked at when an instance is ready (listener.py), and again() chooses another port.

A port here is one of TCP.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from sexton.errors import SextonError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Wanted = int | Literal["auto"]


@dataclass(slots=True)
class _Port:
    number: int
    wanted: Wanted
    reserved: socket.socket | None = None
    alone: bool = False  # its program cannot share it with our reservation

    def let_go(self) -> None:
        if self.reserved:
            self.reserved.close()
            self.reserved = None


@dataclass(slots=True)
class Ports:
    """Who has which port: by instance ("web.0") and by the name that the port has there."""

    _ports: dict[tuple[str, str], _Port] = field(default_factory=dict)
    _avoided: frozenset[int] = frozenset()

    def avoid(self, numbers: Iterable[int]) -> None:
        """No auto port is to be one of these, which the configuration gives away by number."""
        self._avoided = frozenset(numbers)

    def take(self, instance: str, name: str, wanted: Wanted) -> int:
        """The port of that instance and name: the one it has already, the fixed one, or a new one that is reserved now.

        Raises UsageError where another instance has the fixed one, SextonError where no port is left.
        """
        has = self._ports.get((instance, name))
        if has and has.wanted == wanted:
            return has.number
        if has:
            self._drop(instance, name)
        if wanted == "auto":
            reserved = self._choose()
            self._ports[instance, name] = _Port(_number(reserved), wanted, reserved)
        else:
            self._check_free(wanted, instance, name)
            self._ports[instance, name] = _Port(wanted, wanted)
        return self._ports[instance, name].number

    def adopt(self, instance: str, name: str, port: int, wanted: Wanted = "auto") -> None:
        """It has that port, and listens on it, since before our time; secure() reserves it when it is down."""
        self._drop(instance, name)
        self._ports[instance, name] = _Port(port, wanted)

    def secure(self, instance: str) -> None:
        """Before each start, when nothing of the instance runs: its auto ports are reserved, if they are not.

        One that somebody has got in the meantime is replaced by another, and so is one whose program cannot share it
        and has connections of its last life on it. Raises SextonError where no port is left.
        """
        for (owner, _), port in self._ports.items():
            if owner != instance or port.wanted != "auto" or port.reserved:
                continue
            port.reserved = _reserve(port.number, shared=not port.alone) or self._choose()
            port.number = _number(port.reserved)
            if port.alone:
                port.let_go()

    def again(self, instance: str, name: str) -> int:
        """Another auto port: somebody else listens on the one that it has. Raises SextonError where none is left."""
        port = self._ports[instance, name]
        if port.wanted != "auto":
            return port.number
        reserved = self._choose()
        port.let_go()
        port.number, port.reserved = _number(reserved), reserved
        return port.number

    def let_go(self, instance: str, name: str) -> None:
        """Reserve it no more: its program sets neither SO_REUSEADDR nor SO_REUSEPORT."""
        port = self._ports[instance, name]
        port.alone = True
        port.let_go()

    def missed(self, instance: str, name: str) -> None:
        """The instance ended before it listened on that port, as nobody else did: maybe our reservation was in its way.

        So the next start is done the other way: without the reservation, or, if it was without, with it.
        """
        port = self._ports[instance, name]
        if port.alone:
            port.alone = False
        elif port.wanted == "auto":
            self.let_go(instance, name)

    def release(self, instance: str) -> None:
        """The instance is no more: its ports are anybody's."""
        for owner, name in list(self._ports):
            if owner == instance:
                self._drop(owner, name)

    def of(self, instance: str) -> dict[str, int]:
        """The ports of an instance, by name."""
        return {name: port.number for (owner, name), port in self._ports.items() if owner == instance}

    def close(self) -> None:
        """Release them all."""
        for port in self._ports.values():
            port.let_go()
        self._ports.clear()

    def _drop(self, instance: str, name: str) -> None:
        if port := self._ports.pop((instance, name), None):
            port.let_go()

    def _check_free(self, number: int, instance: str, name: str) -> None:
        for (owner, of), port in self._ports.items():
            if port.number == number and (owner, of) != (instance, name):
                raise UsageError(f"port {number} ({name}) of {instance} is the port {of!r} of {owner} already")

    def _choose(self) -> socket.socket:
        """A port that nobody has, reserved."""
        taken = self._avoided | {port.number for port in self._ports.values()}
        with contextlib.ExitStack() as passed_over:  # kept until one is found, or we would get it again
            while reserved := _reserve(0):
                if _number(reserved) not in taken:
                    return reserved
                passed_over.enter_context(reserved)
        raise SextonError(
            "no port is left: all of net.ipv4.ip_local_port_range are in use; make the range larger, or use fewer"
        )


def _reserve(number: int, *, shared: bool = True) -> socket.socket | None:
    """A socket that is bound to that port, 0: to any; None when somebody has it.

    shared: others may bind it as well, if they say SO_REUSEADDR or SO_REUSEPORT.
    """
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # noqa: S104 - it never listens
        try:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError:
            if family == socket.AF_INET6:
                continue  # a kernel without IPv6
            raise
        try:
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT) if shared else ():
                made.setsockopt(socket.SOL_SOCKET, option, 1)
            made.bind((address, number))
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRINUSE:
                return None
            if family == socket.AF_INET6 and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                continue  # IPv6 is switched off here
            raise
        return made
    raise AssertionError("the second family has returned or raised")


def _number(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def write_ports_file(path: Path, ports: Mapping[str, Mapping[str, int]]) -> None:
    """Write who has which port as JSON: {"web.0": {"http": 40001}}; who reads sees the old file or the new one, whole.

    Raises OSError.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(msgspec.json.format(msgspec.json.encode(ports), indent=2) + b"\n")
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
