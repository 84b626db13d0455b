"""Owner: a name under which trees are owned, beyond the death of the process; and the four policies against orphans."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack
from weakref import WeakValueDictionary

from sexton.errors import GuardError, LeftoversError, NotOwner, UsageError
from sexton.spawn import _ledger, _processes, _rescue, _start
from sexton.spawn._tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Policy = Literal["termination", "expiration", "reincarnation", "gentle"]
EPOCH = "SEXTON_EPOCH"
GRACE = 5.0  # seconds that a tree without owner has to end by itself, before SIGKILL


@dataclass(frozen=True, slots=True)
class Swept:
    """A tree of an earlier incarnation, and what became of it: "was gone", "ended", "adopted" or "left"."""

    tree: str
    command: tuple[str, ...]
    fate: str


class Owner:
    """Owns trees under a name, so that a later process of that name knows what an earlier one left.

    Of a name there is one owner at a time. While its process is alive another process that wants to be it gets a
    UsageError, a forked child too; and so does the same process while it has a tree under the name. But a new owner
    with the policy "reincarnation" takes over from one that is alive.

        owner = sexton.Owner("builds", policy="termination")
        with owner.tree(["make"]) as tree: ...

    policy    "termination"    every start is written down first; a new owner ends what is listed and still there.
              "expiration"     every tree has a lease and a hard maximum, and goes on until one of them is over, its
                               owner alive or dead. The lease runs from the start; tree.renew() begins it anew.
              "reincarnation"  a new owner of the name announces a new epoch; whatever carries an older one is ended,
                               also of an owner that is alive, which then can start no more.
              "gentle"         as "expiration"; but a new owner adopts a tree (`adopted`) if its guard still listens, to
                               be renewed as before, and ends it otherwise.
    lease     seconds; expiration and gentle need one
    maximum   seconds that a tree may live at most, whatever is renewed; None: no limit
    state     the directory of the ledgers, made if need be; None: $SEXTON_STATE, $XDG_STATE_HOME/sexton or
              ~/.local/state/sexton

    swept     what became of the trees of earlier incarnations (Swept)
    adopted   those that are ours now (Tree), with policy "gentle"
    epoch     which incarnation of the name this is, from 1

    Raises UsageError, LeftoversError, and OSError where the ledger cannot be written.
    """

    def __init__(
        self,
        name: str,
        policy: Policy = "termination",
        *,
        lease: float | None = None,
        maximum: float | None = None,
        state: str | os.PathLike[str] | None = None,
    ) -> None:
        if not name or "/" in name or name.startswith("."):
            raise UsageError(f"name={name!r}: expected the name of a file, without a slash")
        if policy not in {"termination", "expiration", "reincarnation", "gentle"}:
            raise UsageError(f"policy={policy!r}: expected termination, expiration, reincarnation or gentle")
        if policy in {"expiration", "gentle"} and lease is None:
            raise UsageError(f"policy={policy!r} needs a lease, in seconds")
        self.name = name
        self.policy = policy
        self.lease = lease
        self.maximum = maximum
        self.adopted: list[Tree] = []
        directory = _ledger.state_directory(state)
        self._sockets = directory
        path = directory / f"{name}.ledger"
        with _ledger.locked(path):
            self._ledger = _ledger.Ledger.read(path)
            if policy != "reincarnation":
                self._refuse_two()
            older = list(self._ledger.open.values())
            self.epoch = self._ledger.announce(policy)
        self.swept = tuple(self._settle(entry) for entry in older)
        if policy == "reincarnation":
            self._end_older_epochs()

    def tree(self, args: _start.Command, **settings: Unpack[_start.TreeSettings]) -> Tree:
        """Start a tree as sexton.Tree does, under the policy; it is in the ledger before it is started.

        Raises NotOwner in a forked child and where a newer owner has taken over, and what Tree raises.
        """
        self._refuse_late()
        args = _start.settled(args)
        mark = _start.new_mark()
        keywords: dict[str, Any] = dict(settings)
        keywords["env"] = {
            **(os.environ if settings.get("env") is None else settings["env"] or {}),
            EPOCH: self._mark(),
        }
        if self.policy in {"expiration", "gentle"}:
            lease = settings.get("lease")
            keywords |= {"lease": self.lease if lease is None else lease, "on_owner_lost": "lease"}
        if self.maximum is not None:
            timeout = settings.get("timeout")
            keywords["timeout"] = self.maximum if timeout is None else min(self.maximum, timeout)
        listen = str(self._sockets / f"{mark}.sock") if self.policy == "gentle" else None
        command = [os.fsdecode(word) for word in ([args] if isinstance(args, str | bytes | os.PathLike) else args)]
        self._ledger.append(event="start", epoch=self.epoch, tree=mark, command=command, listen=listen)
        try:
            tree = _Owned(args, mark=mark, listen=listen, **keywords).noted(self._ledger)
        except BaseException:
            self._ledger.append(event="end", tree=mark)
            raise
        try:
            self._refuse_late()  # who takes over from now on finds it
        except NotOwner:
            tree.kill()
            raise
        return tree

    def _refuse_two(self) -> None:
        pid = (self._ledger.owner or (0,))[0]
        if self._ledger.owner != _me():
            if self._ledger.owner_lives:
                raise UsageError(f"the owner {self.name!r} is alive: process {pid}; use another name")
            return
        for mark in self._ledger.open:
            if (tree := _here.get(mark)) and tree.goes_on:
                raise UsageError(
                    f"this process, {pid}, is the owner {self.name!r} already, of {tree.args!r}; use another name"
                )

    def _refuse_late(self) -> None:
        if self._ledger.owner != _me():
            raise NotOwner(
                f"the owner {self.name!r} is the process that forked this one; make one of another name here"
            )
        if self.policy == "reincarnation" and (epoch := _ledger.Ledger.read(self._ledger.path).epoch) != self.epoch:
            raise NotOwner(f"the owner {self.name!r} of epoch {epoch} has taken over from this one, of {self.epoch}")

    def _mark(self) -> str:
        return f"{self.name}:{self.epoch}"

    def _settle(self, entry: _ledger.Entry) -> Swept:
        """What the policy says of a tree of an earlier incarnation."""
        command = tuple(entry.command)
        if self.policy == "gentle" and entry.listen:
            try:
                self.adopted.append(_Owned.adopt(entry.listen, entry.tree, entry.command).noted(self._ledger))
            except (OSError, GuardError):
                pass
            else:
                return Swept(entry.tree, command, "adopted")
        if self.policy == "expiration" and _is_guarded(entry):
            return Swept(entry.tree, command, "left")
        fate = end(entry)
        self._ledger.append(event="end", tree=entry.tree)
        return Swept(entry.tree, command, fate)

    def _end_older_epochs(self) -> None:
        """Whoever carries an older epoch of this name, in a ledger or not."""
        for process in _processes.everyone():
            epoch = _processes.variable(process.pid, EPOCH)
            name, _, number = (epoch or "").rpartition(":")
            if name == self.name and number.isdecimal() and int(number) < self.epoch:
                _rescue.end(f"{EPOCH}={epoch}")


class _Owned(Tree):
    """A tree whose end is written into the ledger."""

    _book: _ledger.Ledger | None = None

    def noted(self, book: _ledger.Ledger) -> _Owned:
        self._book = book
        _here[self.mark] = self
        if self.over:  # a short one may have ended with its start
            self._note_end()
        return self

    @property
    def goes_on(self) -> bool:
        """It has not ended, nor was it given up, nor is it that of the process that forked this one."""
        if not self._not_ours:
            self.listen()
        return not self._not_ours and not self.over

    def _take(self, data: bytes) -> None:
        super()._take(data)
        if self.over:
            self._note_end()

    def _note_end(self) -> None:
        if self._book:
            with contextlib.suppress(OSError):  # a tree that is gone without that line is told to be gone, no worse
                self._book.append(event="end", tree=self.mark)


_Owned.__name__ = Tree.__name__  # that is what its users see: in its repr

_here: WeakValueDictionary[str, _Owned] = WeakValueDictionary()  # by their marks: those that this process has at hand


def _me() -> tuple[int, int]:
    me = _processes.look(os.getpid())
    return (me.pid, me.start) if me else (0, 0)


def end(
    entry: _ledger.Entry,
    grace: float = GRACE,
    *,
    patience: float = _rescue.DYING,
    killed: Sequence[_processes.Process] = (),
) -> str:
    """End a tree that has lost its owner: its guard is asked to, and has so long; then comes SIGKILL for each.

    patience: seconds that they have to die. killed: those of it who were sent SIGKILL before.

    Gives "was gone" or "ended". Raises LeftoversError.
    """
    mark = _processes.mark_of(entry.tree)
    found = _processes.marked(mark)
    cgroups = _rescue.cgroups(mark)
    if not found and not cgroups and not killed:
        return "was gone"
    there = bool(found or killed) or any(map(_rescue.members, cgroups))
    for process in found:
        if _processes.is_guard(process.pid, mark):
            _ask(process.pid, mark, grace)
    if left := _rescue.end(mark, patience, killed):
        said = f"of the tree {entry.tree} ({entry.command!r}) there is still alive after SIGKILL: {_rescue.told(left)}"
        raise LeftoversError(said)
    return "ended" if there else "was gone"


def _is_guarded(entry: _ledger.Entry) -> bool:
    """Its guard lives, and will end it when its lease is over."""
    mark = _processes.mark_of(entry.tree)
    return any(_processes.is_guard(process.pid, mark) for process in _processes.marked(mark))


def _ask(pid: int, mark: str, grace: float) -> None:
    """SIGTERM to a guard, and the grace time to end."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _processes.carries(pid, mark):
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(_start.milliseconds(grace))
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def sweep(path: Path, *, everything: bool = False) -> Iterator[Swept]:
    """End what the owner of that ledger left when it crashed. Raises LeftoversError, OSError.

    Trees of the policies "expiration" and "gentle" have a lease, and are left to it, if their guard lives, unless
    `everything`.
    """
    ledger = _ledger.Ledger.read(path)
    if ledger.owner_lives:
        return
    for entry in list(ledger.open.values()):
        leased = ledger.policy in {"expiration", "gentle"} and not everything
        left = leased and _is_guarded(entry)
        yield Swept(entry.tree, tuple(entry.command), "left" if left else end(entry))
        if not left:
            ledger.append(event="end", tree=entry.tree)  # last, for it may fail: what was done has been told
