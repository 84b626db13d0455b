"""Every error that sexton raises, drawn once.

    SextonError                       exit 1
    ├── UsageError (ValueError)       exit 2    a bad option, key or value: it names it and what was expected
    ├── CannotLook                    exit 2    no /proc to read, or no such process or container in it
    ├── BinaryNotFound                exit 127  no sexton-init in any of the places looked in
    ├── GuardError                    exit 125  a guard could not do its work
    │   └── ContainmentError          exit 125  the containment that was asked for cannot be had here
    ├── LeftoversError                exit 1    a stop is over, and something of the tree is still alive: it names it
    ├── NotRunning                    exit 3    no supervisor answers where one is asked for
    ├── Occupied                      exit 1    a supervisor runs there already: it names its process
    ├── NotOwner                      exit 1    a tree is used by a process that is not its owner: a forked child
    ├── TimeoutExpired                exit 1    it took too long; subprocess.TimeoutExpired too: see run.md
    └── CalledProcessError            exit 1    not exit code 0; subprocess.CalledProcessError too: see run.md

Each class owns the exit code that the command line ends with; but `sexton run` ends with 125 for all of them, since the
others are its command's to use.
"""

from __future__ import annotations

from typing import ClassVar


class SextonError(Exception):
    """The base of every error that sexton raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(SextonError, ValueError):
    """A bad option, key or value; the message names it and says what was expected."""

    exit_code: ClassVar[int] = 2


class CannotLook(SextonError):
    """No /proc to read, or no such process or container in it; the message names what was looked at."""

    exit_code: ClassVar[int] = 2


class BinaryNotFound(SextonError):
    """No usable `sexton-init` was found; the message lists every place that was looked in."""

    exit_code: ClassVar[int] = 127


class GuardError(SextonError):
    """A guard could not be started, or could not do its work; the message says what it said."""

    exit_code: ClassVar[int] = 125


class ContainmentError(GuardError):
    """The containment that was asked for cannot be had here; nothing was started."""


class LeftoversError(SextonError):
    """A stop is over, and something of the tree is still alive; the message lists it."""


class NotOwner(SextonError):
    """A tree is used in a process that is not its owner, as a forked child is; or a newer Owner has taken over."""


class NotRunning(SextonError):
    """No supervisor answers where one is asked for; the message names the socket, and what starts one."""

    exit_code: ClassVar[int] = 3  # as of the LSB's `status`


class Occupied(SextonError):
    """A supervisor runs there already; the message names its process."""
