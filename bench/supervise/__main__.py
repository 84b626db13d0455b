"""The table of figures. Exit status: 0 when all could be measured, whatever came out; 1 when not."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.init import command
from bench.init.figures import Row
from bench.init.programs import CannotMeasure, compile_helper
from bench.supervise.measures import MEASURES, Bench
from bench.supervise.peers import SUPERVISORS


def main() -> int:
    parser = command.parser("bench.supervise", "sexton up", MEASURES)
    parser.add_argument("--of", action="append", choices=SUPERVISORS, help="of this supervisor alone; repeatable")
    args = parser.parse_args()
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
    command.show(rows, [supervisor.program for supervisor in supervisors], args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
