"""`sexton ps`: the processes, with what sexton knows of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from sexton import proc
from sexton.cli._scope import of, of_container, of_pid
from sexton.cli._table import Column, fold, plural, screen, size, span, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sexton.cli._names import Name

_WORDS = {
    "R": "running",
    "S": "sleeping",
    "D": "in an uninterruptible sleep",
    "Z": "zombie",
    "T": "stopped",
    "t": "stopped by a tracer",
    "I": "idle in the kernel",
    "X": "dead",
    "P": "parked",
}
_STYLES = {"Z": ("red",), "D": ("magenta",), "T": ("yellow",), "t": ("yellow",)}


class View(NamedTuple):
    """What all columns draw from."""

    at: proc.Snapshot
    containers: dict[int, proc.Container]
    culprits: dict[int, tuple[proc.Process, ...]]
    names: dict[str, Name]


class Cell(NamedTuple):
    """A column of `ps`: how it is headed, and what it says of a process."""

    column: Column
    value: Callable[[proc.Process, View], str]


def _status(process: proc.Process, view: View, name: str) -> str:
    status = proc.status(process.pid, view.at.root)
    if isinstance(status, proc.Missing):
        return "-"
    if name == "nspid":
        return " ".join(map(str, status.ns_pids))
    value = getattr(status, name)
    return str(value) if value or name != "tracer" else ""


def _signals(process: proc.Process, view: View, name: str) -> str:
    """The signals of a mask by their names; those without one by number."""
    import signal

    status = proc.status(process.pid, view.at.root)
    if isinstance(status, proc.Missing):
        return "-"
    mask, names = getattr(status, name), {one.value: one.name[3:] for one in signal.Signals}
    return ",".join(names.get(number, str(number)) for number in range(1, 65) if proc.has(mask, number))


def _cgroup(process: proc.Process, view: View) -> str:
    """Its path in version 2; in version 1 the longest, since it may be at the root of some hierarchies."""
    groups = proc.cgroups(process.pid, view.at.root)
    if isinstance(groups, proc.Missing):
        return "-"
    paths = [one.path for one in groups]
    return proc.printable(max(paths, key=len, default="-"))


def _user(process: proc.Process, view: View) -> str:
    import pwd

    ids = proc.ids(process.pid, view.at.root)
    if isinstance(ids, proc.Missing):
        return "-"
    try:
        return pwd.getpwuid(ids[0]).pw_name
    except KeyError:
        return str(ids[0])


def _args(process: proc.Process, view: View) -> str:
    if process.state == "D":  # the read could wait for what the process waits for
        return f"[{proc.printable(process.comm)}]"
    words = proc.cmdline(process.pid, view.at.root)
    if isinstance(words, proc.Missing) or not words:
        return f"[{proc.printable(process.comm)}]"
    return proc.printable(" ".join(words).strip())


def _container(process: proc.Process, view: View) -> str:
    one = view.containers.get(process.pid)
    if one is None:
        return ""
    if one.id in view.names:
        return proc.printable(str(view.names[one.id]))
    return f"{one.engine}:{one.short}" if one.engine else one.short


def _name(one: proc.Container, view: View) -> str | None:
    return str(view.names[one.id]) if one.id in view.names else None


def _what(process: proc.Process, view: View) -> str:
    """What sexton knows, in a few words."""
    words = []
    if process.zombie:
        parent = view.at.parent(process)
        words.append(f"zombie of {parent.name}" if parent else "zombie of a parent outside")
        if process.threads > 1:
            words.append(f"{process.threads - 1} of its threads live on")
    elif process.pid in view.culprits:
        words.append(f"culprit of {plural(len(view.culprits[process.pid]), 'zombie')}")
    if proc.adopted(process, view.at):
        words.append("orphan")
    return ", ".join(words)


CELLS: dict[str, Cell] = {
    "pid": Cell(Column("PID", right=True), lambda p, _: str(p.pid)),
    "ppid": Cell(Column("PPID", right=True), lambda p, _: str(p.ppid)),
    "pgid": Cell(Column("PGID", right=True), lambda p, _: str(p.pgid)),
    "sid": Cell(Column("SID", right=True), lambda p, _: str(p.sid)),
    "nspid": Cell(Column("NSPID"), lambda p, v: _status(p, v, "nspid")),
    "state": Cell(Column("S"), lambda p, _: p.state),
    "threads": Cell(Column("THREADS", right=True), lambda p, _: str(p.threads)),
    "age": Cell(Column("AGE", right=True), lambda p, v: span(v.at.age(p))),
    "rss": Cell(Column("RSS", right=True), lambda p, _: size(p.rss)),
    "user": Cell(Column("USER"), _user),
    "tracer": Cell(Column("TRACER", right=True), lambda p, v: _status(p, v, "tracer")),
    "caught": Cell(Column("CAUGHT", elastic=True), lambda p, v: _signals(p, v, "caught")),
    "ignored": Cell(Column("IGNORED", elastic=True), lambda p, v: _signals(p, v, "ignored")),
    "blocked": Cell(Column("BLOCKED", elastic=True), lambda p, v: _signals(p, v, "blocked")),
    "cgroup": Cell(Column("CGROUP", elastic=True), _cgroup),
    "exit-signal": Cell(Column("EXITSIG", right=True), lambda p, _: str(p.exit_signal)),
    "wchan": Cell(Column("WCHAN"), lambda p, v: _text(proc.wchan(p.pid, v.at.root))),
    "container": Cell(Column("CONTAINER", elastic=True), _container),
    "name": Cell(Column("NAME", elastic=True), lambda p, _: proc.printable(p.comm)),
    "args": Cell(Column("COMMAND", elastic=True), _args),
    "what": Cell(Column("WHAT", elastic=True), _what),
}
_DEFAULT = ("pid", "ppid", "state", "threads", "age", "rss", "name", "what")


def _text(value: str | proc.Missing) -> str:
    return "-" if isinstance(value, proc.Missing) else value


def _columns(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",")) if value else ()
    for name in names:
        if name not in CELLS:
            raise click.BadParameter(f"{name!r} is no column; there are {', '.join(CELLS)}")
    return names


@click.command(short_help="Show processes, and who neglects the dead.")
@click.option("--zombies", is_flag=True, help="Only zombies.")
@click.option("--orphans", is_flag=True, help="Only processes that were not forked by their parent.")
@click.option(
    "--container", metavar="C", help="Only the processes of container or pod C: its name, or the beginning of its id."
)
@click.option("-p", "--pid", type=int, metavar="P", help="Only process P and its descendants.")
@click.option("--columns", callback=_columns, metavar="A,B", help=f"What to show of each: {', '.join(CELLS)}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as sexton-ps(1) describes it.")
@click.argument("target", required=False, metavar="[PID|CONTAINER]")
def ps(
    *,
    target: str | None,
    zombies: bool,
    orphans: bool,
    container: str | None,
    pid: int | None,
    columns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show processes, who neglects the dead among them, and how many are in each state.

    PID and CONTAINER: as with --pid and --container.
    """
    at = proc.snapshot()
    wanted = frozenset(at.processes) if pid is None else of_pid(at, pid)
    containers = proc.containers(at)
    view = View(at, containers, at.culprits(), _named(at, containers))
    if target is not None:
        wanted &= of(at, target, view.containers)
    if container is not None:
        wanted &= of_container(at, view.containers, container)
    shown = [process for process in at if process.pid in wanted]
    counted = shown
    if zombies:
        shown = [process for process in shown if process.zombie]
    if orphans:
        shown = [process for process in shown if proc.adopted(process, at)]
    if as_json:
        _print_json(shown, counted, view)
        return
    shown = [process for process in shown if not process.kernel]
    boxed = container is None and any(process.pid in view.containers for process in shown)
    names = columns or (*_DEFAULT[:6], *(("container",) if boxed else ()), *_DEFAULT[6:])
    on = screen()
    rows = (
        (
            [CELLS[name].value(process, view) for name in names],
            _STYLES.get(process.state, ("bold",) if process.pid in view.culprits else ()),
        )
        for process in shown
    )
    print("\n".join(table([CELLS[name].column for name in names], rows, on)))
    summary = _summary(counted, view)
    print(on.paint(fold(summary, on), "dim"))
    for line in blind(at):
        print(line, file=sys.stderr)


