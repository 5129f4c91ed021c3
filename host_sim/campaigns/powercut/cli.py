"""`powercut`: the campaign on the command line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import click
from rich.console import Console as Terminal

from host_sim import files
from host_sim.campaigns import campaign as shared
from host_sim.campaigns.campaign import Bars, by_kind, stopped, tell_failures
from host_sim.campaigns.powercut import keys
from host_sim.campaigns.powercut.bench import Bench
from host_sim.campaigns.powercut.campaign import Campaign, Examiner, Row, Tally
from host_sim.campaigns.powercut.dimensions import DIMENSIONS, IN_FULL
from host_sim.campaigns.powercut.layouts import PREFIX
from host_sim.campaigns.powercut.scenarios import FROZEN
from host_sim.command import PLACE
from host_sim.errors import SimError
from host_sim.node.flash_rules import TORN_KINDS

_HEAD = "scenario, in a row, operations, kinds, cases, distinct, not whole, failures, seconds"
_MISHAPS = {
    "obstacles": "something in the way of each path of the package, in each phase",
    "full": "flash filled to the last block and byte before each phase",
    "bits": "each bit of each small file in /.ota flipped, in each phase",
}


@dataclass
class Part:
    """What gives one row, called with a function that takes the share that is done.

    `weight`: how much of the whole it is, in any unit.
    """

    name: str
    run: Callable[[Callable[[float], None]], Row]
    weight: float = 1.0


@click.command(
    help="Something goes wrong at every place of a complete update; the node has to come to a "
    "right end by itself. Without options: each way of cutting the power at every flash operation "
    "of every scenario.",
    epilog="Example: insigh-ota powercut --sample 60",
)
@click.option("--depth", type=click.Choice((1, 2, 3)), default=1, help="cuts in a row")
@click.option("--storm", is_flag=True, help="a cut after every K operations")
@click.option("--errors", is_flag=True, help="an error of flash")
@click.option("--persistent", is_flag=True, help="… for the rest of the run")
@click.option("--obstacles", is_flag=True, help=_MISHAPS["obstacles"])
@click.option("--full", is_flag=True, help=_MISHAPS["full"])
@click.option("--bits", is_flag=True, help=_MISHAPS["bits"])
@click.option(
    "--mix",
    type=int,
    metavar="N",
    help="N random ones of the last three (or of those that are given), each with a power cut",
)
@click.option("--keys", is_flag=True, help="Ctrl-C and soft resets at each statement of boot")
@click.option("--scenario", metavar="S", help="one scenario only (default: all)")
@click.option("--list", is_flag=True, help="list the scenarios")
@click.option("--frozen", is_flag=True, help="the agent is in the firmware")
@click.option("--layouts", is_flag=True, help="updates from a flat agent to today's, and back")
@click.option("--torn", metavar="KIND", default="all", help="one kind of cut, or all")
@click.option("--sample", type=int, metavar="N", help="N random cases each, not all")
@click.option("--seed", type=int, default=0, help="of the random cases")
@click.option("--replay", metavar="ID", help="run one failing case again")
@click.option("--jobs", type=int, help="worker processes (default: one a core)")
@click.option("--table", type=PLACE, metavar="FILE", help="write the result table there")
@click.option("--log", type=PLACE, metavar="FILE", help="write every case there")
def powercut(**given: Any) -> int:
    """`powercut`."""
    return _command(SimpleNamespace(**given))


def _command(arguments: SimpleNamespace) -> int:
    terminal = shared.terminal()
    if arguments.keys or keys.is_replay(arguments.replay or ""):
        return _keys(terminal, arguments)
    if arguments.replay:
        frozen = arguments.replay.partition("/")[0].endswith(FROZEN)
        layouts = arguments.replay.startswith(PREFIX)
        with Bench(frozen=frozen, layouts=layouts) as bench:
            wrong = Examiner(bench).replay(arguments.replay)
        terminal.print("\n".join(wrong) or "nothing wrong")
        return 1 if wrong else 0
    if arguments.torn != "all" and arguments.torn not in TORN_KINDS:
        raise SimError(f"no torn kind {arguments.torn!r}: choose from {', '.join(TORN_KINDS)}")
    kinds = TORN_KINDS if arguments.torn == "all" else (arguments.torn,)
    if arguments.frozen and arguments.scenario:
        arguments.scenario = arguments.scenario.removesuffix(FROZEN) + FROZEN
    layouts = arguments.layouts or (arguments.scenario or "").startswith(PREFIX)
    with Campaign(arguments.jobs, frozen=arguments.frozen, layouts=layouts) as campaign:
        if arguments.list:
            for name, scenario in campaign.scenarios.items():
                terminal.print(f"{name:10} {scenario.what}")
            return 0
        names = [arguments.scenario] if arguments.scenario else list(campaign.scenarios)
        dimensions = [name for name in DIMENSIONS if getattr(arguments, name)]
        if not set(names) <= set(campaign.scenarios):
            known = ", ".join(campaign.scenarios)
            raise SimError(f"no scenario {names[0]!r}: choose from {known}")
        if arguments.storm:
            forty = "forty" + FROZEN * arguments.frozen
            return _storm(terminal, campaign, arguments.scenario or forty)
        if dimensions or arguments.mix:
            rows = _suffer(terminal, campaign, dimensions, arguments)
        else:
            rows = run(terminal, campaign, names, kinds, arguments)
    return _finish(terminal, rows, table(rows), arguments)


def _finish(terminal: Terminal, rows: list[Row], text: str, arguments: SimpleNamespace) -> int:
    terminal.print(text)
    if arguments.table:
        files.write(arguments.table, text + "\n")
    if arguments.log:
        files.write(arguments.log, log(rows))
    failures = [failure for row in rows for failure in row.tally.failures]
    if failures:
        terminal.print(by_kind(failures))
    return 1 if failures else 0


def _suffer(
    terminal: Terminal, campaign: Campaign, dimensions: list[str], arguments: SimpleNamespace
) -> list[Row]:
    """The mishaps: each dimension alone, or all that are asked for mixed with cuts."""
    parts: list[Part] = []

    def names(dimension: str) -> list[str]:
        if arguments.scenario:
            return [arguments.scenario]
        every = DIMENSIONS if arguments.sample or arguments.mix else DIMENSIONS | IN_FULL
        found = [name + FROZEN * arguments.frozen for name in every[dimension]]
        return [name for name in found if name in campaign.scenarios]

    asked = dimensions or list(DIMENSIONS)
    if arguments.mix:
        mixed = sorted({name for part in asked for name in names(part)})
        for at, name in enumerate(mixed):
            # The rest of the division goes to the first ones.
            count = arguments.mix // len(mixed) + (at < arguments.mix % len(mixed))
            run = partial(campaign.mix, name, asked, count, arguments.seed)
            parts.append(Part(name, run))
    else:
        for dimension in dimensions:
            for name in names(dimension):
                count, seed = arguments.sample, arguments.seed
                run = partial(campaign.mishaps, name, dimension, count, seed)
                parts.append(Part(name, run))
    return _show(terminal, campaign, parts)


def _tell(terminal: Terminal, row: Row, left: str) -> None:
    terminal.print(
        f"{row.scenario}: {row.tally.cuts} cases, {len(row.tally.failures)} failures, "
        f"{row.seconds:.0f} s{left}",
    )
    tell_failures(terminal, row.tally.failures, "powercut --replay")


def _keys(terminal: Terminal, arguments: SimpleNamespace) -> int:
    if arguments.replay:
        with keys.hooked_bench() as bench:
            wrong = keys.KeyExaminer(bench).replay(arguments.replay)
        terminal.print("\n".join(wrong) or "nothing wrong")
        return 1 if wrong else 0
    names = [arguments.scenario] if arguments.scenario else list(keys.SCENARIOS)
    if not set(names) <= set(keys.SCENARIOS):
        raise SimError(f"no scenario {names[0]!r}: choose from {', '.join(keys.SCENARIOS)}")
    with keys.KeyCampaign(arguments.jobs) as campaign:
        count, seed = arguments.sample, arguments.seed
        parts = [Part(name, partial(campaign.run, name, count, seed)) for name in names]
        rows = _show(terminal, campaign, parts)
    return _finish(terminal, rows, keys.table(rows), arguments)


def _storm(terminal: Terminal, campaign: Campaign, name: str) -> int:
    with Bars(terminal) as bars:
        task = bars.add(name, 1.0)
        least, boots, below = campaign.storm(
            name, lambda share: bars.update(task, completed=share)
        )
    terminal.print(
        f"{name}: completes when power lasts for {least} operations, in {boots} boots; with every "
        f"smaller number it gives up after its attempts, reports e:2, and runs the old tree "
        f"(tried for up to {below} boots)",
    )
    return 0


def run(
    terminal: Terminal,
    campaign: Campaign,
    names: list[str],
    kinds: tuple[str, ...],
    arguments: SimpleNamespace,
) -> list[Row]:
    """Run the asked-for part of the campaign under a progress bar."""
    parts = [Part(name, partial(_one, campaign, name, kinds, arguments)) for name in names]
    if arguments.depth == 1 and not arguments.errors and arguments.torn == "all":
        _announce(terminal, campaign, parts, arguments.sample)
    return _show(terminal, campaign, parts)


def _announce(
    terminal: Terminal, campaign: Campaign, parts: list[Part], sample: int | None
) -> None:
    """Say how much it is before it begins, and weigh the parts."""
    cuts = 0
    seconds = 0.0
    with terminal.status("running each scenario once without a cut, to count"):
        for part in parts:
            more, part.weight = campaign.estimate(part.name, sample)
            cuts += more
            seconds += part.weight
    rounded = cuts if sample else round(cuts, -2)
    cores = min(campaign.jobs, os.cpu_count() or 1)
    terminal.print(
        f"{rounded:,} cuts, about {_long(seconds)} with {cores} core{'s' * (cores > 1)}; "
        + ("" if sample else "N=60 (--sample 60) for a sample; ")
        + "Ctrl-C stops, and says what was tried so far",
    )


def _long(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def _show(
    terminal: Terminal, campaign: Campaign | keys.KeyCampaign, parts: list[Part]
) -> list[Row]:
    """Run the parts; Ctrl-C ends them with a line that says how far it came."""
    rows: list[Row] = []
    begin = time.monotonic()
    done, total = 0.0, sum(part.weight for part in parts)
    campaign.tally = Tally()
    try:
        with Bars(terminal) as bars:
            task = bars.add("", total)
            for part in parts:

                def show(share: float, done=done, weight=part.weight) -> None:
                    now = campaign.tally
                    count = f"{now.cuts:,} cases, {len(now.failures)} failures"
                    bars.update(task, completed=done + share * weight, count=count)

                bars.update(task, description=part.name)
                row = part.run(show)
                rows.append(row)
                campaign.tally = Tally()
                done += part.weight
                left = (time.monotonic() - begin) * (total - done) / done
                more = f"; about {_long(left)} left" if len(rows) < len(parts) else ""
                _tell(terminal, row, more)
    except KeyboardInterrupt:
        tell_failures(terminal, campaign.tally.failures, "powercut --replay")
        tried = Tally()
        for tally in (*(row.tally for row in rows), campaign.tally):
            tried.add(tally)
        stopped(
            f"{tried.cuts:,} cases tried, {len(tried.failures)} failures; "
            f"{len(rows)} of {len(parts)} parts complete"
        )
        raise
    return rows


def _one(
    campaign: Campaign,
    name: str,
    kinds: tuple[str, ...],
    arguments: SimpleNamespace,
    show: Callable[[float], None],
) -> Row:
    if arguments.errors:
        return campaign.errors(name, arguments.persistent, progress=show)
    if arguments.sample:
        count, seed = arguments.sample, arguments.seed
        return campaign.sample(name, arguments.depth, count, seed, progress=show)
    if arguments.depth == 2:
        return campaign.pairs(name, kinds, progress=show)
    if arguments.depth == 3:
        raise SimError("three cuts in a row are too many for all of them: add --sample N")
    return campaign.single(name, kinds, progress=show)


def log(rows: list[Row]) -> str:
    """Every case that was run, a line each: `ok` or `FAILED`, and the id for `--replay`."""
    lines = []
    for row in rows:
        failed = {failure.replay for failure in row.tally.failures}
        lines += [f"{'FAILED' if case in failed else 'ok'} {case}" for case in row.tally.cases]
    return "".join(line + "\n" for line in lines)


def table(rows: list[Row]) -> str:
    """The result table, in Markdown."""
    total = Tally()
    lines: list[tuple[object, ...]] = []
    for row in rows:
        tally = row.tally
        total.add(tally)
        what = (f"{row.scenario}: {row.title}", row.what, row.operations, row.kinds)
        lines.append((*what, *_figures(tally), f"{row.seconds:.0f}"))
    operations, seconds = sum(row.operations for row in rows), sum(row.seconds for row in rows)
    lines.append(("**all**", "", operations, "", *_figures(total), f"{seconds:.0f}"))
    return shared.table(_HEAD, lines)


def _figures(tally: Tally) -> tuple[int, ...]:
    return tally.cuts, tally.distinct, tally.not_whole, len(tally.failures)
