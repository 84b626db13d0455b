"""The rows as a table of 80 columns, as Markdown, and as JSON."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from bench.init.figures import BEST_PEER, Figure, Row
from bench.init.programs import SEXTON, Program, version

WIDTH = 9  # of a program's column: with four of them, and a space between any two, the table has 80


def machine(programs: list[Program]) -> str:
    """What it was measured on, in one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{program.name} {version(program)}" for program in programs)
    load = f"load {os.getloadavg()[0]:.1f}"
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, {load}; {versions}"


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def figure_text(row: Row, name: str) -> str:
    figure = row.figures[name]
    return figure.text if figure.text is not None else number(figure.value, row.digits)


def spread(row: Row, figure: Figure) -> str:
    """The quartiles, or nothing where it was counted."""
    if figure.low is None or figure.high is None or figure.text is not None:
        return ""
    return f"{number(figure.low, row.digits)}-{number(figure.high, row.digits)}"


def bar_text(row: Row) -> str:
    if not row.bar:
        return "-"
    return f"{row.bar.limit:g}" + ("x" if row.bar.to else "")


def verdict(row: Row) -> str:
    return {None: "", True: "ok", False: "FAIL"}[row.ok]


def ratio_text(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f}"


def terminal(rows: list[Row]) -> str:
    """80 columns; under a row of medians its quartiles."""
    names = list(rows[0].figures) if rows else []
    widths = (22, 6, *(WIDTH for _ in names), 5, 4)

    def line(*cells: str) -> str:
        first, *rest = (
            f"{cell:<{width}}" if not nth else f"{cell:>{width}}"
            for nth, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return " ".join([first, *rest]).rstrip()

    lines = [line("median", "bar", *names, "ratio", ""), "-" * 80]
    for row in rows:
        lines.append(
            line(row.short, bar_text(row), *(figure_text(row, name) for name in names), ratio_text(row), verdict(row))
        )
        spreads = [spread(row, row.figures[name]) for name in names]
        bare = f"  alone {number(row.bare.value, row.digits)}" if row.bare else ""
        if any(spreads) or bare:
            lines.append(line(bare, "", *spreads, "", ""))
    return "\n".join(lines)


def against(row: Row) -> str:
    """What the bar asks for, in words."""
    if not row.bar:
        return ""
    if not row.bar.to:
        return f"≤ {row.bar.limit:g} {row.unit}".rstrip()
    to = {BEST_PEER: "the best peer's", "bare": "a bare loop's"}.get(row.bar.to, f"{row.bar.to}'s")
    return f"≤ {row.bar.limit:g} of {to}"


def markdown(rows: list[Row], programs: list[Program]) -> str:
    """For the README."""
    names = [program.name for program in programs]
    heads = ["measure", "bar", *("sexton-init" if name == SEXTON else name for name in names), "ratio", ""]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "--:|" * (len(names) + 1) + "---|"]
    for row in rows:
        title = row.title + (f" (alone: {number(row.bare.value, row.digits)} {row.unit})" if row.bare else "")
        cells = []
        for name in names:
            text = figure_text(row, name)
            if row.figures[name].text is None and row.unit:
                text += f" {row.unit}"
            cells.append(text)
        lines.append("| " + " | ".join([title, against(row), *cells, ratio_text(row), verdict(row)]) + " |")
    return "\n".join([*lines, "", f"Medians of one run of `make bench`. {machine(programs)}."])


def as_json(rows: list[Row], programs: list[Program]) -> str:
    """Everything, quartiles too."""
    return json.dumps(
        {
            "machine": machine(programs),
            "rows": [
                {
                    "key": row.key,
                    "title": row.title,
                    "unit": row.unit,
                    "bar": against(row),
                    "figures": {name: vars(figure) for name, figure in row.figures.items()},
                    "bare": vars(row.bare) if row.bare else None,
                    "ratio": row.ratio,
                    "ok": row.ok,
                }
                for row in rows
            ],
        },
        indent=2,
    )
