"""Starts a guard with its command: subprocess starts the guard, the guard starts the command."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import math
import os
import pwd
import resource
import subprocess
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import IO, TYPE_CHECKING, Any, Literal, TypedDict, cast

from sexton import _binary
from sexton.errors import ContainmentError, GuardError, UsageError
from sexton.spawn import _ends, _processes
from sexton.spawn._record import Record, name_of

if TYPE_CHECKING:
    import socket

Word = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Command = Word | Sequence[Word]
File = int | IO[Any] | None
Contain = Literal["subreaper", "pidns", "cgroup"]
OnOwnerLost = Literal["stop", "keep", "lease", "hold"]
LADDER: tuple[Contain, ...] = ("subreaper", "pidns", "cgroup")  # each rung holds more than the one before


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a guard looks after its tree; seconds everywhere, None: no limit.

    stop_signal    how the tree is asked to end
    grace          how long it has until SIGKILL
    timeout        the guard stops the tree after so long, whatever the owner does
    lease          the guard stops the tree when it was not renewed for so long
    on_owner_lost  "stop" the tree, "keep" it, let it go on for its "lease", or "hold" it: as "lease", which rests while
                   there is an owner; and when nothing of the tree is left its guard stays, and tells who adopts it how
                   it ended, until dismiss(), stop() or kill(), or the end of the lease. Needs `listen` and `lease`
    on_exit        when the command has ended, "stop" what is left of the tree, "wait" for it, or "leave" it
    contain        "subreaper", "pidns" or "cgroup": what holds the tree
    require        the least that is accepted, if `contain` cannot be had; None: nothing less
    listen         where a later owner can connect to the guard
    rlimits        resource limits: {"nofile": 256} or {"nofile": (256, 1024)}, soft and hard; -1: unlimited
    """

    stop_signal: int | str = "TERM"
    grace: float = 5.0
    timeout: float | None = None
    lease: float | None = None
    on_owner_lost: OnOwnerLost = "stop"
    on_exit: Literal["stop", "wait", "leave"] = "stop"
    contain: Contain = "subreaper"
    require: Contain | None = None
    listen: str | None = None
    rlimits: Mapping[str, int | tuple[int, int]] = field(default_factory=dict)

    def words(self, contain: str) -> list[str | bytes]:
        """The guard's command line. Raises UsageError."""
        words: list[str | bytes] = []
        for name in ("contain", "on_owner_lost", "on_exit", "listen"):
            value = contain if name == "contain" else getattr(self, name)
            if value != _DEFAULT[name]:
                _expect(name, value)
                words += [_option(name), value]
        if self.on_owner_lost in {"lease", "hold"} and self.lease is None:
            raise UsageError(f"on_owner_lost={self.on_owner_lost!r} needs a lease, in seconds")
        if self.on_owner_lost == "hold" and self.listen is None:
            raise UsageError("on_owner_lost='hold' needs listen, the path of a socket")
        for name in ("grace", "timeout", "lease"):
            value = getattr(self, name)
            if value != _DEFAULT[name]:
                words += [_option(name), seconds(name, value)]
        if self.stop_signal != "TERM":
            try:
                words += ["--stop-signal", name_of(self.stop_signal)]
            except ValueError as error:
                raise UsageError(f"stop_signal: {error}") from None
        return words

    def limits(self) -> list[tuple[int, tuple[int, int]]]:
        """The resource limits as setrlimit(2) has them. Raises UsageError."""
        found = []
        for name, limit in self.rlimits.items():
            number = getattr(resource, f"RLIMIT_{name.upper()}", None)
            if number is None:
                raise UsageError(f"rlimits: {name!r} is no limit; expected nofile, core, as ... as in setrlimit(2)")
            found.append((number, limit if isinstance(limit, tuple) else (limit, limit)))
        return found

    def rungs(self) -> tuple[Contain, ...]:
        """The containments to try, the one that is asked for first. Raises UsageError."""
        _expect("contain", self.contain)
        _expect("require", self.require or self.contain)
        top = LADDER.index(self.contain)
        least = LADDER.index(self.require or self.contain)
        if least > top:
            raise UsageError(f"require={self.require!r} is more than contain={self.contain!r}")
        return LADDER[least : top + 1][::-1]


_KNOWN: dict[str, tuple[str, ...]] = {
    "contain": LADDER,
    "require": LADDER,
    "on_owner_lost": ("stop", "keep", "lease", "hold"),
    "on_exit": ("stop", "wait", "leave"),
}
_DEFAULT = {field.name: field.default for field in fields(Options)}  # the guard's own too: those are not said
_OURS = frozenset(_DEFAULT)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _expect(name: str, value: str) -> None:
    """Raises UsageError where the value is none of those that there are."""
    if name in _KNOWN and value not in _KNOWN[name]:
        raise UsageError(f"{name}={value!r}: expected one of {', '.join(_KNOWN[name])}")


def seconds(name: str, value: float) -> str:
    """Seconds as the guard reads them. Raises UsageError."""
    if not value >= 0 or value > 1e9:
        raise UsageError(f"{name}={value!r}: expected seconds, 0 or more")
    return f"{value:.6f}"


