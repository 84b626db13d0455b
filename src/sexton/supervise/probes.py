"""Whether an instance is ready, and whether it still is well: it is asked, or it says so itself.

${port}, ${port.NAME} and ${instance} in a probe are the instance's own.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Protocol

import msgspec

from sexton.errors import SextonError, UsageError
from sexton.supervise import _asking
from sexton.supervise._asking import Bad
from sexton.supervise.listener import who_listens
from sexton.supervise.variables import expand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sexton.supervise import config, models
    from sexton.supervise.notify import Notify

FIRST_PAUSE = 0.01  # seconds between the first two tries of readiness; each further one is 1.5 times longer
LONGEST_PAUSE = 1.0


class ProbeFailed(SextonError):
    """An instance did not get ready; the message says why."""


class Context(Protocol):
    """What a probe has to know of its instance; `name` is "web.0"."""

    @property
    def name(self) -> str:
        """As above."""

    @property
    def app(self) -> config.App:
        """Its app."""

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports that it has, by name."""

    @property
    def cwd(self) -> str | None:
        """The directory that it was started in; None: ours."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The one that it was started with."""

    @property
    def notify(self) -> Notify | None:
        """What it says by sd_notify(3), if it has a socket for that."""

    def pids(self) -> set[int]:
        """Every process of its tree."""

    def lines(self) -> AsyncIterator[models.Line]:
        """What it writes, from its start on, as it comes; ends with it."""


def _expanded(probe: config.Probe, context: Context) -> config.Probe:
    """With the instance's own ports and number in its URL, its address and its words. Raises ProbeFailed."""

    def put(text: str) -> str:
        return expand(text, own=context.ports, number=int(context.name.rpartition(".")[2]), port_of=_not_ours)

    try:
        return msgspec.structs.replace(
            probe,
            http=probe.http and put(probe.http),
            tcp=put(probe.tcp) if isinstance(probe.tcp, str) else probe.tcp,
            exec=probe.exec and tuple(put(word) for word in probe.exec),
        )
    except (UsageError, KeyError) as error:
        raise ProbeFailed(f"the probe of {context.name}: {error}") from None


def _not_ours(app: str, port: str | None) -> int:
    name = f"app.{app}.port" + (f".{port}" if port else "")
    raise UsageError(f"${{{name}}}: a probe asks its own instance, and knows no ports but that one's")


async def until_ready(probe: config.Probe, context: Context) -> None:
    """Wait until the instance is ready.

    It is asked again and again, with pauses that grow from 10 ms to 1 s (or to `interval`, if that is less). The
    deadline begins now; an instance with a Notify can put it off by EXTEND_TIMEOUT_USEC=.

    Raises ProbeFailed when the deadline is over, when its port is another's, and when it never can be ready.
    """
    probe = _expanded(probe, context)
    said = ["there was no answer"]

    def put_off() -> None:
        assert context.notify
        if context.notify.extended > (limit.when() or 0):
            limit.reschedule(context.notify.extended)

    listeners = context.notify.listeners if context.notify else set()
    try:
        async with asyncio.timeout(probe.deadline) as limit:
            listeners.add(put_off)
            if probe.notify:
                await _heard(context, said)
            elif probe.log is not None:
                await _written(probe.log, context, said)
            else:
                await _answered(probe, context, said)
    except TimeoutError:
        raise ProbeFailed(f"{context.name} was not ready within {probe.deadline:g} s: {said[0]}") from None
    finally:
        listeners.discard(put_off)


async def until_unwell(probe: config.Probe, context: Context) -> str:
    """Wait until the instance is not well: so many probes in a row have failed, or its watchdog was not fed. Gives why.

    Raises ProbeFailed where it cannot be asked at all.
    """
    probe = _expanded(probe, context)
    await asyncio.sleep(probe.delay)
    if probe.notify:
        return await _unfed(probe, context)
    failures = 0
    while True:
        try:
            await _ask(probe, context, probe.timeout)
            failures = 0
        except Bad as error:
            failures += 1
            if failures >= probe.failures:
                return f"{error}{f' ({failures} times in a row)' if failures > 1 else ''}"
        await asyncio.sleep(probe.interval)


async def _ask(probe: config.Probe, context: Context, seconds: float) -> None:
    """One try. Raises Bad, and ProbeFailed where no further try will help."""
    if probe.exec is not None:
        await _asking.command(probe.exec, context, seconds)
        return
    if probe.http is not None:
        port = await _asking.http(probe.http, seconds)
    else:
        assert probe.tcp is not None, "the loader lets no probe pass that asks for nothing"
        port = await _asking.tcp(probe.tcp, seconds)
    if port in context.ports.values():
        check_listener(port, context)


def check_listener(port: int, context: Context) -> None:
    """That a port is the instance's own by now. Raises Bad when nobody listens, ProbeFailed when somebody else does."""
    pids = context.pids()
    found = who_listens(port, pids)
    if found.whose == "other" and (found.pid or all(map(_is_open, pids))):
        who = f"{found.pid} ({found.name})" if found.pid else "a process that cannot be seen from here"
        raise ProbeFailed(f"port {port} is listened on by {who}, not by {context.name}")
    if found.whose == "nobody":
        raise Bad(f"port {port} answered, but nobody listens on it now")


def _is_open(pid: int) -> bool:
    """Whether its descriptors can be looked at: not those of a process with more rights than ours."""
    try:
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return False
    except OSError:  # it has ended
        return True
    return True


async def _answered(probe: config.Probe, context: Context, said: list[str]) -> None:
    """A good answer; the last bad one is in `said`."""
    pause = FIRST_PAUSE
    while True:
        try:
            await _ask(probe, context, min(probe.timeout, probe.deadline))
        except Bad as error:
            said[0] = str(error)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE, max(probe.interval, FIRST_PAUSE))


async def _heard(context: Context, said: list[str]) -> None:
    """READY=1."""
    if context.notify is None:
        raise ProbeFailed(f"{context.name} has no socket to say READY=1 on")
    said[0] = "it did not say READY=1"
    await context.notify.ready.wait()


async def _written(pattern: str, context: Context, said: list[str]) -> None:
    """A line that matches."""
    said[0] = f"it wrote no line that matches {pattern!r}"
    wanted = re.compile(pattern)
    async for line in context.lines():
        if wanted.search(line.text):
            return
    raise ProbeFailed(f"the output of {context.name} ended before a line matched {pattern!r}")


async def _unfed(probe: config.Probe, context: Context) -> str:
    """Until a WATCHDOG=1 is late, or the instance says itself that it is not well."""
    notify = context.notify
    assert notify is not None, "the loader asks for a socket where there is a watchdog"
    loop = asyncio.get_running_loop()
    beats, last = notify.beats, loop.time()
    while not notify.triggered:
        seconds = notify.watchdog or probe.watchdog
        late = None if seconds is None else max(last + seconds, notify.extended)
        try:
            async with asyncio.timeout_at(late):
                await notify.change()
        except TimeoutError:
            return f"no WATCHDOG=1 came for {seconds:g} s"
        if notify.beats != beats:
            beats, last = notify.beats, loop.time()
    return "it said WATCHDOG=trigger: it is not well by its own judgement"
