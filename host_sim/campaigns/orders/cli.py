"""`orders`: requests that are given, withdrawn and replaced at any moment, on the command line."""

from host_sim.campaigns.campaign import Campaign
from host_sim.campaigns.orders.bench import Bench

CAMPAIGN = Campaign(
    name="orders",
    help="cancel and replace at any moment, with power cuts, and one rule for it",
    count=1000,
    bench=Bench,
)
orders = CAMPAIGN.command_line()