class Settings(TypedDict, total=False):
    """Every keyword of run(). The first part is that of subprocess.Popen, the last that of Options.

    login   run the command as "USER" or "USER:GROUP", with HOME and the groups of that user; `user`, `group` and
            extra_groups change as much as with subprocess
    """

    bufsize: int
    executable: Word | None
    stdin: File
    stdout: File
    stderr: File
    preexec_fn: Callable[[], Any] | None
    close_fds: bool
    shell: bool
    cwd: Word | None
    env: Mapping[str, str] | Mapping[bytes, bytes] | None
    universal_newlines: bool | None
    startupinfo: None
    creationflags: int
    restore_signals: bool
    start_new_session: bool
    pass_fds: Collection[int]
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    encoding: str | None
    errors: str | None
    text: bool | None
    umask: int
    pipesize: int
    process_group: int | None

    same_group: bool
    login: str | None

    stop_signal: int | str
    grace: float
    lease: float | None
    on_owner_lost: OnOwnerLost
    on_exit: Literal["stop", "wait", "leave"]
    contain: Contain
    require: Contain | None
    listen: str | None
    rlimits: Mapping[str, int | tuple[int, int]]


class TreeSettings(Settings, total=False):
    """Those of a Tree; for run() the timeout is its own."""

    timeout: float | None


POSITIONAL = tuple(
    "bufsize executable stdin stdout stderr preexec_fn close_fds shell cwd env universal_newlines startupinfo "
    "creationflags restore_signals start_new_session pass_fds".split()
)


def by_name(positional: tuple[Any, ...], settings: Settings) -> Settings:
    """The keywords, with what was given in the places that subprocess.Popen has after `args`. Raises TypeError."""
    if len(positional) > len(POSITIONAL):
        raise TypeError(f"expected at most {len(POSITIONAL)} arguments by place after the command: {len(positional)}")
    named = dict(zip(POSITIONAL, positional, strict=False))
    for name in named.keys() & settings.keys():
        raise TypeError(f"got multiple values for argument {name!r}")
    return cast("Settings", named | settings)


@dataclass(frozen=True, slots=True)
class Started:
    """A guard that was started, or found (popen None); whether its command was, it will say.

    program   what an OSError names where the command cannot be executed, as subprocess has it
    """

    popen: subprocess.Popen[Any] | None
    guard: int
    end: socket.socket
    mark: str
    contain: Contain
    program: Word = ""


def settled(args: Command | Iterable[Word]) -> Command:
    """The same; as a list, if one could go through it but once."""
    return args if isinstance(args, str | bytes | os.PathLike | Sequence) else list(args)


def argv(args: Command, *, shell: bool, executable: Word | None) -> list[str | bytes]:
    """The command's words, as subprocess makes them of its arguments."""
    if isinstance(args, str | bytes):
        words: list[str | bytes] = [args]
    elif isinstance(args, os.PathLike):
        if shell:
            raise TypeError("path-like args is not allowed when shell is true")
        words = [os.fspath(args)]
    else:
        words = [os.fspath(word) for word in args]
    if shell:
        words = ["/bin/sh", "-c", *words]
        if executable:
            words[0] = os.fspath(executable)
    if not words:
        raise UsageError("no command: expected at least the name of a program")
    return words


def split(settings: Settings | TreeSettings) -> tuple[Options, dict[str, Any]]:
    """What is the guard's, and what is subprocess'."""
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for key, value in settings.items():
        (ours if key in _OURS else theirs)[key] = value
    if (group := theirs.get("process_group")) is not None:
        if group > 0:
            theirs["same_group"] = True  # it is the command that is to be in that group, and the guard brings it there
    elif not theirs.get("start_new_session"):
        # Out of our group it has not the terminal's foreground, and gives nobody's away.
        if (preexec_fn := theirs.get("preexec_fn")) is not None:
            theirs["preexec_fn"] = functools.partial(_then_own_group, preexec_fn)
        else:
            theirs["process_group"] = 0
    return Options(**ours), theirs


