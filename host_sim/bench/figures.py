"""A figure that was required, what was reached, and its floor, as rows of a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Figure:
    """One row. `met`: None where nothing is required."""

    what: str
    required: str
    reached: str
    floor: str = "–"
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """A word for the last column."""
        return {True: "met", False: "**not met**", None: ""}[self.met]


def at_most(
    what: str, limit: float, value: float, unit: str = "", floor: str = "–", of: str = ""
) -> Figure:
    """A figure with a highest value. of: what value is a multiple of."""
    form = "{:.3g}" if isinstance(value, float) else "{:,}"
    multiple = f" × {of}" if of else unit and f" {unit}"
    reached = form.format(value) + multiple
    return Figure(what, f"≤ {limit:,}{multiple}", reached, floor, value <= limit)


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    names = list(header)
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def figures_table(figures: Iterable[Figure]) -> str:
    """The table of figures."""
    return table(
        ("figure", "required", "reached", "floor", "verdict"),
        ((f.what, f.required, f.reached, f.floor, f.verdict) for f in figures),
    )
