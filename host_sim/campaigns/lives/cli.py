"""`lives`: random lives of a node, on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from host_sim.campaigns.campaign import Campaign, tell
from host_sim.campaigns.lives.bench import Bench, Tally, shrink
from host_sim.campaigns.lives.life import make
from host_sim.node import flash

_FIRMWARE = {"type": Path, "default": flash.FIRMWARE, "metavar": "DIR", "help": "another agent"}

CAMPAIGN = Campaign(
    name="lives",
    help="random lives of a node, watched by a model that knows what is right",
    count=2000,
    bench=Bench,
    options={"firmware": _FIRMWARE},
    tally=Tally,
    page="lives.md",
)


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `lives` command."""
    parser = CAMPAIGN.register(subparsers)
    text = "leave out of it what it does not need to fail"
    parser.add_argument("--shrink", type=int, metavar="SEED", help=text)
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.shrink is None:
        return CAMPAIGN.command(arguments)
    with CAMPAIGN.open(arguments) as bench:
        return tell(bench.live(shrink(bench, make(arguments.shrink, arguments.firmware), print)))
