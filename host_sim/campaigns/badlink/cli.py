"""`badlink`: the campaign on the command line."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import click
from rich.console import Console as Terminal

from host_sim import files
from host_sim.campaigns import campaign
from host_sim.campaigns.badlink.control import ControlChannel
from host_sim.campaigns.badlink.holes import BlackHoles
from host_sim.campaigns.badlink.parts import Part, Result, run_part
from host_sim.campaigns.badlink.resume import CutEverywhere, CutOnce, CutStream
from host_sim.campaigns.campaign import Bars, tell_failures
from host_sim.command import PLACE
from host_sim.errors import SimError

PARTS: dict[str, Callable[[], Part]] = {
    "everywhere": CutEverywhere,
    "once.tar": lambda: CutOnce("tar"),
    "once.tar.gz": lambda: CutOnce("tar.gz"),
    "stream": CutStream,
    "mqtt.mosquitto": lambda: ControlChannel("mosquitto"),
    "mqtt.amqtt": lambda: ControlChannel("amqtt"),
    "holes": BlackHoles,
}
#: Parts that compute, and parts that mostly wait: one track runs beside the other.
_TRACKS = (
    ("once.tar.gz", "once.tar", "everywhere", "stream"),
    ("holes", "mqtt.mosquitto", "mqtt.amqtt"),
)
#: How many cases of a part are run where nothing else is said: the other broker has had them all.
_SAMPLED = {"mqtt.amqtt": 100}


@click.command(help="Cut and silence the link everywhere, judge what comes of it.")
@click.option("--part", metavar="P", help="one part only (default: all)")
@click.option("--sample", type=int, metavar="N", help="N random cases a part at most")
@click.option("--seed", type=int, default=0, help="of the random cases")
@click.option("--table", type=PLACE, metavar="FILE", help="write the figures there")
@click.option("--log", type=PLACE, metavar="FILE", help="write every case there")
@click.option("--replay", metavar="ID", help="run one case again")
@click.option("--list", is_flag=True, help="list the parts")
def badlink(**given: Any) -> int:
    """`badlink`."""
    return _command(SimpleNamespace(**given))


def _command(arguments: SimpleNamespace) -> int:
    terminal = campaign.terminal()
    if arguments.list:
        for name, make in PARTS.items():
            terminal.print(f"{name:15} {make().what}")
        return 0
    part, _, case = (arguments.replay or arguments.part or "").partition("/")
    if part and part not in PARTS:
        raise SimError(f"no part {part!r}: choose from {', '.join(PARTS)}")
    tracks = [(part,)] if part else _TRACKS
    with Bars(terminal) as bars, ThreadPoolExecutor(len(tracks)) as pool:

        def follow(track: tuple[str, ...]) -> list[Result]:
            return [_run(terminal, bars, name, arguments, case) for name in track]

        results = [result for found in pool.map(follow, tracks) for result in found]
    failures = [outcome for result in results for outcome in result.failures]
    if arguments.table:
        files.write(arguments.table, table(results) + "\n")
    if arguments.log:
        files.write(arguments.log, log(results))
    return 1 if failures else 0


def _run(
    terminal: Terminal, bars: Bars, name: str, arguments: SimpleNamespace, case: str
) -> Result:
    with PARTS[name]() as part:
        cases = part.cases()
        if case and case not in cases:
            raise SimError(f"{name} has no case {case!r}, but such as {cases[0]!r}")
        count = min(arguments.sample or len(cases), _SAMPLED.get(name, len(cases)))
        if case:
            cases = [case]
        elif count < len(cases):
            cases = random.Random(arguments.seed).sample(cases, count)
        task = bars.add(name, len(cases))
        result = run_part(part, cases, lambda one: bars.count(task, failures=bool(one.wrong)))
        bars.remove_task(task)
    count = f"{len(result.outcomes)} cases, {len(result.failures)} failures"
    terminal.print(f"{name}: {count}, {result.seconds:.0f} s")
    terminal.print(result.summary)
    tell_failures(terminal, result.failures, "badlink --replay")
    return result


def table(results: list[Result]) -> str:
    """The figures, in Markdown."""
    lines, after = [], []
    for result in results:
        figures = result.summary
        if figures.startswith("|"):
            after += ["", figures]
            figures = "see below"
        what = (f"{result.part}: {result.what}", len(result.outcomes), len(result.failures))
        lines.append((*what, f"{result.seconds:.0f}", figures))
    return "\n".join([campaign.table("part, cases, failures, seconds, ", lines), *after])


def log(results: list[Result]) -> str:
    """Every case that was run, a line each: `ok` or `FAILED`, and the id for `--replay`."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    return "".join(f"{'FAILED' if o.wrong or o.slow else 'ok'} {o.case}\n" for o in outcomes)
