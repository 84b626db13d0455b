"""run, check_call, check_output: with subprocess' faces, and an end that takes the whole tree."""

from __future__ import annotations

import contextlib
import os
from subprocess import PIPE
from typing import Any, Unpack

from sexton.errors import LeftoversError
from sexton.spawn import _processes, _start
from sexton.spawn._channel import PATIENCE
from sexton.spawn._errors import CalledProcessError, CompletedProcess, TimeoutExpired
from sexton.spawn._exchange import Exchange
from sexton.spawn._tree import Tree

SIGINT_WAIT = 0.25  # seconds that an interrupted command has to end by itself, as subprocess has it


def run(
    args: _start.Command,
    *more: Any,
    input: Any = None,  # noqa: A002 - subprocess' name of it
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **settings: Unpack[_start.Settings],
) -> CompletedProcess:
    """Run a command to its end and to that of all that came of it: subprocess.run with nothing left over.

    When the command has ended, what is left of its tree is stopped (see on_exit in Options). With a timeout it returns
    within timeout + grace, whatever grandchildren hold the pipes (10 s later where something survives SIGKILL);
    TimeoutExpired has the output so far and who held them.

    In a program that has the foreground of its terminal the command stays in our process group: it has the terminal,
    and Ctrl-C and Ctrl-Z reach both, as with subprocess.

    `more`: what stands after the command without a name, in the order of subprocess.Popen.

    Raises TimeoutExpired, CalledProcessError (check=True), OSError where the command cannot be executed, LeftoversError
    (also in place of TimeoutExpired, which is its cause then) where something outlives SIGKILL, and what Tree does.
    """
    settings, terminal = arranged(more, settings, input, capture_output=capture_output)
    tree = Tree(args, **settings) if wants_ladder(settings) else Tree.unawaited(args, settings, late=True)
    try:
        exchange = Exchange(tree, input)
        if not exchange.until_over(timeout):
            if timeout is not None and not tree.ending:
                raise _expired(tree, exchange, timeout)
            exchange.until_over(None)
        tree.check_start()
        code = tree.wait()
        out, err = exchange.result()
        receipt = tree.receipt
    except KeyboardInterrupt:
        _interrupted(tree, told=terminal)
        raise
    finally:
        tree.__exit__(None, None, None)
    if check and code:
        raise CalledProcessError(code, tree.args, out, err, receipt=receipt)
    return CompletedProcess(tree.args, code, out, err, receipt=receipt)


def arranged(
    more: tuple[Any, ...],
    settings: _start.Settings,
    input: Any,  # noqa: A002 - subprocess' name of it
    *,
    capture_output: bool,
) -> tuple[_start.Settings, bool]:
    """The settings of a tree for run()'s parameters; and whether its command has the terminal. Raises ValueError."""
    settings = _start.by_name(more, settings)
    if input is not None:
        if settings.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        settings["stdin"] = PIPE
    if capture_output:
        if settings.get("stdout") is not None or settings.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        settings["stdout"] = settings["stderr"] = PIPE
    placed = settings.get("process_group") is not None or settings.get("start_new_session")
    terminal = not placed and at_terminal()
    if terminal:
        settings["process_group"] = -1
        settings["same_group"] = True
    return settings, terminal


def wants_ladder(settings: _start.Settings) -> bool:
    """More than one containment may have to be tried, so that the start must be waited for."""
    return settings.get("require") not in {None, settings.get("contain", "subreaper")}


def at_terminal() -> bool:
    """Whether our process group has the foreground of its terminal."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)


def _expired(tree: Tree, exchange: Exchange, timeout: float) -> TimeoutExpired:
    """End the tree whose time is over, and say who held the pipes then."""
    holders: tuple[_processes.Holder, ...] = ()
    with contextlib.suppress(OSError):  # without /proc nobody can be named
        tree.wake_guard()
        holders = _processes.holders(exchange.pipes(), [process.pid for process in tree.processes()])
    tree.ask_to_stop()
    while not exchange.until_over(tree.grace + PATIENCE):
        tree.wake_guard()
    tree.check_start()
    out, err = exchange.bytes()
    expired = TimeoutExpired(tree.args, timeout, out, err, holders=holders, receipt=tree.receipt)
    try:
        tree.wait()
    except LeftoversError as error:
        raise error from expired
    return expired


def _interrupted(tree: Tree, *, told: bool) -> None:
    """Ctrl-C: the command is told what we were, if the terminal did not, and has a moment; then comes the stop."""
    with contextlib.suppress(TimeoutExpired):
        if not told:
            tree.send_signal("INT", "tree")
        tree.wait(SIGINT_WAIT)


def check_call(
    args: _start.Command,
    *more: Any,
    timeout: float | None = None,
    **settings: Unpack[_start.Settings],
) -> int:
    """Run a command, and raise CalledProcessError if its exit code is not 0; gives 0. Parameters as for run()."""
    return run(args, *more, timeout=timeout, check=True, **settings).returncode


def check_output(
    args: _start.Command,
    *more: Any,
    timeout: float | None = None,
    **settings: Any,
) -> Any:
    """Run a command and give its stdout; raise CalledProcessError if its exit code is not 0.

    Parameters as for run().
    """
    mind_output(settings)
    return run(args, *more, stdout=PIPE, timeout=timeout, check=True, **settings).stdout


def mind_output(settings: dict[str, Any]) -> None:
    """What check_output() makes of its keywords. Raises ValueError."""
    for name in ("stdout", "check"):
        if name in settings:
            raise ValueError(f"{name} argument not allowed, it will be overridden.")
    if "input" in settings and settings["input"] is None:
        text = any(settings.get(name) for name in ("universal_newlines", "text", "encoding", "errors"))
        settings["input"] = "" if text else b""
