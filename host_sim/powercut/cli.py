"""`powercut`: the campaign on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from host_sim.errors import SimError
from host_sim.flash_rules import TORN_KINDS
from host_sim.powercut.bench import Bench
from host_sim.powercut.campaign import Campaign, Examiner, Row

_SHOWN_FAILURES = 20


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `powercut` command."""
    parser = subparsers.add_parser(
        "powercut", help="cut the power at every flash operation, judge what comes back"
    )
    parser.add_argument("--scenario", metavar="S", help="one scenario only (default: all)")
    parser.add_argument("--torn", metavar="KIND", default="all", help="one kind, or all")
    parser.add_argument("--depth", type=int, choices=(1, 2, 3), default=1, help="cuts in a row")
    parser.add_argument("--sample", type=int, metavar="N", help="N random cases each, not all")
    parser.add_argument("--seed", type=int, default=0, help="of the random cases")
    parser.add_argument("--jobs", type=int, help="worker processes (default: one a core)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the result table there")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write every case there")
    parser.add_argument("--errors", action="store_true", help="EIO and ENOSPC instead of cuts")
    parser.add_argument("--persistent", action="store_true", help="… for the rest of the run")
    parser.add_argument("--storm", action="store_true", help="a cut after every K operations")
    parser.add_argument("--replay", metavar="ID", help="run one failing case again")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    terminal = Terminal()
    if arguments.replay:
        with Bench() as bench:
            wrong = Examiner(bench).replay(arguments.replay)
        terminal.print("\n".join(wrong) or "nothing wrong", highlight=False)
        return 1 if wrong else 0
    if arguments.torn != "all" and arguments.torn not in TORN_KINDS:
        raise SimError(f"no torn kind {arguments.torn!r}: choose from {', '.join(TORN_KINDS)}")
    kinds = TORN_KINDS if arguments.torn == "all" else (arguments.torn,)
    with Campaign(arguments.jobs) as campaign:
        if arguments.list:
            for name, scenario in campaign.scenarios.items():
                terminal.print(f"{name:10} {scenario.what}", highlight=False)
            return 0
        names = [arguments.scenario] if arguments.scenario else list(campaign.scenarios)
        if not set(names) <= set(campaign.scenarios):
            known = ", ".join(campaign.scenarios)
            raise SimError(f"no scenario {names[0]!r}: choose from {known}")
        if arguments.storm:
            return _storm(terminal, campaign, arguments.scenario or "forty")
        rows = run(terminal, campaign, names, kinds, arguments)
    text = table(rows)
    terminal.print(text, highlight=False, soft_wrap=True)
    if arguments.table:
        arguments.table.write_text(text + "\n")
    if arguments.log:
        arguments.log.write_text(log(rows))
    failures = [failure for row in rows for failure in row.tally.failures]
    if failures:
        terminal.print("Replay one with: python -m host_sim powercut --replay ID")
    return 1 if failures else 0


def _bars(terminal: Terminal) -> Progress:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=terminal, transient=True)


def _storm(terminal: Terminal, campaign: Campaign, name: str) -> int:
    with _bars(terminal) as bars:
        task = bars.add_task(name, total=1.0)
        least, boots, below = campaign.storm(
            name, lambda share: bars.update(task, completed=share)
        )
    terminal.print(
        f"{name}: completes when power lasts for {least} operations, in {boots} boots; with every "
        f"smaller number it gives up after its attempts, reports e:2, and runs the old tree "
        f"(tried for up to {below} boots)",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def run(
    terminal: Terminal,
    campaign: Campaign,
    names: list[str],
    kinds: tuple[str, ...],
    arguments: argparse.Namespace,
) -> list[Row]:
    """Run the asked-for part of the campaign under a progress bar."""
    rows = []
    with _bars(terminal) as bars:
        for name in names:
            task = bars.add_task(name, total=1.0)

            def show(share: float, task=task) -> None:
                bars.update(task, completed=share)

            rows.append(_one(campaign, name, kinds, arguments, show))
            bars.remove_task(task)
            row = rows[-1]
            terminal.print(
                f"{name}: {row.tally.cuts} cuts, {len(row.tally.failures)} failures, "
                f"{row.seconds:.0f} s",
                highlight=False,
            )
            for failure in row.tally.failures[:_SHOWN_FAILURES]:
                terminal.print(f"FAILED {failure}", style="red", highlight=False, markup=False)
    return rows


def _one(
    campaign: Campaign,
    name: str,
    kinds: tuple[str, ...],
    arguments: argparse.Namespace,
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
    lines = [
        "| scenario | in a row | operations | kinds | cases | distinct | failures | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tally = row.tally
        lines.append(
            f"| {row.scenario}: {row.title} | {row.what} | {row.operations} | {row.kinds} "
            f"| {tally.cuts} "
            f"| {tally.distinct} | {len(tally.failures)} | {row.seconds:.0f} |"
        )
    cuts = sum(row.tally.cuts for row in rows)
    distinct = sum(row.tally.distinct for row in rows)
    failures = sum(len(row.tally.failures) for row in rows)
    seconds = sum(row.seconds for row in rows)
    operations = sum(row.operations for row in rows)
    lines.append(
        f"| **all** | | {operations} | | {cuts} | {distinct} | {failures} | {seconds:.0f} |"
    )
    return "\n".join(lines)
