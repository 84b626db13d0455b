"""What run() returns and raises: subprocess' own classes, with more to say."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from sexton.errors import SextonError

if TYPE_CHECKING:
    from sexton.spawn._processes import Holder
    from sexton.spawn._receipt import Receipt


class CompletedProcess(subprocess.CompletedProcess[Any]):
    """A command that ended, and of whose tree nothing is left.

    As subprocess.CompletedProcess: args, returncode, stdout, stderr; and
    receipt   what the guard had to do with (Receipt)
    """

    def __init__(
        self, args: Any, returncode: int, stdout: Any = None, stderr: Any = None, *, receipt: Receipt | None = None
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.receipt = receipt

    def check_returncode(self) -> None:
        """Raise CalledProcessError if the exit code is not 0."""
        if self.returncode:
            raise CalledProcessError(self.returncode, self.args, self.stdout, self.stderr, receipt=self.receipt)


class CalledProcessError(SextonError, subprocess.CalledProcessError):
    """A command ended with another exit code than 0; `receipt` as in CompletedProcess."""

    __module__ = "sexton"  # as a traceback names it

    def __init__(
        self, returncode: int, cmd: Any, output: Any = None, stderr: Any = None, *, receipt: Receipt | None = None
    ) -> None:
        subprocess.CalledProcessError.__init__(self, returncode, cmd, output, stderr)
        self.receipt = receipt

    def __str__(self) -> str:
        return subprocess.CalledProcessError.__str__(self)


class TimeoutExpired(SextonError, subprocess.TimeoutExpired):
    """A command took too long; of run() its tree is gone, of Tree.wait() it goes on.

    As subprocess.TimeoutExpired: cmd, timeout, output (bytes: what had come), stderr; and
    holders   who held the pipes when the time was over (Holder: pid, name, cmdline, streams), the command too
    receipt   how each ended, when the tree was stopped
    """

    __module__ = "sexton"

    def __init__(
        self,
        cmd: Any,
        timeout: float,
        output: Any = None,
        stderr: Any = None,
        *,
        holders: tuple[Holder, ...] = (),
        receipt: Receipt | None = None,
    ) -> None:
        subprocess.TimeoutExpired.__init__(self, cmd, timeout, output, stderr)
        self.holders = holders
        self.receipt = receipt

    def __str__(self) -> str:
        said = subprocess.TimeoutExpired.__str__(self)
        return said + "".join(f"\n  {holder}" for holder in self.holders)
