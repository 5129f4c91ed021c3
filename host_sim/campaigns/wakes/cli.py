"""`wakes`: packages that come over many wakes, on the command line."""

from __future__ import annotations

from host_sim.campaigns.campaign import Campaign
from host_sim.campaigns.wakes.bench import Bench, Tally
from host_sim.command import PATH
from insigh_ota.places import FIRMWARE

_FIRMWARE = {"type": PATH, "default": FIRMWARE, "metavar": "DIR", "help": "another agent"}

CAMPAIGN = Campaign(
    name="wakes",
    help="random schedules of wakes that each fetch a part, and one rule for the end",
    count=1000,
    bench=Bench,
    options={"firmware": _FIRMWARE},
    tally=Tally,
    page="wakes.md",
)
wakes = CAMPAIGN.command_line()
