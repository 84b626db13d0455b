"""The pytest plugin: the fixture `tree`, and --sexton-leaks.

Loaded by every pytest where sexton is installed, so it imports nothing until it is used.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from sexton.spawn import Tree

MOMENT = 0.2  # seconds that a process which is about to end may take for it
# Python's own, which live as long as the program.
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


class LeakWarning(UserWarning):
    """A test left processes behind (--sexton-leaks=warn)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """--sexton-leaks."""
    parser.getgroup("sexton").addoption(
        "--sexton-leaks",
        choices=("fail", "warn", "off"),
        default="off",
        help="name the test that leaves a process or a zombie behind: fail it, warn, or do not look (default)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look for leaks only where it is asked for."""
    mode = config.getoption("--sexton-leaks")
    if mode != "off":
        config.pluginmanager.register(_Leaks(fail=mode == "fail"), "sexton-leaks")


@pytest.fixture
def tree() -> Iterator[Callable[..., Tree]]:
    """Starts process trees, as sexton.Tree does: tree(["server"], env=...); each is stopped when the test ends."""
    from sexton.spawn import Tree

    with contextlib.ExitStack() as stack:

        def start(*args: Any, **settings: Any) -> Tree:
            return stack.enter_context(Tree(*args, **settings))

        yield start


class _Leaks:
    """Compares the processes below this one before and after each test.

    This process becomes a subreaper, so that what loses its parent stays below it, and buries those as an init does.
    """

    def __init__(self, *, fail: bool) -> None:
        from sexton.reaper import Reaper

        self._fail = fail
        self._reaper = Reaper()
        self._reaper.start()
        self._known = self._now()

    def _now(self) -> set[tuple[int, int]]:
        from sexton.spawn import _processes

        return {(process.pid, process.start) for process in _processes.descendants(os.getpid())}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """What a fixture of a wider scope starts is for more than one test."""
        before = self._now() if fixturedef.scope != "function" else None
        try:
            return (yield)
        finally:
            if before is not None:
                self._known |= self._now() - before

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """After the fixtures have ended: whoever is new is left. Where one failed, that is said with its failure."""
        try:
            yield
        except BaseException as error:
            if text := self._left(item):
                if isinstance(error, pytest.fail.Exception):  # its notes are not shown
                    error.msg = f"{error.msg}\n{text}"
                else:
                    error.add_note(text)
            raise
        if text := self._left(item):
            if self._fail:
                pytest.fail(text, pytrace=False)
            warnings.warn(text, LeakWarning, stacklevel=1)

    def _left(self, item: pytest.Item) -> str:
        """Whom the test left behind, in words; they are known from now on."""
        left = self._now() - self._known
        if left:
            _let_end(pid for pid, _ in left)
            self._reaper.bury()
            left &= self._now()
        self._known |= left
        said = [line for pid, start in sorted(left) if (line := _describe(pid, start))]
        return f"{item.nodeid} left {len(said)} behind:\n" + "\n".join(said) if said else ""

    def pytest_unconfigure(self) -> None:
        """The end."""
        self._reaper.stop()


def _let_end(pids: Iterable[int]) -> None:
    """Give who is about to end the moment that it takes."""
    with contextlib.ExitStack() as stack:
        alive = select.poll()
        count = 0
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                stack.callback(os.close, pidfd)
                alive.register(pidfd, select.POLLIN)
                count += 1
        until = time.monotonic() + MOMENT
        while count and (left := until - time.monotonic()) > 0:
            for pidfd, _ in alive.poll(left * 1000):
                alive.unregister(pidfd)
                count -= 1


def _describe(pid: int, start: int) -> str | None:
    """A process that is there, in a line; None for one that has ended meanwhile, and for Python's helpers."""
    from sexton.spawn import _processes

    found = _processes.look(pid)
    if found is None or found.start != start:
        return None
    words = " ".join(_processes.cmdline(pid))
    if any(helper in words for helper in HELPERS):
        return None
    if found.state == "Z":
        return f"  {pid} ({found.name}): a zombie, never waited for"
    return f"  {pid} ({words or found.name})"
