"""Every error that sexton raises, drawn once.

    SextonError                       exit 1
    ├── UsageError (ValueError)       exit 2    a bad option, key or value: it names it and what was expected
    ├── CannotLook                    exit 2    no /proc to read, or no such process or container in it
    └── BinaryNotFound                exit 127  no sexton-init in any of the places looked in

Each class owns the exit code that the command line ends with.
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
