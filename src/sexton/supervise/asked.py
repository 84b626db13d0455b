"""What the control API takes: the bodies of requests, as structs."""

from __future__ import annotations

from typing import Literal

import msgspec

Scope = Literal["child", "group", "tree"]


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of them all: strict."""


class Signal(Asked, frozen=True):
    """Send a signal (HUP, SIGHUP, 1) to the command alone, to its process group, or to its whole tree."""

    signal: str
    scope: Scope = "group"


class Scale(Asked, frozen=True):
    """Let the app have so many instances."""

    instances: int


class Down(Asked, frozen=True):
    """End the supervisor; with `leave`, it alone: the apps go on for their lease."""

    leave: bool = False
