"""The table of figures. Exit status: 0 when all could be measured, whatever came out; 1 when not."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.init import table
from bench.init.figures import Row
from bench.init.programs import CannotMeasure, compile_helper
from bench.supervise.measures import MEASURES, Bench
from bench.supervise.peers import SUPERVISORS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.supervise", description="sexton up beside its peers, in one run"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="the table for the README")
    form.add_argument("--json", action="store_true", help="every figure, with its quartiles")
    parser.add_argument(
        "--quick", action="store_true", help="few of everything: does it work? The figures mean nothing"
    )
    parser.add_argument("--only", action="append", choices=MEASURES, help="this measure alone; repeatable")
    parser.add_argument("--of", action="append", choices=SUPERVISORS, help="of this supervisor alone; repeatable")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    rows: list[Row] = []
    try:
        supervisors = [SUPERVISORS[name]() for name in args.of or SUPERVISORS]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            helper = compile_helper(Path(__file__).with_name("app.c"), Path(folder) / "app")
            bench = Bench(supervisors, helper, Path(folder), args.quick)
            for name in args.only or MEASURES:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                rows += MEASURES[name](bench)
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    programs = [supervisor.program for supervisor in supervisors]
    if args.json:
        print(table.as_json(rows, programs))
    elif args.markdown:
        print(table.markdown(rows, programs))
    else:
        print(f"{table.machine(programs)}\n\n{table.terminal(rows)}")
    missed = [row.title for row in rows if row.ok is False]
    print("\nMissed: " + "; ".join(missed) + "." if missed else "\nEvery bar is reached.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
