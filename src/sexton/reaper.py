"""Bury the orphans of a program that must itself be PID 1, and never a child of its own.

    with sexton.reaper.Reaper():            # or: python -m sexton.reaper script.py [ARG]...
        serve()                             # or: python -m sexton.reaper -m module [ARG]...

A program that can be put behind an init should be: `sexton init -- program`. This is for one that cannot.

Whoever calls waitpid(-1) takes exit statuses that subprocess, asyncio or multiprocessing wait for. So here nothing is
buried that this program may have forked. That a child is an adopted orphan, none of ours, is held proven by its

token     it carries a token that we had ceased to hand down before the child came to be ours. The token is the soft
          limit RLIMIT_LOCKS, which Linux has ignored since 2.4.25 and which every process inherits from the one that
          forks it. After each fork this process takes a new token and then lists its children: a child of ours
          that carries an older one must have been on that list. One that comes later with an older token has it from a
          descendant: it was forked by somebody else, and adopted.
session   it is neither ours nor its own. A session is inherited, or made by the process itself: this one was
          made by another process, which forked it.
before    (python -m only): it was our child before the program began: left by the shell that executed us, or adopted.

Any other child is left alone, for ever if need be; `unproven` lists those that are dead. Nothing depends on knowing who
forks: a fork that goes unnoticed (a C library's) hands down the token of its day, and is on the next list. A fork is
under the GIL in os.fork, os.posix_spawn, subprocess, asyncio and multiprocessing, so none of theirs is half done when
the token changes. Each has a token of its own, but for os.fork (and subprocess with a preexec_fn): what began in the
midst of another fork may share its token, and then that token proves nothing. os.system() is made of os.posix_spawn
meanwhile. What remains is a C library that forks without the GIL at the very instant of a Python fork: only its child
could be mistaken.

One thread waits for the deaths of children, through their pidfds: no handler, no polling, no wait for "any child".
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import resource
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sexton import proc
from sexton._linux import set_child_subreaper
from sexton.errors import SextonError, UsageError
from sexton.spawn import _processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

RLIMIT_LOCKS = 10  # asm-generic/resource.h; Python's resource does not name it
SPAN = 1 << 40  # so many tokens at least must fit below the hard limit
_forking: list[None] = []  # one for each os.fork that has begun: its child will have the token of any moment
FORKS = {"os": ("posix_spawn", "posix_spawnp"), "subprocess": ("_fork_exec",), "_posixsubprocess": ("fork_exec",)}


class Buried(NamedTuple):
    """An orphan that was buried: its exit `code` is -N for signal N; `evidence` is "token", "session" or "before"."""

    pid: int
    name: str
    code: int
    evidence: str


class _Child(NamedTuple):
    """A child by its identity, and the first list that it was on: the number of the token, 0 for the change's own."""

    pid: int
    start: int
    listed: tuple[int, int]
    pidfd: int


