"""`fuzz`: mutated input by the million, on the command line."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import click
from rich.console import Console as Terminal

from host_sim.campaigns import campaign
from host_sim.campaigns.campaign import Bars, tell_failures
from host_sim.campaigns.fuzz.campaign import Fuzzer, Replay
from host_sim.campaigns.fuzz.device import TARGETS, Tally
from host_sim.errors import SimError

_HEAD = "target, cases, sound, outcomes, heap in use, growth, seconds, failures"


@click.command(help="Feed mutated archives and messages to the agent inside MicroPython.")
@click.option("--cases", type=int, default=2_000_000, metavar="N", help="in all")
@click.option("--seed", type=int, default=1, metavar="S", help="of the mutations")
@click.option("--target", type=click.Choice(list(TARGETS)), metavar="T", help=", ".join(TARGETS))
@click.option("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
@click.option("--source", is_flag=True, help="the agent as .py, not as .mpy")
@click.option("--replay", metavar="ID", help="run one case again and show it")
def fuzz(**given: Any) -> int:
    """`fuzz`."""
    return _command(SimpleNamespace(**given))


def _command(arguments: SimpleNamespace) -> int:
    if arguments.cases < 1 or arguments.jobs < 1 or arguments.seed < 0:
        raise SimError("--cases and --jobs are at least 1, --seed at least 0")
    terminal = campaign.terminal()
    with Fuzzer(compiled=not arguments.source) as fuzzer:
        if arguments.replay:
            shown = fuzzer.replay(arguments.replay)
            terminal.print(story(shown))
            return 1 if shown.failure else 0
        terminal.print(
            f"seed {arguments.seed}, corpus {fuzzer.corpus_crc:08x}, {arguments.jobs} processes"
        )
        cases = share_out(arguments.cases, arguments.target)
        begin = time.monotonic()
        tallies = _run(terminal, fuzzer, cases, arguments)
        seconds = time.monotonic() - begin
    terminal.print(table(tallies, seconds))
    failures = [failure for tally in tallies for failure in tally.failures]
    tell_failures(terminal, failures, "fuzz --replay")
    return 1 if failures else 0


def share_out(cases: int, target: str | None = None) -> dict[str, int]:
    """How many cases each target gets; all of them for the one that is named."""
    if target:
        return {target: cases}
    return {name: max(1, round(cases * each.share)) for name, each in TARGETS.items()}


def _run(
    terminal: Terminal, fuzzer: Fuzzer, cases: dict[str, int], arguments: SimpleNamespace
) -> list[Tally]:
    with Bars(terminal) as bars:
        tasks = {target: bars.add(target, count) for target, count in cases.items()}

        def count(target: str, *more: int) -> None:
            bars.count(tasks[target], *more)

        return fuzzer.run(cases, arguments.seed, arguments.jobs, count)


def table(tallies: list[Tally], seconds: float) -> str:
    """The figures, in Markdown."""
    lines: list[tuple[object, ...]] = [
        (
            f"{tally.target}: {TARGETS[tally.target].what}",
            tally.cases,
            tally.outcomes["read"],
            len(tally.outcomes),
            f"{tally.heap // 1024} of {TARGETS[tally.target].heap}",
            f"{tally.growth} B",
            f"{tally.seconds:.0f}",
            len(tally.failures),
        )
        for tally in tallies
    ]
    cases = sum(tally.cases for tally in tallies)
    failures = sum(len(tally.failures) for tally in tallies)
    lines.append(("**all**", cases, "", "", "", "", f"{seconds:.0f}", failures))
    return campaign.table(_HEAD, lines)


def story(replay: Replay) -> str:
    """A case for people: its input as a dump, then how it ended."""
    lines = []
    for at in range(0, len(replay.data), 16):
        row = replay.data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        line = f"{at:06x}  {row.hex(' '):47}  {text}"
        if lines and lines[-1][8:] == line[8:]:
            continue  # blocks of NUL, mostly
        lines.append(line)
    lines.append(f"{len(replay.data):06x}")
    if replay.failure:
        lines += [replay.failure.trace, f"FAILED {replay.failure}"]
    else:
        lines.append(replay.outcome)
    return "\n".join(lines)
