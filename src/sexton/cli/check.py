"""`sexton check -- COMMAND`: is it fit to be PID 1? Found out by trying."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sexton.doctor.check import Report

_STYLES = {"yes": ("green",), "no": ("red",), "partly": ("yellow",), "none": ("dim",)}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--image-rootfs", metavar="DIR", default="", help="Try it with DIR as its root directory.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it has to end on SIGTERM.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as sexton-check(1) describes it.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def check(context: click.Context, *, image_rootfs: str, grace: float, as_json: bool, command: tuple[str, ...]) -> None:
    """Find out whether COMMAND is fit to be PID 1 of a container.

    It is started several times, each time as PID 1 of a private PID namespace, given orphans and
    signals, and watched. Ends with 0 when it is fit as it is, 1 when not, 2 when it could not be tried.
    """
    from sexton.doctor.check import check as find_out
    from sexton.doctor.check_space import Setting

    if image_rootfs and not os.path.isdir(image_rootfs):
        raise click.UsageError(f"{image_rootfs} is no directory")
    rootfs = os.path.realpath(image_rootfs) if image_rootfs else ""
    report = find_out(Setting(command, rootfs), grace)
    if as_json:
        _print_json(report)
    else:
        _print(report)
    context.exit(0 if report.fit else 1)


def _print(report: Report) -> None:
    import shlex

    from sexton.cli._table import Column, fold, screen, table
    from sexton.doctor.check import DEADLINES

    on = screen()
    print(on.paint(f"As PID 1: {shlex.join(report.command)}", "bold"))
    columns = (Column("QUESTION"), Column("ANSWER"), Column("WHY", elastic=True))
    before = max(len(one.question) for one in report.verdicts) + len("  ANSWER  ")
    rows: list[tuple[tuple[str, str, str], tuple[str, ...]]] = []
    for one in report.verdicts:  # the reasons are what it is about, so they are folded and not cut
        first, *rest = fold(one.why, on._replace(width=on.width and on.width - before), "").split("\n")
        rows += [((one.question, one.answer, first), _STYLES[one.answer])]
        rows += [(("", "", line), _STYLES[one.answer]) for line in rest]
    print("\n".join(table(columns, rows, on)))
    print(f"\n{on.paint(report.advice.text, 'bold')}\n{fold(report.advice.why, on, '')}")
    waited = ", ".join(f"{name} {seconds:g} s" for name, seconds in DEADLINES.items())
    print(on.paint(fold(f"Waited at most: grace {report.grace:g} s, {waited}.", on), "dim"))


def _print_json(report: Report) -> None:
    import json

    from sexton.doctor.check import DEADLINES

    print(
        json.dumps(
            {
                "command": report.command,
                "fit": report.fit,
                "verdicts": [one._asdict() for one in report.verdicts],
                "advice": report.advice._asdict(),
                "deadlines": {"grace": report.grace, **DEADLINES},
            }
        )
    )
