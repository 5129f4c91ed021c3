"""`scripts`: random fault scripts, on the command line."""

from __future__ import annotations

import argparse
import functools
import os
import time

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from host_sim.campaigns.scripts.bench import Bench
from host_sim.campaigns.scripts.campaign import Tally, run_all
from host_sim.console.mosquitto_broker import find_mosquitto
from host_sim.errors import SimError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `scripts` command."""
    parser = subparsers.add_parser(
        "scripts", help="random faults in a row of wakes, and one rule for the end"
    )
    parser.add_argument("--count", type=int, default=500, metavar="N", help="how many scripts")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first one")
    parser.add_argument("--seed", type=int, metavar="SEED", help="run only this one, and tell it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--broker", choices=("amqtt", "mosquitto"), default=best_broker())
    parser.set_defaults(run=_command)


def best_broker() -> str:
    """The faster one of those that are there."""
    return "mosquitto" if find_mosquitto() else "amqtt"


def _command(arguments: argparse.Namespace) -> int:
    terminal = Terminal()
    if arguments.seed is not None:
        return _tell(terminal, arguments.seed, arguments.broker)
    if arguments.count < 1 or arguments.jobs < 1:
        raise SimError("--count and --jobs are at least 1")
    tally = Tally()
    columns = (TextColumn("scripts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    seeds = list(range(arguments.first, arguments.first + arguments.count))
    began = time.monotonic()
    with Progress(*columns, console=terminal, transient=True) as bars:
        task = bars.add_task("scripts", total=len(seeds))
        bench = functools.partial(Bench, arguments.broker)
        for outcome in run_all(seeds, arguments.jobs, bench):
            tally.add(outcome)
            bars.advance(task)
            if outcome.wrong:
                text = f"FAILED seed {outcome.seed}: {'; '.join(outcome.wrong)}"
                terminal.print(text, style="red", highlight=False, markup=False)
    seconds = time.monotonic() - began
    text = f"{tally}; {seconds:.0f} s, {arguments.jobs} processes, {arguments.broker}"
    terminal.print(text, highlight=False, soft_wrap=True)
    if tally.failures:
        terminal.print("Have one told with: python -m host_sim scripts --seed SEED")
    return 1 if tally.failures else 0


def _tell(terminal: Terminal, seed: int, broker: str) -> int:
    with Bench(broker) as bench:
        outcome = bench.run(seed)
    terminal.print(outcome.story, highlight=False, markup=False, soft_wrap=True)
    for end in outcome.ends:
        terminal.print(f"end: {end}", highlight=False, markup=False)
    wrong = "; ".join(outcome.wrong)
    terminal.print(f"FAILED: {wrong}" if wrong else "nothing wrong", markup=False)
    return 1 if wrong else 0
