"""An instance under chaos: holds a lock that nobody else may have, leaves a daemon behind, says how it will end, ends.

    python -I chaos_app.py DIRECTORY

Only one copy of an instance, its daemons included, can hold DIRECTORY/web.0.lock. What it does is in DIRECTORY/book.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import sys
import time

HERE = sys.argv[1]
NAME = f"{os.environ['SEXTON_APP']}.{os.environ['SEXTON_INSTANCE']}"
TREE = os.environ["SEXTON_TREE"]


def write(what: str, about: object = "") -> None:
    """One line in the book: appended at once, or not at all."""
    fd = os.open(f"{HERE}/book", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what} {NAME} {TREE} {about}\n".encode())
    os.close(fd)


def daemon() -> None:
    """What escapes a process group, and holds the lock as well."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)


def main() -> None:
    lock = os.open(f"{HERE}/{NAME}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        write("second")
        os._exit(99)
    write("start", os.getpid())
    os.set_inheritable(lock, True)
    listener = None
    if port := os.environ.get("PORT"):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(port)))
        listener.listen()
    daemon()
    end = time.monotonic() + random.expovariate(1 / 3)
    number = 0
    while time.monotonic() < end:
        for _ in range(20):
            number += 1
            print(f"{TREE} {number} {'x' * random.randrange(200)}")
        sys.stdout.flush()
        time.sleep(0.02)
    how = random.choice((0, 1, 2, 3, 77, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGABRT))
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # it is going to end so, and not otherwise
    write("end", how)
    if how < 0:
        os.kill(os.getpid(), -how)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-how})
    os._exit(how)


main()
