"""`orders`: requests that are given, withdrawn and replaced at any moment, on the command line."""

from __future__ import annotations

import argparse
import os
import time

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from host_sim.campaigns.orders.bench import Bench
from host_sim.campaigns.scripts.campaign import Tally, run_all
from host_sim.errors import SimError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `orders` command."""
    parser = subparsers.add_parser(
        "orders", help="cancel and replace at any moment, with power cuts, and one rule for it"
    )
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="how many scripts")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first one")
    parser.add_argument("--seed", type=int, metavar="SEED", help="run only this one, and tell it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    terminal = Terminal(highlight=False, markup=False, soft_wrap=True)
    if arguments.seed is not None:
        return _tell(terminal, arguments.seed)
    if arguments.count < 1 or arguments.jobs < 1:
        raise SimError("--count and --jobs are at least 1")
    tally = Tally()
    columns = (TextColumn("scripts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    seeds = list(range(arguments.first, arguments.first + arguments.count))
    began = time.monotonic()
    with Progress(*columns, console=terminal, transient=True) as bars:
        task = bars.add_task("scripts", total=len(seeds))
        for outcome in run_all(seeds, arguments.jobs, Bench):
            tally.add(outcome)
            bars.advance(task)
            if outcome.wrong:
                text = f"FAILED seed {outcome.seed}: {'; '.join(outcome.wrong)}"
                terminal.print(text, style="red")
    terminal.print(f"{tally}; {time.monotonic() - began:.0f} s, {arguments.jobs} processes")
    if tally.failures:
        terminal.print("Have one told with: python -m host_sim orders --seed SEED")
    return 1 if tally.failures else 0


def _tell(terminal: Terminal, seed: int) -> int:
    with Bench() as bench:
        outcome = bench.run(seed)
    terminal.print(outcome.story)
    for end in outcome.ends:
        terminal.print(f"end: {end}")
    wrong = "; ".join(outcome.wrong)
    terminal.print(f"FAILED: {wrong}" if wrong else "nothing wrong")
    return 1 if wrong else 0
