"""The command line of a bench whose measures are rows: what it takes, and how it shows them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from bench.init import table
from bench.init.figures import Row
from bench.init.programs import Program


def parser(module: str, subject: str, measures: Iterable[str]) -> argparse.ArgumentParser:
    """What every such bench takes: `subject` beside its peers."""
    found = argparse.ArgumentParser(prog=f"python -m {module}", description=f"{subject} beside its peers, in one run")
    form = found.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="the table for the README")
    form.add_argument("--json", action="store_true", help="every figure, with its quartiles")
    found.add_argument("--quick", action="store_true", help="few of everything: does it work? The figures mean nothing")
    found.add_argument("--only", action="append", choices=measures, help="this measure alone; repeatable")
    return found


def show(rows: list[Row], programs: list[Program], args: argparse.Namespace) -> None:
    """The table on stdout; what it says of the bars stands below it for a person alone."""
    if args.json:
        print(table.as_json(rows, programs))
        return
    if args.markdown:
        print(table.markdown(rows, programs))
    else:
        print(f"{table.machine(programs)}\n\n{table.terminal(rows)}")
    missed = [row.title for row in rows if row.ok is False]
    said = f"Missed: {'; '.join(missed)}." if missed else "Every bar is reached."
    print(f"\n{said}", file=sys.stderr if args.markdown else sys.stdout)