class Reaper:
    """Buries the orphans that this process adopts, from `start` to `stop` or within a `with`.

    Elsewhere than as PID 1 the process becomes a child subreaper (prctl(2)), and stays one.

    running   the one that runs in this process, or None
    buried    the last orphans that were buried (Buried)
    unproven  dead children that may be this program's own: (pid, name)

    Raises SextonError where another one runs, and where the kernel has no pidfd (Linux 5.4).
    """

    running: ClassVar[Reaper | None] = None

    def __init__(self) -> None:
        self.buried: list[Buried] = []
        self._before: set[tuple[int, int]] = set()
        self._children: dict[int, _Child] = {}
        self._first = 0  # the first token; the others count down from it
        self._number = 0  # of the token in force
        self._listed = 0  # the number that the last whole list was made with
        self._lock = threading.RLock()  # a signal handler may fork in the midst of anything below
        self._busy = False  # and then it finds this, and leaves all as it is
        self._alone = False  # nobody else has forked with the token of the fork that is going on
        self._epoll = select.epoll()
        self._undo: list[Callable[[], None]] = []
        self._session = os.getsid(0)
        self._began = 0

    def start(self, *, knows_nothing: bool = False) -> None:
        """Begin. `knows_nothing`: the program has not begun yet, so that no child of today is its own."""
        if Reaper.running is not None:
            raise SextonError("a reaper runs already in this process; one is enough")
        me = _processes.look(os.getpid())
        if me is None:
            raise SextonError("/proc is not mounted, or another PID namespace's; mount it: mount -t proc proc /proc")
        if os.getpid() != 1:
            set_child_subreaper()
        hard = resource.getrlimit(RLIMIT_LOCKS)[1]
        top = (1 << 62) if hard in {resource.RLIM_INFINITY, -1} else hard
        if top > 4 * SPAN:
            self._first = top - random.randrange(SPAN, 2 * SPAN)  # noqa: S311 - no secret, only unlikely
        Reaper.running = self
        self._patch()
        self.forked()
        if knows_nothing:
            self._before = {(child.pid, child.start) for child in self._children.values()}
        newest = max((child.start for child in self._children.values()), default=me.start)
        self._began = max(newest, me.start)
        self._wake, wake = os.pipe2(os.O_CLOEXEC)
        self._undo.append(lambda: os.close(wake))
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._serve, name="sexton.reaper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what is dead by now is buried first."""
        if Reaper.running is not self:
            return
        with self._lock:
            Reaper.running = None
            for undo in reversed(self._undo):
                undo()
        self._thread.join()
        self._close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def unproven(self) -> tuple[tuple[int, str], ...]:
        """The dead children of which nothing proves that they are not this program's own."""
        with self._work() as free:
            if free:
                self._look()
            known = [_processes.look(child.pid) for child in self._children.values()]
        return tuple((found.pid, found.name) for found in known if found and found.state == "Z")

    # --- the lists ---

    @contextlib.contextmanager
    def _work(self) -> Iterator[bool]:
        """To work on the lists. False: not now, for this is a signal handler that has interrupted who does; or not any
        more.

        The child of a handler's fork is on the next list, like any other: the token does not change before that.
        """
        with self._lock:
            busy = self._busy
            self._busy = True
            try:
                yield not busy and Reaper.running is self
            finally:
                self._busy = busy

    def forked(self) -> None:
        """After a fork: a new token, then a list of our children: whoever has an older token and is ours is on it."""
        with self._work() as free:
            if free:
                self._change()

    def fork(self, forks: Callable[[], int]) -> int:
        """Call what forks once and gives the pid, with a token of its own: who else has that is a descendant."""
        with self._work() as free:
            if not free:
                self._alone = False
                return forks()
            self._alone = True
            if _forking:  # looked at after that: one that begins from now on says it itself
                self._alone = False
            self._change()
            pid = 0
            try:
                pid = forks()
            finally:
                number = self._number
                self._change()
                if pid and self._alone:
                    for child in list(self._children.values()):
                        if child.pid != pid and child.listed == (number + 1, 0):
                            self._children[child.pid] = child._replace(listed=(number + 1, 1))
            return pid

    def begin(self) -> None:
        """An os.fork begins: it takes no lock, which others who fork, or their locks, might wait for."""
        self._alone = False

    def _change(self) -> None:
        if self._listed < self._number:
            self._look()  # an exception of a signal handler's ended the list that this token began with
        if self._first:
            hard = resource.getrlimit(RLIMIT_LOCKS)[1]
            number = self._number + 1
            resource.setrlimit(RLIMIT_LOCKS, (self._first - number, hard))
            self._number = number
        self._look()

    def _look(self) -> None:
        """List our children; the first list after a change is the change's own."""
        listed = (self._number, int(self._listed == self._number))
        now = set(_list())
        for pid in [pid for pid in self._children if pid not in now]:
            self._forget(pid)
        for pid in now:
            found = _processes.look(pid)
            known = self._children.get(pid)
            if found is None or (known and known.start == found.start):
                continue
            if known:
                self._forget(pid)
            self._watch(pid, found.start, listed)
        self._listed = self._number

    def _watch(self, pid: int, start: int, listed: tuple[int, int]) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        again = _processes.look(pid)
        if again is None or again.start != start or again.ppid != os.getpid():
            os.close(pidfd)
            return
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        self._children[pid] = _Child(pid, start, listed, pidfd)

    def _forget(self, pid: int) -> None:
        with contextlib.suppress(KeyError):
            os.close(self._children.pop(pid).pidfd)  # epoll forgets it too

    # --- the thread ---

    def bury(self) -> None:
        """Bury now who is dead and proven not to be ours, without waiting for the thread to do it."""
        with self._work() as free:
            if free:
                self._look()
                for child in list(self._children.values()):
                    self._consider(child)

    def _serve(self) -> None:
        while True:
            ready = {fd for fd, _ in self._epoll.poll()}
            with self._lock:
                dead = [child for child in self._children.values() if child.pidfd in ready]
                for child in dead:
                    self._consider(child)
                self._look()  # the dead may have left orphans
            if self._wake in ready:
                return

    def _consider(self, child: _Child) -> None:
        """A child is dead: bury it if it is proven not to be ours."""
        found = _processes.look(child.pid)
        evidence = self._evidence(child) if found and found.start == child.start and found.state == "Z" else ""
        if not found or not evidence:
            return
        try:
            info = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            info = None
        if info is not None:
            code = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
            self.buried = [*self.buried[-999:], Buried(child.pid, found.name, code, evidence)]
            self._forget(child.pid)

    def _evidence(self, child: _Child) -> str:
        """Why that child is not this program's own; "" where nothing proves it."""
        if (child.pid, child.start) in self._before:
            return "before"
        token = _token(child.pid)
        number = self._first - token if self._first and token else 0
        if 0 < number < self._number and child.listed > (number + 1, 0):
            return "token"
        try:
            session = os.getsid(child.pid)
        except ProcessLookupError:
            return ""
        always_there = self._session != os.getpid() or os.getpid() == 1  # a leader may have had another one before
        if session in {0, child.pid, self._session} or not (always_there or child.start > self._began):
            return ""
        return "session"

    # --- forks ---

    def _patch(self) -> None:
        for module, names in FORKS.items():
            for name in names:
                self._wrap(importlib.import_module(module), name, _alone)
        self._wrap(os, "system", lambda _original: _system)

    def _wrap(self, module: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(module, name, None)
        if original is not None:
            setattr(module, name, wrapper(original))
            self._undo.append(lambda: setattr(module, name, original))

    def _close(self) -> None:
        for pid in list(self._children):
            self._forget(pid)
        self._epoll.close()
        os.close(self._wake)


def _list() -> list[int]:
    """Our children, each that was there all the time. The kernel's list may skip one while another is buried or moves
    from thread to thread; then the one that moved is missing in the second of two lists, so two equal lists are whole.
    """
    before: list[int] | None = None
    while (now := _processes.children(os.getpid())) != before:
        before = now
    return now


def _token(pid: int) -> int | None:
    """The token that a process carries, a zombie too."""
    limits = proc.limits(pid)
    return None if isinstance(limits, proc.Missing) else limits.get("Max file locks", (None, None))[0]


def _before() -> None:
    _forking.append(None)
    if Reaper.running:
        Reaper.running.begin()


def _forked() -> None:
    if _forking:
        _forking.pop()
    if Reaper.running:
        Reaper.running.forked()


def _in_child() -> None:
    _forking.clear()
    Reaper.running = None  # its orphans come to the parent too, or to whom it chooses; the thread is not here


def _alone(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that forks and gives the pid: with a token of its own, which no other fork of Python's has."""

    def forks(*args: Any, **kwargs: Any) -> Any:
        reaper = Reaper.running
        if reaper is None or any(map(callable, args)):  # a preexec_fn: such a fork has hooks, which may wait for locks
            return original(*args, **kwargs)
        return reaper.fork(lambda: original(*args, **kwargs))

    return forks


def _system(command: str | bytes) -> int:
    """os.system(), which else forks without the GIL; the program is as deaf to Ctrl-C meanwhile."""
    quiet = threading.current_thread() is threading.main_thread()
    before = [(sig, signal.signal(sig, signal.SIG_IGN)) for sig in (signal.SIGINT, signal.SIGQUIT) if quiet]
    try:
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ, setsigdef=[sig for sig, _ in before])
        return os.waitpid(pid, 0)[1]
    finally:
        for sig, handler in before:
            signal.signal(sig, handler)


os.register_at_fork(before=_before, after_in_parent=_forked, after_in_child=_in_child)


_USAGE = """\
usage: python -m sexton.reaper SCRIPT [ARG]...
       python -m sexton.reaper -m MODULE [ARG]...

Run a Python program beside a reaper, which buries the orphans and none of the program's own children.
"""


def _refused(words: list[str], *, module: bool) -> str:
    """What is wrong with the command line; "" where nothing is."""
    if not words:
        return f"expected {'a module after -m' if module else 'a script, or -m and a module'}"
    if module:
        return ""
    if words[0].startswith("-"):
        return f"no such option: {words[0]}"
    return "" if os.access(words[0], os.R_OK) else f"{words[0]}: there is no such script, or it cannot be read"


def main() -> None:
    """Run a script, or a module with -m, in this process, beside a reaper."""
    import runpy

    words = sys.argv[1:]
    if words and words[0] in {"-h", "--help"}:
        sys.stdout.write(_USAGE)
        return
    module = words[:1] == ["-m"]
    words = words[module:]
    if said := _refused(words, module=module):
        sys.stderr.write(f"{_USAGE}\nsexton.reaper: {said}\n")
        sys.exit(UsageError.exit_code)
    sys.argv = words
    reaper = Reaper()
    reaper.start(knows_nothing=True)
    if module:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    importlib.import_module("sexton.reaper").main()  # not this copy: the program may import it too
