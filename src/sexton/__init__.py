"""sexton: the caretaker of processes on Linux."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sexton import aio as aio
    from sexton import errors as errors
    from sexton import events as events
    from sexton import reaper as reaper
    from sexton import spawn as spawn
    from sexton.spawn import DEVNULL as DEVNULL
    from sexton.spawn import PIPE as PIPE
    from sexton.spawn import STDOUT as STDOUT
    from sexton.spawn import CalledProcessError as CalledProcessError
    from sexton.spawn import CompletedProcess as CompletedProcess
    from sexton.spawn import Owner as Owner
    from sexton.spawn import Receipt as Receipt
    from sexton.spawn import TimeoutExpired as TimeoutExpired
    from sexton.spawn import Tree as Tree
    from sexton.spawn import check_call as check_call
    from sexton.spawn import check_output as check_output
    from sexton.spawn import run as run

__version__ = "0.1.0"

_FROM_SPAWN = frozenset(
    {
        "DEVNULL",
        "PIPE",
        "STDOUT",
        "CalledProcessError",
        "CompletedProcess",
        "Owner",
        "Receipt",
        "TimeoutExpired",
        "Tree",
    }
    | {"check_call", "check_output", "run"}
)
_MODULES = frozenset({"aio", "errors", "events", "reaper", "spawn"})


def __getattr__(name: str) -> object:
    """Modules, and what sexton.spawn has, imported when first asked for: `sexton init` pays for nothing that it does
    not use.
    """
    if name not in _MODULES | _FROM_SPAWN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    found = globals()[name] = getattr(import_module(f"{__name__}.spawn"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FROM_SPAWN})
