"""What a command is about, as people say it: "web", "web.1", "all"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sexton.errors import UsageError
from sexton.supervise.values import nearest

if TYPE_CHECKING:
    from collections.abc import Collection

SHOWN = 20


def unknown(target: str, apps: Collection[str], instances: Collection[str] | None = None) -> UsageError:
    """That there is no such app or instance, and what was perhaps meant; None: only an app can be."""
    if instances is None:
        return UsageError(f"{target!r}: expected an app{nearest(target, apps) or _listed(apps)}")
    app, _, number = target.partition(".")
    if app in apps and number.isdecimal():
        own = [name for name in instances if name.partition(".")[0] == app]
        return UsageError(f"{target!r}: {app} has no such instance, {f'but {_few(own)}' if own else 'and no other'}")
    hint = nearest(app, [*apps, "all"]) or _listed([*apps, *instances])
    return UsageError(f"{target!r}: expected an app, an instance or all{hint}")


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} to {names[-1]}"


def _listed(names: Collection[str]) -> str:
    return f": {', '.join(list(names)[:SHOWN])}" + (", ..." if len(names) > SHOWN else "")
