"""`lives`: random lives of a node, on the command line."""

from __future__ import annotations

from types import SimpleNamespace

import click

from host_sim.campaigns.campaign import Campaign, tell
from host_sim.campaigns.lives.bench import Bench, Tally, shrink
from host_sim.campaigns.lives.life import make
from host_sim.command import PATH
from insigh_ota.places import FIRMWARE

_FIRMWARE = {"type": PATH, "default": FIRMWARE, "metavar": "DIR", "help": "another agent"}

CAMPAIGN = Campaign(
    name="lives",
    help="random lives of a node, watched by a model that knows what is right",
    count=2000,
    bench=Bench,
    options={"firmware": _FIRMWARE},
    tally=Tally,
    page="lives.md",
)


def _run(arguments: SimpleNamespace) -> int:
    if arguments.shrink is None:
        return CAMPAIGN.command(arguments)
    with CAMPAIGN.open(arguments) as bench:
        return tell(bench.live(shrink(bench, make(arguments.shrink, arguments.firmware), print)))


lives = CAMPAIGN.command_line(
    _run,
    click.Option(
        ["--shrink"],
        type=int,
        metavar="SEED",
        help="leave out of it what it does not need to fail",
    ),
)
