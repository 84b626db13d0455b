"""The table of figures. Exit status: 0 when all could be measured, whatever came out; 1 when not."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.init import table
from bench.init.figures import Row
from bench.init.measures import MEASURES, Bench
from bench.init.programs import CHECKOUT, CannotMeasure, build_helpers, find


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.init", description="sexton-init beside its peers, in one run"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="the table for the README")
    form.add_argument("--json", action="store_true", help="every figure, with its quartiles")
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it work? The figures mean nothing")
    parser.add_argument("--only", action="append", choices=MEASURES, help="this measure alone; repeatable")
    parser.add_argument("--sexton-init", type=Path, default=CHECKOUT / "build" / "sexton-init", metavar="PATH")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        programs = find(args.sexton_init)
        rows: list[Row] = []
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(programs, build_helpers(Path(folder)), args.quick)
            for name in args.only or MEASURES:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                rows += MEASURES[name](bench)
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(table.as_json(rows, programs))
        return 0
    if args.markdown:
        print(table.markdown(rows, programs))
    else:
        print(table.machine(programs))
        print()
        print(table.terminal(rows))
    missed = [row.title for row in rows if row.ok is False]
    said = "Missed: " + "; ".join(missed) + "." if missed else "Every bar is reached."
    print("\n" + said, file=sys.stderr if args.markdown else sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
