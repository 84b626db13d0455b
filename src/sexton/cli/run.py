"""`sexton run`: a command whose whole tree ends with it, with its time, with its owner or with its input."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import time
from typing import IO, TYPE_CHECKING, Any

import click

from sexton.errors import SextonError
from sexton.spawn import Receipt, Tree
from sexton.spawn._run import at_terminal
from sexton.spawn._start import LADDER, milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
TIMED_OUT, FAILED, CANNOT_EXECUTE, NOT_FOUND, KILLED = 124, 125, 126, 127, 137


class _Watch:
    """Waits for the tree, for our own signals and for the end of our input, without waking up for anything else."""

    tree: Tree

    def __init__(self, grace: float, *, lease: bool, stdin: bool) -> None:
        """Hear of signals from now on: the tree is not there yet, and misses none."""
        self.grace = grace
        self.lease = lease
        self.deadline: float | None = None  # of the grace that a signal or the end of the input began
        self.poll = select.poll()
        self.wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for sig in PASSED_ON:
            if signal.getsignal(sig) is not signal.SIG_IGN:  # nohup(1) stays nohup
                signal.signal(sig, _take_note)
        self.poll.register(self.wake, select.POLLIN)
        if stdin:
            self.poll.register(0, select.POLLRDHUP)

    def run(self, tree: Tree) -> int:
        """Until nothing of the tree is left; the command's returncode."""
        self.tree = tree
        with self.tree.watched() as guard:
            if guard is not None:
                self.poll.register(guard, select.POLLIN)
            while not self.tree.over:
                left = None if self.deadline is None else self.deadline - time.monotonic()
                for fd, _ in self.poll.poll(milliseconds(left)):
                    self._ready(fd)
                if self.deadline is not None and self.deadline <= time.monotonic():
                    self.deadline = None
                    self.tree.ask_to_stop()
                self.tree.listen()
        return self.tree.wait()

    def _ready(self, fd: int) -> None:
        if fd == self.wake:
            for number in os.read(fd, 1000):
                self._signalled(signal.Signals(number))
        elif fd == 0:
            self.poll.unregister(0)
            self._begin_grace()

    def _signalled(self, sig: signal.Signals) -> None:
        if sig == signal.SIGUSR1 and self.lease:
            self.tree.renew()
            return
        if sig in ENDING and self.deadline is not None:
            self.tree.ask_to_stop(0)  # asked for twice
            return
        if sig != signal.SIGINT or not at_terminal():  # a Ctrl-C reaches the command without us
            self.tree.send_signal(sig, "group")
        if sig in ENDING:
            self._begin_grace()

    def _begin_grace(self) -> None:
        if self.deadline is None:
            self.deadline = time.monotonic() + self.grace


def _see_through(watch: _Watch, tree: Tree) -> tuple[int, str]:
    """Until nothing of the tree is left; our exit status, and what went wrong."""
    try:
        code = watch.run(tree)
    except SextonError as error:
        tree.close()
        return FAILED, str(error)
    code = 128 - code if code < 0 else code
    return TIMED_OUT if tree.receipt.why == "timeout" and code != KILLED else code, ""


def _take_note(_number: int, _frame: FrameType | None) -> None:
    """A handler must be there for the wake-up descriptor to hear of the signal."""


def _report(command: Sequence[str], receipt: Receipt, code: int, seconds: float, *, form: str, error: str) -> str:
    """`error`: what kept us from our work; "" where nothing did."""
    if form == "json":
        said: dict[str, Any] = {"command": command, "exit": code, "seconds": round(seconds, 3), **receipt.as_dict()}
        said |= {"empty": False, "error": error} if error else {}
        return json.dumps(said) + "\n"
    left = [entry for entry in receipt.entries if entry.how != "command"]
    text = f"sexton run: exit status {code} after {seconds:.1f} s"
    text += f", stopped ({receipt.why})" if receipt.why else ""
    nothing = f"; {error}\n" if error else "; nothing was left\n"
    text += f"; {len(left)} of its processes were left or adopted\n" if left else nothing
    return text + "".join(f"  {line}\n" for line in str(receipt).splitlines() if left)


def _open(report_file: str | None) -> IO[str] | None:
    """Where the report is written; None where stderr is closed: another file may have its number. Raises OSError."""
    if report_file:
        return open(report_file, "a", encoding="utf-8", errors="backslashreplace")
    return os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False) if sys.stderr else None