def start(
    args: Command,
    options: Options,
    contain: Contain,
    popen: Mapping[str, Any],
    *,
    mark: str | None = None,
    late: bool = False,
) -> Started:
    """Start a guard with the command behind it. Raises BinaryNotFound, UsageError and what subprocess.Popen raises.

    `popen`: the keywords of subprocess.Popen. `mark`: the tree's name in the environment, if it has one already.
    `late`: nobody waits for the start, so that the guard may tell of it with the end.
    """
    more = dict(popen)
    mark = mark or new_mark()
    limits, preexec_fn = options.limits(), more.pop("preexec_fn", None)
    if limits:
        more["preexec_fn"] = functools.partial(_limit, limits, preexec_fn)
    elif preexec_fn is not None:
        more["preexec_fn"] = preexec_fn
    pass_fds = tuple(more.pop("pass_fds", ()))
    if not more.pop("close_fds", True):
        if pass_fds:
            warnings.warn("pass_fds overriding close_fds.", RuntimeWarning, stacklevel=4)
        else:
            pass_fds = inheritable()
    program = _program(more, args)
    line = options.words(contain) + _words_of(more, args)
    if late:
        line.insert(0, "--late")
    _bury_given_up()
    more["executable"] = guard_path(os.environ.get("SEXTON_INIT"))
    ours, theirs = _ends.pair()
    try:
        if "preexec_fn" in more:
            _ends.keep(theirs)  # the child runs Python before it is executed, and so what closes these in a fork
        owner = ["--owner-fd", str(theirs.fileno())]  # before the others: the owner is told what is wrong with them
        child = subprocess.Popen(
            [*_processes.guard_words(mark), *owner, *line], pass_fds=(theirs.fileno(), *pass_fds), **more
        )
    except BaseException as error:
        _ends.close(ours)
        if isinstance(error, OSError) and error.errno == errno.E2BIG:
            error.filename = program  # what is too long is the command's
        raise
    finally:
        _ends.close(theirs)
    return Started(child, child.pid, ours, mark, contain, program)


def _program(popen: dict[str, Any], args: Command) -> Word:
    """The file that is asked for, as it was named."""
    if popen.get("executable") is not None:
        return cast("Word", popen["executable"])
    if popen.get("shell"):
        return "/bin/sh"
    return args if isinstance(args, str | bytes | os.PathLike) else next(iter(args), "")


def _words_of(popen: dict[str, Any], args: Command) -> list[str | bytes]:
    """What the guard is to do in subprocess' place, and the command; those keywords are taken out of `popen`."""
    shell, executable = bool(popen.pop("shell", False)), popen.pop("executable", None)
    line: list[str | bytes] = []
    user, login = popen.pop("user", None), popen.pop("login", None)
    if login is not None:
        if any(each is not None for each in (user, popen.get("group"), popen.get("extra_groups"))):
            raise UsageError("login may not be given together with user, group or extra_groups")
        line += ["--user", login]
    elif user is not None:
        line += ["--user", f"+{_uid(user)}"]  # the guard stays who it is, and may signal everybody
    if popen.pop("same_group", False):
        line.append("--same-group")
    if executable is not None and not shell:
        line += ["--exec", os.fsdecode(executable)]
    return [*line, "--", *argv(args, shell=shell, executable=executable)]


def _uid(user: str | int) -> int:
    """As subprocess finds it. Raises KeyError, TypeError, ValueError."""
    if isinstance(user, str):
        return pwd.getpwnam(user).pw_uid
    if not isinstance(user, int):
        raise TypeError(f"User must be a string or an integer, not {type(user)}")
    if user < 0:
        raise ValueError(f"User ID cannot be negative, got {user}")
    return user


def new_mark() -> str:
    """A name for a tree that no other has."""
    return os.urandom(16).hex()


def milliseconds(seconds: float | None) -> float | None:
    """A time limit as poll(2) has it, rounded up: never early, and 0 does not wait."""
    return None if seconds is None else math.ceil(max(seconds, 0) * 1000)


_given_up: list[subprocess.Popen[Any]] = []


def give_up(popen: subprocess.Popen[Any]) -> None:
    """Keep a guard that nobody waits for, to bury it when the next one is started."""
    _given_up.append(popen)


def _bury_given_up() -> None:
    _given_up[:] = [popen for popen in _given_up if popen.poll() is None]


@atexit.register
def _leave_given_up() -> None:
    for popen in _given_up:
        popen.returncode = 0  # whoever adopts it buries it: nothing to warn of


def inheritable() -> tuple[int, ...]:
    """The descriptors that a program we execute would have, but for 0, 1 and 2."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return tuple(found)


@functools.lru_cache(maxsize=4)
def guard_path(named: str | None) -> str:  # noqa: ARG001 - what it depends on, for the cache
    """Where sexton-init is. `named`: what SEXTON_INIT says now. Raises BinaryNotFound."""
    return os.path.abspath(_binary.find())


def _limit(limits: list[tuple[int, tuple[int, int]]], then: Callable[[], Any] | None) -> None:
    for number, both in limits:
        resource.setrlimit(number, both)
    if then is not None:
        then()


def _then_own_group(preexec_fn: Callable[[], Any]) -> None:
    preexec_fn()
    if os.getpgrp() != os.getpid():  # os.setsid has made one, and it would have failed in one of its own
        os.setpgid(0, 0)


def failure(args: Command, program: Word, contain: Contain, record: Record, status: int) -> Exception:
    """Why the command was not started, as an exception; `status`: the guard's own exit status."""
    failed = record.failed
    if failed is not None and failed.step == "exec":
        return OSError(failed.errno, os.strerror(failed.errno), program)
    text = failed.text if failed else "its message is on its standard error"
    said = f"sexton-init (exit status {status}) did not start {args!r} with contain={contain!r}: {text}"
    if failed is not None and failed.step == "contain":
        return ContainmentError(said)
    if failed is not None and failed.errno in {errno.EPERM, errno.EACCES}:
        return PermissionError(failed.errno, said)
    return GuardError(said)
