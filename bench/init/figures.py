"""What a measure gives: a row of figures, one a program, and the bar that sexton's must reach."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.init.programs import SEXTON

BEST_PEER = "best peer"


@dataclass(frozen=True)
class Figure:
    """A median with its quartiles, or a count; `text` stands for it where there is nothing to compare."""

    value: float
    low: float | None = None
    high: float | None = None
    text: str | None = None


def median(samples: Sequence[float]) -> Figure:
    """The median, and the quartiles around it."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Figure(middle, low, high)


@dataclass(frozen=True)
class Bar:
    """At most `limit`: of the figure itself, or of its ratio to that of `to` (a program, BEST_PEER or a bare loop)."""

    limit: float
    to: str | None = None


@dataclass(frozen=True)
class Row:
    """One measure. `short`: its name in 23 columns; `bare`: the same without any init, where there is such a thing."""

    key: str
    short: str
    title: str
    unit: str
    figures: dict[str, Figure]
    bar: Bar | None = None
    bare: Figure | None = None
    digits: int = 0

    @property
    def ratio(self) -> float | None:
        """Sexton's figure by the one that the bar names."""
        if not self.bar or not self.bar.to:
            return None
        if self.bar.to == BEST_PEER:
            other = min(figure.value for name, figure in self.figures.items() if name != SEXTON)
        elif self.bar.to in self.figures:
            other = self.figures[self.bar.to].value
        else:
            assert self.bare
            other = self.bare.value
        return self.figures[SEXTON].value / other

    @property
    def ok(self) -> bool | None:
        """None where there is no bar."""
        if not self.bar:
            return None
        reached = self.ratio if self.ratio is not None else self.figures[SEXTON].value
        return reached <= self.bar.limit
