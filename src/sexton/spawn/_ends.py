"""Descriptors that a forked child must not keep.

A guard ends its tree when the owner's end of their socket is closed: by everybody who has it. A child that was only
forked has it too, and would keep the tree after its parent's death; so a child closes them first of all. A program that
is executed never has them: they are close-on-exec.
"""

from __future__ import annotations

import os
import socket
import threading
from weakref import WeakSet

_lock = threading.RLock()  # a fork in a signal handler must not wait for the frame that it interrupted
_ends: WeakSet[socket.socket] = WeakSet()  # one that a start lost on its way is closed, and its tree ends
_owners: WeakSet[Forkable] = WeakSet()


class Forkable:
    """Who has such descriptors; a child calls `forked` of each."""

    def forked(self) -> None:
        """This process is a forked child: the tree is its parent's."""

    def mind_forks(self) -> None:
        """Be told of forks from now on."""
        with _lock:
            _owners.add(self)


def pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair whose descriptors are over 2; no fork comes between its making and its being known here."""
    with _lock:
        ours, theirs = (_high(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
        _ends.update((ours, theirs))
    return ours, theirs


def connect(path: str) -> socket.socket:
    """A connection to a socket in the file system, as pair() has them. Raises OSError."""
    with _lock:
        end = _high(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        _ends.add(end)
    try:
        end.connect(path)
    except OSError:
        close(end)
        raise
    return end


def close(end: socket.socket) -> None:
    """Close it and forget it; more than once is allowed."""
    with _lock:
        _ends.discard(end)
        end.close()


def keep(end: socket.socket) -> None:
    """Let forked children have it from now on."""
    with _lock:
        _ends.discard(end)


def _high(end: socket.socket) -> socket.socket:
    """Above 0, 1 and 2, which a guard's command needs for itself: the owner may have closed its own."""
    low = []
    while end.fileno() < 3:
        low.append(end)
        end = end.dup()
    for each in low:
        each.close()
    return end


def _in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that does not exist here
    _lock = threading.RLock()
    for end in _ends:
        end.close()
    _ends.clear()
    for owner in list(_owners):
        owner.forked()


def _before() -> None:
    _lock.acquire()


def _in_parent() -> None:
    _lock.release()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
