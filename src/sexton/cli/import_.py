"""`sexton import FILE`: a sexton.toml from the file of another supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sexton.cli._table import plural
from sexton.errors import UsageError


@click.command("import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="sexton.toml",
    show_default=True,
    help="What to write; it must not be there yet. - is the standard output.",
)
def import_(source: Path, output: Path) -> None:
    """
    Write a sexton.toml from the file of another supervisor.

    FILE is a supervisord.conf, a Procfile, a docker-compose.yml, or an ecosystem.config.js or .json of pm2.
    What could not be carried over, or became different, is listed on standard error. A .js is run by node.
    """
    from sexton.supervise.importers import convert

    made = convert(source, Path("sexton.toml") if str(output) == "-" else output)
    if str(output) == "-":
        sys.stdout.write(made.text)
    else:
        try:
            with output.open("x", encoding="utf-8") as file:
                file.write(made.text)
        except FileExistsError:
            raise UsageError(f"{output} is there already: name another file with -o, or remove it") from None
        except OSError as error:
            raise UsageError(f"{output}: {(error.strerror or str(error)).lower()}") from None
        print(f"{output}: {plural(len(made.apps), 'app')}: {', '.join(made.apps)}", file=sys.stderr)
    if made.lost:
        print("Not carried over, or different:", file=sys.stderr)
    for line in made.lost:
        print(f"  {line}", file=sys.stderr)
