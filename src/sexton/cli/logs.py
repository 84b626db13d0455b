"""`sexton logs`: what the instances wrote, and what they write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sexton.cli._lines import Prefixes
from sexton.cli._table import screen
from sexton.cli._up import chosen, client
from sexton.errors import NotRunning, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sexton.supervise import models
    from sexton.supervise.config import Config


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Stay, and print what comes.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="The last N lines, of all together.",
)
@click.option(
    "-t", "--timestamps", is_flag=True, help="Each line with the time when it was written, or - if that is not known."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with its time and its stream.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file; otherwise sexton.toml here or in the nearest directory above.",
)
@click.argument("targets", nargs=-1, metavar="[APP[.N]]...")
def logs(
    *, follow: bool, lines: int, timestamps: bool, as_json: bool, file: Path | None, targets: tuple[str, ...]
) -> None:
    """Print the output of all apps, or of these.

    Without a supervisor it is read from the log files, and following ends with 3.
    """
    for target in targets:
        if target.endswith(".toml"):
            raise UsageError(f"{target!r}: expected an app or an instance; a file is named by --file, and -f follows")
    supervisor = client(file)
    try:
        names = [one.name for app in supervisor.status().apps for one in app.instances]
        found = supervisor.logs(targets or ("all",), lines, follow=follow)
        _print(found, names, timestamps=timestamps, as_json=as_json)
    except NotRunning as error:
        written = _from_files(chosen(file), targets, lines)
        _print(written, (), timestamps=timestamps, as_json=as_json)
        if follow:
            raise
        if lines and not written:
            print(f"sexton: nothing is in the log files, and {error}", file=sys.stderr)


def _print(lines: Iterable[models.Line], names: Iterable[str], *, timestamps: bool, as_json: bool) -> None:
    if as_json:
        import msgspec

        for line in lines:
            print(msgspec.json.encode(line).decode(), flush=True)
        return
    if not names:
        lines = list(lines)
        names = sorted({line.instance for line in lines})
    prefixes = Prefixes(names, screen(), timestamps=timestamps)
    said = not timestamps
    for line in lines:
        if not said and line.instance and not line.time:
            said = True
            text = 'a text file does not say when a line was written; with log = { format = "json" } it would'
            print(f"sexton: -: {text}", file=sys.stderr, flush=True)
        sys.stdout.write(prefixes.line(line).encode(errors="replace").decode(errors="replace"))
        sys.stdout.flush()


def _from_files(path: Path, targets: tuple[str, ...], count: int) -> list[models.Line]:
    from sexton.supervise import logfile
    from sexton.supervise.load import load

    config = load(path)
    found: list[models.Line] = []
    for name, app in _instances(config, targets).items():
        found += logfile.tail(logfile.path_of(Path(config.state), name, config.apps[app].log), name, count)
    # Of what has no time nobody knows what came last.
    timed = sorted((line for line in found if line.time), key=lambda line: line.time)
    return [line for line in found if not line.time] + (timed[-count:] if count else [])


def _instances(config: Config, targets: tuple[str, ...]) -> dict[str, str]:
    """The instances that are meant, those too that once were there; each with its app. Raises UsageError."""
    from sexton.supervise import logfile
    from sexton.supervise.targets import unknown

    found: dict[str, str] = {}
    for target in targets or ("all",):
        app, _, number = target.partition(".")
        if target != "all" and (app not in config.apps or not (number.isdecimal() or target == app)):
            raise unknown(target, config.apps, ())
        for one in config.apps if target == "all" else [app]:
            here = logfile.path_of(Path(config.state), one, config.apps[one].log).parent
            written = {path.stem for path in here.glob(f"{one}.*.log") if path.stem[len(one) + 1 :].isdecimal()}
            names = [target] if number else sorted(written, key=lambda name: int(name.rpartition(".")[2]))
            found |= dict.fromkeys(names, one)
    return found
