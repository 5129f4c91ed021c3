"""`bench`: every figure beside its floor, as tables and plots."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console as Terminal

from host_sim import files
from host_sim.bench import patches, report, speed
from host_sim.bench.laboratory import Laboratory
from host_sim.errors import SimError

DOCS = Path(__file__).parents[2] / "docs"


@dataclass
class Part:
    """What one part came to: tables by name of their place in the page, and plots by file name."""

    tables: dict[str, str] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)


PARTS: dict[str, Callable[[Laboratory], tuple[dict[str, str], dict[str, str]]]] = {
    "flash": report.flash,
    "growth": report.growth,
    "code": report.code,
    "heap": report.heap,
    "heap32": report.heap32,
    "peaks": report.peaks,
    "wear": report.wear,
    "compilers": report.compilers,
    "time": speed.time,
    "signed": report.signed,
    "chip": report.chip,
    "patches": patches.patches,
}


@click.command(help=f"Measure flash, heap, code, wear and time. PART is of {', '.join(PARTS)}.")
@click.argument("parts", nargs=-1, metavar="[PART]...")
@click.option("--write", "writes", is_flag=True, help="put the results into docs/")
def bench(parts: tuple[str, ...], writes: bool) -> int:
    """`bench`."""
    return _command(parts, writes)


def _command(parts: Sequence[str], writes: bool) -> int:
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise SimError(f"no part {min(unknown)}: choose from {', '.join(PARTS)}")
    terminal = Terminal()
    part = Part()
    with Laboratory() as laboratory:
        for name in parts or PARTS:
            with terminal.status(f"measuring {name} …"):
                tables, plots = PARTS[name](laboratory)
            for text in tables.values():
                terminal.print(text + "\n", highlight=False, soft_wrap=True, markup=False)
            part.tables |= tables
            part.plots |= plots
    if writes:
        write(part, DOCS / "benchmarks.md")
    return 0


def write(part: Part, page: Path) -> None:
    """Put tables between their marks in a page, and plots beside it."""
    text = page.read_text(encoding="utf-8")
    for name, table in part.tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        new = f"{begin}\n{table}\n{end}"
        text, found = re.subn(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
        if not found:
            raise SimError(f"{page} has no place for {name}")
    files.write(page, text)
    for file, content in part.plots.items():
        files.write(page.parent / file, content)
