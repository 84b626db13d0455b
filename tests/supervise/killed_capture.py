"""A program: captures two streams of lines, and is killed again and again while it does.

    python -m tests.supervise.killed_capture DIRECTORY FORMAT SEED ROUNDS LINES

It stands for a guard: it holds the FIFOs while no supervisor is there. Each supervisor is a fork of it that ends
itself by SIGKILL, before or after one of its system calls, or is ended from outside; the last one is not. Prints how
many died.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sexton import _linux
from sexton.supervise import logs
from sexton.supervise.config import Log

NAME = "web.0"
CALLS = ("read", "write", "splice", "truncate", "open", "replace", "ftruncate")


def line(stream: str, number: int) -> bytes:
    """What is written: no two are alike, and each says by its length that it is whole."""
    return f"{stream}{number:07}:{'x' * (number * 7 % 90)};\n".encode()


def log(form: Any) -> Log:
    return Log(format=form, max_size=300_000, keep=1000)


def writer(fd: int, stream: str, count: int, chance: random.Random) -> None:
    """Write all lines in pieces that do not end where lines do."""
    data = b"".join(line(stream, number) for number in range(count))
    while data:
        size = chance.choice((1, 10, 100, 3000, 9000, 200_000))
        done = os.write(fd, data[:size])
        data = data[done:]


def doomed(chance: random.Random) -> None:
    """Let this process end at one of its next system calls."""
    left = chance.randrange(1, 120)

    def mortal(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **more)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return called

    for name in CALLS:
        setattr(os, name, mortal(getattr(os, name)))
    vars(logs)["tee"] = mortal(_linux.tee)


async def supervise(directory: Path, form: str, until: int | None) -> None:
    """Capture until that descriptor is at its end; without one, for ever."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    capture = logs.Capture(directory, loop)
    capture.resume(NAME, log(form))
    if until is not None:
        loop.add_reader(until, over.set)
    await over.wait()
    capture.flush(NAME)
    capture.leave()


def fork(child: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    return pid


def main() -> None:
    directory, form, seed, rounds, count = Path(sys.argv[1]), *sys.argv[2:]
    chance = random.Random(int(seed))

    async def first() -> tuple[int, int]:
        capture = logs.Capture(directory, asyncio.get_running_loop())
        fds = capture.open(NAME, log(form), None)
        capture.leave()
        return fds

    fds = asyncio.run(first())
    at_end, alive = os.pipe()  # the writers hold `alive`
    seeds = [chance.random() for _ in fds]
    for fd, stream, own in zip(fds, "oe", seeds, strict=True):
        fork(lambda fd=fd, stream=stream, own=own: writer(fd, stream, int(count), random.Random(own)))  # type: ignore[misc]
    os.close(alive)
    died = 0
    for _ in range(int(rounds)):
        inside = chance.random() < 0.7
        told, tell = os.pipe()

        def life(inside: bool = inside, tell: int = tell) -> None:
            own = random.Random(chance.random())
            if inside:
                doomed(own)
            os.write(tell, b"!")
            asyncio.run(supervise(directory, form, at_end))

        pid = fork(life)
        os.close(tell)
        if not inside:  # somewhere within its work, wherever that is
            os.read(told, 1)
            for _ in range(chance.randrange(2000)):
                pass
            os.kill(pid, signal.SIGKILL)
        os.close(told)
        _, status = os.waitpid(pid, 0)
        died += os.WIFSIGNALED(status)
        chance.random()
    pid = fork(lambda: asyncio.run(supervise(directory, form, at_end)))
    os.waitpid(pid, 0)
    print(died)


if __name__ == "__main__":
    main()
