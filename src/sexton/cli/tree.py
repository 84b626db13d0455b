"""`sexton tree`: the family of a process, a container or the machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sexton import proc
from sexton.cli._scope import of
from sexton.cli._table import cut, fold, plural, screen
from sexton.cli.ps import blind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# So many siblings that differ in their pids only are drawn as one line.
_MANY = 4


@click.command(short_help="Draw the family of a process or a container.")
@click.argument("root", required=False, metavar="[PID|CONTAINER]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as sexton-tree(1) describes it.")
def tree(*, root: str | None, as_json: bool) -> None:
    """Draw who is whose child, from PID or in CONTAINER (its name, or the beginning of its id); all of them without.

    An `s` marks the leader of a session, a `g` the leader of a process group.
    """
    at = proc.snapshot()
    roots = _roots(at, root)
    family = [(process, depth) for one in roots for process, depth in _walk(at, one, set())]
    depth = max((level for _, level in family), default=0)
    if as_json:
        import json

        document = {
            "schema": 1,
            "size": len(family),
            "depth": depth,
            "roots": [_object(one, at, set()) for one in roots],
        }
        print(json.dumps(document))
        return
    on = screen()
    for one in roots:
        for line, styles in _draw(at, one):
            print(on.paint(cut(line, on.width) if on.width else line, *styles))
    last = _summary(family, depth)
    print(on.paint(fold(last, on), "dim"))
    for line in blind(at):
        print(line, file=sys.stderr)


def _summary(family: Sequence[tuple[proc.Process, int]], depth: int) -> str:
    sessions = len({process.sid for process, _ in family})
    groups = len({process.pgid for process, _ in family})
    return (
        f"{plural(len(family), 'process', 'processes')}, {plural(depth, 'level')} deep,"
        f" {plural(sessions, 'session')}, {plural(groups, 'process group')}"
    )


def _roots(at: proc.Snapshot, root: str | None) -> list[proc.Process]:
    if root is None:
        return [process for process in at.children(0) if not process.kernel]
    inside = of(at, root)
    return [at.processes[pid] for pid in sorted(inside) if at.processes[pid].ppid not in inside]


def _walk(
    at: proc.Snapshot, process: proc.Process, seen: set[int], depth: int = 1
) -> Iterator[tuple[proc.Process, int]]:
    """The process and its descendants with their levels; without recursion, since a fork bomb is deep."""
    stack = [(process, depth)]
    while stack:
        one, level = stack.pop()
        if one.pid not in seen:
            seen.add(one.pid)
            yield one, level
            stack += [(child, level + 1) for child in reversed(at.children(one.pid))]


def _draw(at: proc.Snapshot, root: proc.Process) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The lines of one family with their styles; like siblings without children in one line."""
    seen: set[int] = set()
    stack: list[tuple[tuple[proc.Process, ...], str, str]] = [((root,), "", "")]
    while stack:
        same, lead, below = stack.pop()
        one = same[0]
        if one.pid in seen:
            continue
        seen.update(process.pid for process in same)
        yield lead + _label(at, same), ("red",) if one.zombie else ()
        groups = _alike(at, at.children(one.pid)) if len(same) == 1 else []
        for number, group in enumerate(reversed(groups)):
            last = number == 0
            stack.append((group, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


def _alike(at: proc.Snapshot, children: Sequence[proc.Process]) -> list[tuple[proc.Process, ...]]:
    groups: dict[object, list[proc.Process]] = {}
    for child in children:
        leaf = not at.children(child.pid)
        key = (child.comm, child.state, _marks(child), bool(proc.adopted(child, at))) if leaf else child.pid
        groups.setdefault(key, []).append(child)
    found: list[tuple[proc.Process, ...]] = []
    for group in groups.values():
        found += [tuple(group)] if len(group) >= _MANY else [(one,) for one in group]
    return found


def _marks(process: proc.Process) -> str:
    return ("s" if process.pid == process.sid else "") + ("g" if process.pid == process.pgid else "")


def _label(at: proc.Snapshot, same: Sequence[proc.Process]) -> str:
    one = same[0]
    words = [
        one.name if len(same) == 1 else f"{proc.printable(one.comm)}[{one.pid} … {same[-1].pid}] ({len(same)} alike)"
    ]
    marks = _marks(one)
    if marks:
        words.append(marks)
    if one.zombie:
        words.append("zombie")
    elif one.state in "DTt":
        words.append({"D": "uninterruptible", "T": "stopped", "t": "traced"}[one.state])
    if one.threads > 1:
        words.append(plural(one.threads, "thread"))
    if proc.adopted(one, at):
        words.append("orphan")
    return "  ".join(words)


def _object(process: proc.Process, at: proc.Snapshot, seen: set[int]) -> dict[str, object]:
    """Nested objects, made from the leaves up, so that depth does not matter to Python."""
    order = list(_walk(at, process, seen))
    made: dict[int, dict[str, object]] = {}
    for one, _ in reversed(order):
        made[one.pid] = {
            "pid": one.pid,
            "name": proc.printable(one.comm),
            "state": one.state,
            "sid": one.sid,
            "pgid": one.pgid,
            "threads": one.threads,
            "orphan": proc.adopted(one, at) or None,
            "children": [made.pop(child.pid) for child in at.children(one.pid) if child.pid in made],
        }
    return made[process.pid]
