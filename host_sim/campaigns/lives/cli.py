"""`lives`: random lives of a node, on the command line."""

from __future__ import annotations

import argparse
import functools
import os
import re
import time
from pathlib import Path

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from host_sim.campaigns.lives.bench import Bench, shrink
from host_sim.campaigns.lives.campaign import Tally
from host_sim.campaigns.lives.life import make
from host_sim.campaigns.scripts.campaign import run_all
from host_sim.errors import SimError
from host_sim.node import flash

PAGE = Path(__file__).parents[3] / "docs" / "lives.md"
TABLE = re.compile(r"(?<=<!-- lives -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `lives` command."""
    parser = subparsers.add_parser(
        "lives", help="random lives of a node, watched by a model that knows what is right"
    )
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="how many lives")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first one")
    parser.add_argument("--seed", type=int, metavar="SEED", help="live only this, and tell it")
    parser.add_argument(
        "--shrink", type=int, metavar="SEED", help="leave out of it what it does not need to fail"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--firmware", type=Path, default=flash.FIRMWARE, metavar="DIR", help="another agent"
    )
    parser.add_argument("--write", action="store_true", help="put the result into docs/lives.md")
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    terminal = Terminal(highlight=False, markup=False, soft_wrap=True)
    if arguments.shrink is not None:
        return _shrink(terminal, arguments.shrink, arguments.firmware)
    if arguments.seed is not None:
        return _tell(terminal, arguments.seed, arguments.firmware)
    if arguments.count < 1 or arguments.jobs < 1:
        raise SimError("--count and --jobs are at least 1")
    tally = Tally()
    seeds = list(range(arguments.first, arguments.first + arguments.count))
    columns = (TextColumn("lives"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.monotonic()
    with Progress(*columns, console=terminal, transient=True) as bars:
        task = bars.add_task("lives", total=len(seeds))
        bench = functools.partial(Bench, arguments.firmware)
        for outcome in run_all(seeds, arguments.jobs, bench):
            tally.add(outcome)
            bars.advance(task)
            if outcome.wrong:
                text = f"FAILED seed {outcome.seed}: {'; '.join(outcome.wrong)}"
                terminal.print(text, style="red")
    for what, often in tally.rows():
        terminal.print(f"{what}: {often}")
    terminal.print(f"{time.monotonic() - began:.0f} s, {arguments.jobs} processes")
    for kind, failed in tally.kinds().items():
        terminal.print(f"{len(failed)} x {kind}: seeds {', '.join(map(str, sorted(failed)))}")
    if tally.failures:
        terminal.print(
            "Have one told, or shortened: python -m host_sim lives --seed|--shrink SEED"
        )
    elif arguments.write:
        write(tally)
    return 1 if tally.failures else 0


def write(tally: Tally) -> None:
    """Put the table into its page."""
    page = PAGE.read_text()
    PAGE.write_text(TABLE.sub(lambda _: tally.table(), page))


def _tell(terminal: Terminal, seed: int, firmware: Path) -> int:
    with Bench(firmware) as bench:
        outcome = bench.run(seed)
    terminal.print(outcome.story)
    wrong = "; ".join(outcome.wrong)
    terminal.print(f"FAILED: {wrong}" if wrong else "nothing wrong")
    return 1 if wrong else 0


def _shrink(terminal: Terminal, seed: int, firmware: Path) -> int:
    with Bench(firmware) as bench:
        life = shrink(bench, make(seed, firmware), terminal.print)
        outcome = bench.live(life)
    terminal.print(outcome.story)
    terminal.print(f"FAILED: {'; '.join(outcome.wrong)}")
    return 1
