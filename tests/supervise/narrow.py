"""Run in a network namespace of its own: 20 ephemeral ports, of which two supervisors reserve some.

Prints what strangers got of those, by every way of getting a port that nobody chose.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import socket
import struct
from pathlib import Path

from sexton.errors import SextonError
from sexton.supervise.ports import Ports

RANGE = range(40000, 40020)
ADDRESSES = [("127.0.0.1", None), ("0.0.0.0", None), ("::1", None), ("::", 0), ("::", 1), ("::ffff:127.0.0.1", None)]
OPTIONS = [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]


def loopback_up() -> None:
    with socket.socket() as any_:
        fcntl.ioctl(any_, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def ask_for_any(address: str, v6only: int | None, options: tuple[int, ...]) -> socket.socket | None:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    if v6only is not None:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    try:
        made.bind((address, 0))
    except OSError as error:
        made.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return made


def bound(stack: contextlib.ExitStack, address: str, v6only: int | None, options: tuple[int, ...]) -> set[int]:
    """Every port that bind(0) gives, until there is none."""
    found: set[int] = set()
    while made := ask_for_any(address, v6only, options):
        stack.enter_context(made)
        found.add(made.getsockname()[1])
    return found


def connected(stack: contextlib.ExitStack, address: str) -> set[int]:
    """Every port that connect() gives, until there is none."""
    found: set[int] = set()
    server = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
    server.bind((address, 2000))
    server.listen(100)
    while True:
        client = stack.enter_context(socket.socket(server.family))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT after it
        try:
            client.connect((address, 2000))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return found
        found.add(client.getsockname()[1])


def strangers() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for (address, v6only), options in itertools.product(ADDRESSES, OPTIONS):
        with contextlib.ExitStack() as stack:
            found[f"bind {address} {v6only} {options}"] = sorted(bound(stack, address, v6only, options))
    for address in ("127.0.0.1", "::1"):
        with contextlib.ExitStack() as stack:
            found[f"connect {address}"] = sorted(connected(stack, address))
    return found


def main() -> None:
    loopback_up()
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{RANGE.start} {RANGE.stop - 1}")
    first, second = Ports(), Ports()
    reserved = [first.take(f"web.{n}", "http", "auto") for n in range(5)]
    before = strangers()
    # One of them is listened on, and is not any more.
    with socket.socket() as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        app.bind(("127.0.0.1", reserved[0]))
        app.listen()
        during = strangers()
    after = strangers()
    others: list[int] = []
    why = ""
    try:
        while True:
            others.append(second.take(f"api.{len(others)}", "http", "auto"))
    except SextonError as error:
        why = str(error)
    first.close()
    again = second.take("more.0", "http", "auto")
    print(json.dumps([reserved, before, during, after, others, why, again]))


main()