def _say(text: str) -> None:
    _tell(f"sexton run: {text}\n")


def _tell(text: str) -> None:
    """On stderr, if it is there and takes it: the exit status says more."""
    if sys.stderr:
        with contextlib.suppress(OSError):
            os.write(2, os.fsencode(text))


class _LikeTimeout(click.Command):
    """A bad option ends it with 125, as with timeout(1): 1 and 2 are COMMAND's to use."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with that exit status."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            text = io.StringIO()
            error.show(text)
            _tell(text.getvalue())
            ctx.exit(FAILED)


def _seconds(value: str) -> float:
    """A number of seconds, or a duration as in sexton.toml."""
    with contextlib.suppress(ValueError):
        return float(value)
    from sexton.supervise.values import Duration, Problems, Wrong

    try:
        return Duration().read(value, (), Problems("", {}))
    except Wrong as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=_LikeTimeout, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTION]...")
@click.option("--timeout", type=_seconds, metavar="SECONDS", help="Stop the tree after so long, 90 or 1m30s; exit 124.")
@click.option(
    "--grace", type=_seconds, default=5.0, show_default=True, metavar="SECONDS", help="From asking to SIGKILL."
)
@click.option("--stop-signal", default="TERM", show_default=True, metavar="SIG", help="How the tree is asked to end.")
@click.option("--lease", type=_seconds, metavar="SECONDS", help="Stop it unless SIGUSR1 came in that time.")
@click.option(
    "--stdin-death", is_flag=True, help="When the writer of our input has gone, stop the tree after its grace."
)
@click.option("--on-exit", type=click.Choice(["stop", "wait", "leave"]), default="stop", show_default=True,
              help="What happens to leftovers when COMMAND has ended.")  # fmt: skip
@click.option(
    "--contain", type=click.Choice(LADDER), default="subreaper", show_default=True, help="What holds the tree."
)
@click.option("--require", type=click.Choice(LADDER), help="The least that will do if --contain cannot be had.")
@click.option("--report", type=click.Choice(["text", "json"]), help="Say what was left, and how it ended, on stderr.")
@click.option("--report-file", type=click.Path(dir_okay=False), help="There instead of on stderr.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]...")
def run(*, command: tuple[str, ...], timeout: float | None, lease: float | None, grace: float, stdin_death: bool,
        report: str | None, report_file: str | None, **options: Any) -> None:  # fmt: skip
    """
    Run COMMAND and end with it all that came of it.

    The tree is stopped when COMMAND ends, when its time is over, when this process ends (by SIGKILL too). A signal that
    ends, and the end of the input, give COMMAND the grace time to end by itself; then comes the stop, with the grace
    time again. A second such signal kills.

    Exit status:
    COMMAND's; 128+N if signal N ended it; 124 timed out (137 if it had to be killed); 125 sexton failed; 126 COMMAND
    cannot be executed; 127 it was not found.
    """
    if report_file and not report:
        _say("--report-file: say which, with --report text or --report json")
        sys.exit(FAILED)
    try:
        file = _open(report_file) if report else None
    except OSError as error:
        _say(f"--report-file: cannot write {report_file}: {error.strerror}")
        sys.exit(FAILED)
    began = time.monotonic()
    terminal = at_terminal()
    options |= {"close_fds": False, "process_group": -1 if terminal else 0, "same_group": terminal}
    watch = _Watch(grace, lease=lease is not None, stdin=stdin_death)
    wrong, receipt = "", Receipt((), why="", contain=options["contain"], empty=False)
    try:
        tree = Tree(command, timeout=timeout, lease=lease, grace=grace, **options)
    except OSError as error:
        wrong = f"cannot execute {command[0]}: {error.strerror or error}"
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE
    except SextonError as error:
        wrong, code = str(error), FAILED
    else:
        code, wrong = _see_through(watch, tree)
        receipt = tree.receipt
    if wrong:
        _say(wrong)
    if report and file:
        try:
            with file:
                file.write(_report(command, receipt, code, time.monotonic() - began, form=report, error=wrong))
        except OSError as error:
            _say(f"the report could not be written to {report_file or 'stderr'}: {error.strerror}")
    sys.exit(code)