def _named(at: proc.Snapshot, containers: dict[int, proc.Container]) -> dict[str, Name]:
    if not containers:
        return {}
    from sexton.cli import _names  # which takes some milliseconds to import

    return _names.read(at, containers)


def _states(counted: Sequence[proc.Process]) -> dict[str, int]:
    found: dict[str, int] = dict.fromkeys("RSDZTI", 0)
    for process in counted:
        found[process.state] = found.get(process.state, 0) + 1
    return found


def _summary(counted: Sequence[proc.Process], view: View) -> str:
    states = _states(counted)
    kernel = sum(process.kernel for process in counted)
    orphans = sum(1 for process in counted if not process.zombie and proc.adopted(process, view.at))
    parts = [
        f"{plural(len(counted), 'process', 'processes')}" + (f" ({kernel} of the kernel)" if kernel else ""),
        " ".join(f"{state} {count}" for state, count in states.items()),
        plural(orphans, "living orphan"),
    ]
    return "; ".join(parts)


def blind(at: proc.Snapshot) -> list[str]:
    """What the table cannot know, for the person to know."""
    lines = []
    if at.hidepid:
        lines.append(f"sexton: {at.root} is mounted with hidepid={at.hidepid}: other users' processes are hidden")
    if at.unreadable:
        lines.append(f"sexton: {plural(len(at.unreadable), 'process', 'processes')} may not be looked at")
    return lines


def _print_json(shown: Sequence[proc.Process], counted: Sequence[proc.Process], view: View) -> None:
    import json

    document = {
        "schema": 1,
        "states": _states(counted),
        "hidepid": view.at.hidepid,
        "unreadable": list(view.at.unreadable),
        "processes": [_object(process, view) for process in shown],
    }
    print(json.dumps(document))


def _object(process: proc.Process, view: View) -> dict[str, object]:
    one = view.containers.get(process.pid)
    return {
        "pid": process.pid,
        "ppid": process.ppid,
        "pgid": process.pgid,
        "sid": process.sid,
        "state": process.state,
        "state_name": _WORDS.get(process.state, ""),
        "name": proc.printable(process.comm),
        "threads": process.threads,
        "age": round(view.at.age(process), 2),
        "rss": process.rss,
        "exit_signal": process.exit_signal,
        "kernel": process.kernel,
        "zombie": process.zombie,
        "culprit": process.ppid if process.zombie else None,
        "zombies": len(view.culprits.get(process.pid, ())),
        "orphan": proc.adopted(process, view.at) or None,
        "container": {**one._asdict(), "name": _name(one, view)} if one else None,
    }
