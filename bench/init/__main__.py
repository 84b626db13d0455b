"""The table of figures. Exit status: 0 when all could be measured, whatever came out; 1 when not."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.init import command
from bench.init.figures import Row
from bench.init.measures import MEASURES, Bench
from bench.init.programs import CHECKOUT, CannotMeasure, build_helpers, find


def main() -> int:
    parser = command.parser("bench.init", "sexton-init", MEASURES)
    parser.add_argument("--sexton-init", type=Path, default=CHECKOUT / "build" / "sexton-init", metavar="PATH")
    args = parser.parse_args()
    rows: list[Row] = []
    try:
        programs = find(args.sexton_init)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(programs, build_helpers(Path(folder)), args.quick)
            for name in args.only or MEASURES:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                rows += MEASURES[name](bench)
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    command.show(rows, programs, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
