"""`rollouts`: rollouts to light nodes, and their decisions over seeds."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from host_sim.campaigns import campaign
from host_sim.campaigns.fleet.crew import raise_file_limit
from host_sim.campaigns.rollout import decisions
from host_sim.campaigns.rollout.bench import Bench, Found, Plan
from host_sim.campaigns.rollout.cases import BY_NAME, CASES
from insigh_ota.rollout.gates import Rules

PAGE, PLACE = "rollout.md", "decisions"
_SHOWN = 20


@click.command("rollouts")
@click.option(
    "--case", "names", multiple=True, type=click.Choice(list(BY_NAME)), help="default: all"
)
@click.option("--nodes", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--period", type=float, default=10.0, show_default=True, help="s between wakes")
@click.option("--silence", type=float, default=180.0, show_default=True, help="s")
@click.option("--look-every", type=float, default=4.0, show_default=True, help="s")
@click.option("--https", type=click.FloatRange(0, 1), default=0.1, help="share that downloads")
@click.option("--kills", is_flag=True, help="kill -9 the rollout again and again")
@click.option(
    "--decisions", "seeds", type=click.IntRange(1), help="no broker: so many seeds of each case"
)
@click.option("--write", is_flag=True, help=f"put the table of decisions into docs/{PAGE}")
def rollout_campaign(
    names: tuple[str, ...],
    nodes: int,
    seed: int,
    period: float,
    silence: float,
    look_every: float,
    https: float,
    kills: bool,
    seeds: int | None,
    write: bool,
) -> None:
    """Roll packages of each kind out to a fleet of light nodes at a mosquitto, and judge it."""
    screen = campaign.terminal()
    cases = [BY_NAME[name] for name in names] or list(CASES)
    if seeds is not None:
        table = decisions.table(cases, nodes, seeds, Rules())
        screen.print(table)
        if write:
            campaign.write(PAGE, PLACE, table)
        return
    raise_file_limit()
    plan = Plan(
        cases[0],
        nodes,
        seed,
        period,
        silence,
        look_every,
        https,
        kills=kills,
    )
    failed = False
    for case in cases:
        began = time.monotonic()

        def tell(text: str, began: float = began) -> None:
            screen.print(f"{time.monotonic() - began:6.1f} s  {text}")

        with Bench(replace(plan, case=case), tell) as bench:
            found = bench.judge(bench.run())
        screen.print(summary(case.name, nodes, found))
        for line in found.wrong[:_SHOWN]:
            screen.print(f"WRONG {line}", style="red")
        failed |= bool(found.wrong)
    click.get_current_context().exit(1 if failed else 0)


def summary(name: str, nodes: int, found: Found) -> str:
    """One line of a table."""
    ends = ", ".join(f"{count:,} {what}" for what, count in found.counts.most_common())
    return campaign.line(
        [
            name,
            found.stage,
            f"{found.asked:,} of {nodes:,}",
            f"{found.fetched:,}",
            found.steps,
            found.kills,
            found.twice,
            f"{found.wakes:,}",
            f"{found.seconds:.0f} s",
            ends,
        ]
    )
