"""What the rules may know: plain values, made by `look`, or by a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sexton import proc


# The inode of the machine's own PID namespace, PROC_PID_INIT_INO in include/linux/proc_ns.h.
HOST_NAMESPACE = 0xEFFFFFFC


class Wait(NamedTuple):
    """A thread that sleeps in a wait call: for any child, or for the child that its namespace calls `pid`."""

    tid: int
    any_child: bool
    pid: int


class Facts(NamedTuple):
    """What was read of one process that matters; what could not be read has its empty value.

    `frozen` is the cgroup directory that freezes it; `runtime` is init, shell, node, python, java, go,
    shim or ""; `stdio` is what its descriptors 0, 1 and 2 are, `pipes` all the pipes and sockets that it
    has open, `severed` the first of 1 and 2 that leads to nobody any more, -1 for none.
    """

    process: proc.Process
    status: proc.Status | None = None
    namespace: int = 0
    container: proc.Container | None = None
    wchan: str = ""
    stack: tuple[str, ...] = ()
    frozen: str = ""
    runtime: str = ""
    environ: Mapping[str, str] = {}
    args: tuple[str, ...] = ()
    sigwait: bool = False
    waits: tuple[Wait, ...] = ()
    pipes: frozenset[str] = frozenset()
    stdio: tuple[str, ...] = ()
    severed: int = -1

    @property
    def init(self) -> bool:
        """It is PID 1 of a PID namespace."""
        return self.status is not None and self.status.init

    @property
    def cannot_run(self) -> str:
        """Why it runs no code at the moment, or ""."""
        if self.frozen:
            return f"frozen by its cgroup {self.frozen}"
        words = {"T": "stopped by a signal", "t": "stopped by a tracer", "D": "in an uninterruptible sleep"}
        return words.get(self.process.state, "")


class Evidence(NamedTuple):
    """All that the rules see. `zombies`, `stuck` (in state D) and `dying` (ending, and not zombies) lasted; `people`
    has every process that a rule may ask about.
    """

    at: proc.Snapshot
    scope: frozenset[int]
    zombies: tuple[proc.Process, ...] = ()
    stuck: tuple[proc.Process, ...] = ()
    dying: tuple[proc.Process, ...] = ()
    briefs: Mapping[int, proc.Brief] = {}
    people: Mapping[int, Facts] = {}
    containers: Mapping[int, proc.Container] = {}
    levels: tuple[proc.Level, ...] = ()
    blind: tuple[str, ...] = ()

    def facts(self, pid: int) -> Facts | None:
        """What is known of a process; None of one that nothing was read of."""
        return self.people.get(pid)

    def init_of(self, pid: int) -> Facts | None:
        """The PID 1 of the namespace that the process is in, as far as it is among its ancestors or is
        itself.
        """
        process = self.at.processes.get(pid)
        chain = (process, *self.at.ancestors(pid)) if process else ()
        for one in chain:
            known = self.people.get(one.pid)
            if known is not None and known.init:
                return known
        return None
