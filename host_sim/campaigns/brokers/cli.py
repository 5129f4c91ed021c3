"""`brokers`: the matrix on the command line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import click

from host_sim.campaigns.brokers.facts import table
from host_sim.campaigns.brokers.matrix import CELLS, HEAD, Cell, Result, choose, run_cell, versions
from host_sim.campaigns.brokers.story import Plan
from host_sim.campaigns.campaign import Bars, terminal
from host_sim.command import options
from host_sim.errors import SimError

_SHOWN = 20


@click.command(
    help="What a node hears on each broker, and how long it waits for it: idle, request, clear, "
    "report, cancel, replace, on real brokers."
)
@click.option("--cell", multiple=True, metavar="NAME", help="only nats/tls, or all of nats")
@click.option("--list", is_flag=True, help="list the names for --cell")
@click.option("--requests", type=int, default=200, metavar="N", help="in each row")
@click.option("--nodes", type=int, metavar="N", help="default: one for 20 requests")
@click.option(
    "--others", type=int, metavar="N", help="cancels, replaces and updates; default: one a node"
)
@click.option("--learn", type=int, metavar="N", help="wakes before anything is measured")
@click.option("--jobs", type=int, default=3, metavar="N", help="rows at a time")
@click.option("--facts", is_flag=True, help="only tell what else each broker does")
def brokers(**given: Any) -> int:
    """`brokers`."""
    return _command(options(**given))


def _command(arguments: SimpleNamespace) -> int:
    if arguments.list:
        for cell in CELLS:
            print(cell)
        return 0
    if arguments.facts:
        print("\n".join(table()))
        return 0
    nodes, plan = _plan(arguments)
    cells = choose(arguments.cell)
    screen = terminal()
    screen.print(HEAD)
    wrong = 0
    with Bars(screen, "steps") as bars, ThreadPoolExecutor(arguments.jobs) as pool:

        def run(cell: Cell) -> Result:
            task = bars.add(str(cell), nodes * plan.steps)
            result = run_cell(cell, nodes, plan, further=lambda: bars.count(task))
            bars.count(task, 0, len(result.mishaps))
            bars.remove_task(task)
            return result

        for result in pool.map(run, cells):
            screen.print(result.row())
            for mishap in result.mishaps[:_SHOWN]:
                screen.print(f"WRONG {mishap}", style="red")
            wrong += len(result.mishaps)
    screen.print(versions(cells))
    return 1 if wrong else 0


def _plan(arguments: SimpleNamespace) -> tuple[int, Plan]:
    """How many nodes, and what each does."""

    def given(value: int | None, default: int) -> int:
        return default if value is None else value

    requests = arguments.requests
    nodes = given(arguments.nodes, max(2, requests // 20))
    others = given(arguments.others, nodes)
    learn = given(arguments.learn, 50 if requests >= 100 else 10)
    if nodes < 1 or arguments.jobs < 1 or min(requests, others, learn) < 0:
        raise SimError("--nodes and --jobs are at least 1, the others at least 0")
    # The requests while it learns, one in ten wakes, count as well.
    share = max(0, -(-requests // nodes) - -(-learn // 10))
    return nodes, Plan(learn, share, -(-others // nodes))
