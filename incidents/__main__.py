""".venv/bin/python -m incidents [--sexton-init PATH] [NUMBER...]"""

from __future__ import annotations

import argparse
from pathlib import Path

from incidents.replaying import FOLDERS, RELEASE, load, show


def main() -> None:
    """Replay the chosen incidents, print their tables, and fail where a claim does not hold."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m incidents", description="Replay the production incidents."
    )
    parser.add_argument("number", nargs="*", type=int, help="which; all of them without")
    parser.add_argument("--sexton-init", type=Path, default=RELEASE, metavar="PATH", help=f"default: {RELEASE}")
    options = parser.parse_args()
    if not options.sexton_init.is_file():
        parser.error(f"{options.sexton_init} is not there: run `make build`")
    chosen = [folder for folder in FOLDERS if not options.number or int(folder.name[:2]) in options.number]
    if len(chosen) < len(options.number):
        parser.error(f"there are {', '.join(folder.name for folder in FOLDERS)}")
    for folder in chosen:
        replay = load(folder)
        print(f"{folder.name}: {replay.TITLE}\n")
        table = replay.replay(options.sexton_init.absolute())
        print(show(table), "\n")
        replay.check(table)


main()
