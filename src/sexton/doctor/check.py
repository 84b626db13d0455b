"""Is a command fit to be PID 1? Found out by trying; this is where what was seen becomes verdicts and advice."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from sexton.doctor import check_trials as trials
from sexton.errors import CannotLook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sexton.doctor.check_space import Setting
    from sexton.doctor.check_trials import Seen

Answer = Literal["yes", "no", "partly", "none"]

# Seconds. Docker's own grace; what else it has for a signal that is no stop, or for a child that ended.
GRACE = 10.0
PATIENCE = 2.0

# Every deadline that has an influence on a verdict, for the output.
DEADLINES: Mapping[str, float] = {
    "quiet": trials.QUIET,
    "start": trials.START,
    "reap": trials.REAP,
    "dropped": trials.DROPPED,
    "patience": PATIENCE,
}


class Verdict(NamedTuple):
    """One line of the table; "none" is an answer too: the question does not arise."""

    id: str
    question: str
    answer: Answer
    why: str


class Advice(NamedTuple):
    """What to run: "direct", "init", "init-script" (init + script + exec) or "full-init", and why."""

    id: Literal["direct", "init", "init-script", "full-init"]
    text: str
    why: str


class Report(NamedTuple):
    """All of it. `fit` says that the command may be PID 1 as it is."""

    command: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    advice: Advice
    grace: float

    @property
    def fit(self) -> bool:
        """It may be PID 1 as it is."""
        return self.advice.id == "direct"


def check(setting: Setting, grace: float = GRACE) -> Report:
    """Try the command in private PID namespaces, one start for each trial; takes some seconds.

    `grace` is how long it has to end on SIGTERM, in seconds. Raises `CannotLook` where it cannot be started, or
    ends by itself before it could be tried.
    """
    orphans = _tried(setting, trials.run(trials.try_orphans, setting))
    stop = _tried(setting, trials.run(partial(trials.try_stop, grace=grace), setting))
    code = _tried(setting, trials.run(partial(trials.try_code, patience=PATIENCE), setting))
    terminal = trials.run(partial(trials.try_terminal, patience=PATIENCE), setting._replace(terminal=True))
    others = {
        name: trials.run(partial(trials.try_signal, signum=signum, patience=PATIENCE), setting)
        for name, signum in (("SIGINT", signal.SIGINT), ("SIGQUIT", signal.SIGQUIT), ("SIGHUP", signal.SIGHUP))
    }
    verdicts = (*_verdicts(orphans, stop, code, terminal, grace), *_of_signals(others))
    return Report(tuple(setting.command), verdicts, advise(orphans, stop), grace)


def _tried(setting: Setting, seen: Seen) -> Seen:
    if seen.failed:
        raise CannotLook(f"cannot try it: {seen.failed}")
    if seen.ended_early is not None:
        last = seen.tail.strip().rpartition("\n")[2]
        said = f"; the last that it said: {last}" if last else ""
        raise CannotLook(
            f"{setting.command[0]} ended by itself ({_how(seen.ended_early)}) before it could be tried{said}"
        )
    return seen


def _how(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"


def _verdicts(orphans: Seen, stop: Seen, code: Seen, terminal: Seen, grace: float) -> Iterator[Verdict]:
    yield _of_orphans(orphans)
    yield _of_stop(stop, grace)
    yield _of_children(stop)
    yield _of_daemon(stop)
    yield _of_code(code)
    yield _of_terminal(terminal)
    yield _of_rest(stop)


def _of_orphans(seen: Seen) -> Verdict:
    question = "reaps the orphans it is given"
    if seen.ended:
        return Verdict("orphans", question, "no", f"it ended itself when it was given orphans ({_how(seen.code)})")
    counts = f"{seen.reaped} of {seen.given} within {seen.seconds:.2f} s"
    answer: Answer = "yes" if seen.reaped == seen.given else "partly" if seen.reaped else "no"
    return Verdict("orphans", question, answer, counts if answer != "no" else f"none of {seen.given}: all are zombies")


def _of_stop(seen: Seen, grace: float) -> Verdict:
    question = "ends on SIGTERM"
    if seen.ended:
        return Verdict("term", question, "yes", f"after {seen.seconds:.2f} s, {_how(seen.code)}")
    if not seen.caught:
        return Verdict("term", question, "no", "it has no handler, and for PID 1 the kernel drops the signal then")
    return Verdict("term", question, "no", f"it has a handler, and is alive {grace:g} s later")


def _of_children(seen: Seen) -> Verdict:
    question = "its children hear of the stop"
    if not seen.heard and not seen.deaf:
        answer: Answer = "none"
        return Verdict("children", question, answer, "it has none" if seen.processes == 1 else "they ended first")
    if not seen.deaf:
        return Verdict("children", question, "yes", f"{_names(seen.heard)} got a signal to end")
    deaf = f"{_names(seen.deaf)} got none"
    return Verdict("children", question, "partly" if seen.heard else "no", deaf)


def _of_daemon(seen: Seen) -> Verdict:
    question = "daemons can end gracefully"
    if seen.daemon == "heard":
        return Verdict("daemons", question, "yes", "a process that had left its session got the SIGTERM")
    why = "a process that had left its session heard nothing"
    return Verdict("daemons", question, "no", f"{why}{', and was killed' if seen.daemon == 'killed' else ''}")


def _of_code(seen: Seen) -> Verdict:
    question = "passes the exit code on"
    if not seen.heard:
        return Verdict("code", question, "none", "it is the program itself")
    if not seen.ended:
        return Verdict("code", question, "no", f"{_names(seen.heard)} was killed, and it went on for {PATIENCE:g} s")
    right = seen.code in {128 + signal.SIGKILL, -signal.SIGKILL}
    return Verdict(
        "code", question, "yes" if right else "no", f"{_names(seen.heard)} was killed, and it gave {_how(seen.code)}"
    )


def _of_terminal(seen: Seen) -> Verdict:
    question = "Ctrl-C ends it"
    if seen.failed or seen.ended_early is not None:
        return Verdict("ctrl-c", question, "none", seen.failed or "with a terminal it ended by itself")
    if seen.ended:
        return Verdict("ctrl-c", question, "yes", f"after {seen.seconds:.2f} s, {_how(seen.code)}")
    return Verdict(
        "ctrl-c", question, "no", "it is alive, as it was" if seen.caught else "it has no handler for SIGINT"
    )


def _of_rest(seen: Seen) -> Verdict:
    question = "leaves nothing behind"
    if not seen.ended:
        what = "it is" if seen.processes == 1 else f"all {seen.processes} of it are"
        return Verdict("left", question, "no", f"{what} left for the kernel to kill")
    if seen.left:
        return Verdict("left", question, "no", f"the kernel had to kill {_names(seen.left)}")
    return Verdict("left", question, "yes", "when it ended nothing was left of what it had started")


def _of_signals(others: Mapping[str, Seen]) -> Iterator[Verdict]:
    for name, seen in others.items():
        if seen.failed or seen.ended_early is not None:
            yield Verdict(name.lower(), f"ends on {name}", "none", seen.failed or "it ended by itself this time")
        elif seen.ended:
            yield Verdict(name.lower(), f"ends on {name}", "yes", f"after {seen.seconds:.2f} s, {_how(seen.code)}")
        else:
            why = f"it has a handler, and is alive {PATIENCE:g} s later" if seen.caught else "it has no handler"
            yield Verdict(name.lower(), f"ends on {name}", "no", why)


def _names(names: tuple[str, ...]) -> str:
    """The comms, without the pids, which are gone when this is read."""
    comms = [name.rpartition("[")[0] for name in names]
    return ", ".join(dict.fromkeys(comms))


def advise(orphans: Seen, stop: Seen) -> Advice:
    """The rule: one process → directly; several or a start script → init + script + exec; services that stand
    beside one another → a full init. And what reaps, ends and passes the stop on is an init already.
    """
    reaps = not orphans.ended and orphans.reaped == orphans.given
    script = stop.comm in trials.SHELLS
    if reaps and stop.ended and not stop.deaf and (stop.heard or stop.processes == 1):
        return Advice("direct", "Run it directly.", "It reaps, it ends on SIGTERM, and what it started hears of it.")
    if stop.branches > 1:
        return Advice(
            "full-init",
            "Run it under a full init: one that starts, watches and stops each service (sexton up).",
            f"{stop.branches} processes stand beside one another under PID 1, and it does not look after them.",
        )
    if script or stop.processes > 1:
        return Advice(
            "init-script",
            "Put an init in front, and let the script `exec` its last command: sexton-init -- COMMAND.",
            f"{stop.processes} processes{', a start script in front' if script else ''}: PID 1 must reap and pass the"
            " stop on, and it does not do both.",
        )
    if stop.ended:
        return Advice(
            "direct",
            "Run it directly, as long as it stays one process.",
            "One process that ends on SIGTERM. It does not reap: once it starts programs, or health checks are run"
            " beside it, put an init in front.",
        )
    return Advice(
        "init",
        "Put an init in front: sexton-init -- COMMAND.",
        "One process that as PID 1 does not end on SIGTERM; with another pid the signal does what it should.",
    )
