"""Who is left of a tree after SIGKILL, as in uninterruptible sleep: nothing is started beside them until they end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sexton.spawn import Process, Tree, _processes, _rescue

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

PATIENCE = 10.0  # seconds that they have to die before it is said that they do not


class Guarded(Tree):
    """A tree whose guard may be killed without our loop waiting for long: who survives that is for Survivors."""

    _patience = 0.1


class Survivors:
    """Waits for the end of the last of them, and kills whoever of the tree appears meanwhile.

    said      is called when they have had their time to die: `text` says then who they are
    over      is called when nobody is left

    left      the processes, as far as they are known
    """

    def __init__(
        self,
        mark: str,
        left: Iterable[Process],
        loop: asyncio.AbstractEventLoop,
        *,
        patience: float,
        said: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self.mark = mark
        self.left: Sequence[Process] = tuple(left)
        self.text = ""
        self._loop = loop
        self._said, self._over = said, over
        self._held: int | None = None
        self._timer = loop.call_later(patience, self._say)
        self._next = loop.call_soon(self._look)

    def _look(self) -> None:
        self._let_go()
        self.left = _rescue.end(_processes.mark_of(self.mark), 0, self.left)
        if not self.left:
            self.close()
            self._over()
            return
        if self.text:
            self.text = self._told()
        self._held = _rescue.hold(self.left[0])
        if self._held is None:
            self._next = self._loop.call_soon(self._look)
        else:
            self._loop.add_reader(self._held, self._look)

    def _say(self) -> None:
        self.text = self._told()
        self._said()

    def _told(self) -> str:
        who = _rescue.told(self.left)
        return f"still alive after SIGKILL: {who}; it is not started beside them, `sexton doctor` says more"

    def _let_go(self) -> None:
        if self._held is not None:
            self._loop.remove_reader(self._held)
            os.close(self._held)
            self._held = None

    def close(self) -> None:
        """Wait no more."""
        self._timer.cancel()
        self._next.cancel()
        self._let_go()
