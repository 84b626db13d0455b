"""sexton up: many apps from one file, on ports of their own, none ever left behind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sexton.supervise.client import Client as Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    """The client, imported when it is first asked for: the supervisor itself has no use for it."""
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sexton.supervise.client import Client

    return Client
