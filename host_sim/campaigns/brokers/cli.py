"""`brokers`: the matrix on the command line."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from host_sim.campaigns.brokers.facts import table
from host_sim.campaigns.brokers.matrix import CELLS, HEAD, Cell, Result, choose, run_cell, versions
from host_sim.campaigns.brokers.story import Plan
from host_sim.campaigns.campaign import Bars, terminal
from host_sim.errors import SimError

_SHOWN = 20


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `brokers` command."""
    parser = subparsers.add_parser(
        "brokers",
        help="what a node hears on each broker, and how long it waits for it",
        description="Run nodes on real brokers: idle, request, clear, report, cancel, replace.",
    )
    parser.add_argument(
        "--cell", action="append", default=[], metavar="NAME", help="only nats/tls, or all of nats"
    )
    parser.add_argument("--list", action="store_true", help="list the names for --cell")
    parser.add_argument("--requests", type=int, default=200, metavar="N", help="in each row")
    parser.add_argument("--nodes", type=int, metavar="N", help="default: one for 20 requests")
    parser.add_argument(
        "--others",
        type=int,
        metavar="N",
        help="cancels, replaces and updates; default: one a node",
    )
    parser.add_argument("--learn", type=int, metavar="N", help="wakes before anything is measured")
    parser.add_argument("--jobs", type=int, default=3, metavar="N", help="rows at a time")
    parser.add_argument(
        "--facts", action="store_true", help="only tell what else each broker does"
    )
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
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


def _plan(arguments: argparse.Namespace) -> tuple[int, Plan]:
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
