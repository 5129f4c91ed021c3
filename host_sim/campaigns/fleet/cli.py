"""`fleet`: many nodes at one console, on the command line."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import click

from host_sim import files
from host_sim.campaigns import campaign
from host_sim.campaigns.fleet import mixed
from host_sim.campaigns.fleet.campaign import Fleet, Plan, Result
from host_sim.campaigns.fleet.crew import raise_file_limit
from host_sim.campaigns.fleet.plot import expected_rate, histogram
from host_sim.command import PLACE
from host_sim.errors import SimError

_SHOWN = 20
_MB = 1_000_000
_NODES, _MIXED_NODES = 200, 100
_DAY: dict[str, Any] = {"cut": 0.1, "retry": 20, "down": 8.0, "plot": None}


@click.command(help="Many nodes at one Mosquitto and one console, asked at once.")
@click.option(
    "--nodes", type=int, metavar="N", help=f"how many ({_NODES}, with --mixed {_MIXED_NODES})"
)
@click.option("--cut", type=float, default=_DAY["cut"], help="share of nodes on bad links")
@click.option("--retry", type=int, default=_DAY["retry"], metavar="S", help="the nodes' retry_s")
@click.option("--down", type=float, default=_DAY["down"], metavar="S", help="broker away so long")
@click.option("--plot", type=PLACE, metavar="SVG", help="when they came back, as a plot")
@click.option(
    "--mixed",
    is_flag=True,
    help="nodes of several releases take one package, and its bytes are counted",
)
@click.option("--write", is_flag=True, help=f"with --mixed: put the result into docs/{mixed.PAGE}")
def fleet(**given: Any) -> int:
    """`fleet`."""
    return _command(SimpleNamespace(**given))


def _command(arguments: SimpleNamespace) -> int:
    nodes = arguments.nodes
    if nodes is None:
        nodes = _MIXED_NODES if arguments.mixed else _NODES
    plan = Plan(nodes, arguments.cut, arguments.retry, arguments.down)
    if plan.nodes < 1 or not 0 <= plan.cut_share <= 1 or plan.retry_s < 1 or plan.down_s < 0:
        raise SimError("--nodes and --retry are at least 1, --cut is 0 to 1, --down at least 0")
    if arguments.mixed and any(getattr(arguments, name) != value for name, value in _DAY.items()):
        raise SimError("--mixed goes with --nodes and --write only")
    if arguments.write and not arguments.mixed:
        raise SimError("--write goes with --mixed only")
    terminal = campaign.terminal()
    raise_file_limit()
    began = time.monotonic()

    def tell(text: str) -> None:
        terminal.print(f"{time.monotonic() - began:6.1f} s  {text}")

    if arguments.mixed:
        with mixed.Mixed(nodes, tell) as crowd:
            found = crowd.run()
        terminal.print(found.table())
        wrong = found.wrong
        if arguments.write and not wrong:
            campaign.write(mixed.PAGE, mixed.PLACE, found.table())
    else:
        with Fleet(plan, tell) as crowd:
            result = crowd.run()
        for line in summary(result):
            terminal.print(line)
        if arguments.plot:
            files.write(arguments.plot, plot(result))
        wrong = result.wrong
    for line in wrong[:_SHOWN]:
        terminal.print(f"WRONG {line}", style="red")
    return 1 if wrong else 0


def summary(result: Result) -> list[str]:
    """The result as rows of a Markdown table."""
    plan, memory = result.plan, result.memory
    back = result.back_s
    after = [t - result.down_s for t in back]
    busiest = max((sum(s <= t < s + 1 for t in back) for s in back), default=0)
    rows = {
        "nodes": f"{plan.nodes}, {round(plan.nodes * plan.cut_share)} of them on bad links",
        "all connected after": f"{result.connect_s:.1f} s",
        "all asked within": f"{result.ask_s:.1f} s",
        "half of the ends reported after": _middle(result.reported_s),
        "last end reported after": f"{max(result.reported_s, default=0.0):.1f} s",
        "… on a bad link": f"{max(result.reported_cut_s, default=0.0):.1f} s",
        "last new version confirmed after": f"{result.confirmed_s:.1f} s",
        "downloads begun, resumed ones included": f"{result.downloads}",
        "left for later by a node": f"{result.laters} times",
        "broker away for": f"{result.down_s:.1f} s",
        "nodes back within 1 s of its return": f"{sum(t < 1 for t in after)}",
        "half of them back after its return within": _middle(after),
        "last one back after its return": f"{max(after, default=0.0):.1f} s",
        "most that came back in any one second": f"{busiest}",
    }
    if memory.interpreters:
        rows |= {
            "interpreters at a time": f"{memory.interpreters}",
            "all interpreters together, shared pages once (PSS)": _mb(memory.interpreters_pss),
            "all interpreters together, peak RSS": _mb(memory.interpreters_rss),
            "the largest interpreter, peak RSS": _mb(memory.largest_rss),
            "console, package server and the nodes' hosts, peak RSS": _mb(memory.hosts_rss),
            "Mosquitto, peak RSS": _mb(memory.broker_rss),
        }
    ends = "all ended in one report and on the new tree" if not result.wrong else "NOT as it must"
    return [*campaign.table("what, ", rows.items()).split("\n"), ends]


def _middle(seconds: list[float]) -> str:
    return f"{sorted(seconds)[len(seconds) // 2]:.1f} s" if seconds else "none"


def _mb(size: int) -> str:
    return f"{size / _MB:.1f} MB"


def plot(result: Result) -> str:
    """When the nodes came back, as SVG."""
    plan = result.plan
    return histogram(
        result.back_s,
        title=f"{plan.nodes} nodes lose one broker for {result.down_s:.0f} s",
        note=f"bars: in each second, as measured; line: as drawn with retry_s = {plan.retry_s}",
        down_s=result.down_s,
        expected=expected_rate(plan.nodes, plan.retry_s, result.down_s, max(result.back_s) + 1),
    )
