"""`scripts`: random fault scripts, on the command line."""

import click

from host_sim.campaigns.campaign import Campaign
from host_sim.campaigns.scripts.bench import Bench
from host_sim.console.mosquitto_broker import find_mosquitto

_BROKERS = ("amqtt", "mosquitto")

CAMPAIGN = Campaign(
    name="scripts",
    help="random faults in a row of wakes, and one rule for the end",
    count=500,
    bench=Bench,
    # The faster one of those that are there.
    options={
        "broker": {"type": click.Choice(_BROKERS), "default": _BROKERS[bool(find_mosquitto())]}
    },
)
scripts = CAMPAIGN.command_line()
