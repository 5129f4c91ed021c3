"""`ram`: whether an update fits a board's RAM, where its heap grows, and the least that does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from host_sim.bench.laboratory import Laboratory
from host_sim.command import PATH
from host_sim.esp32 import interpreter
from host_sim.esp32.model import KINDS, Model, Ram


@click.command(
    help=f"A model of an ESP32's growing heap: does an update fit? KIND is of {', '.join(KINDS)}."
)
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--sources", type=PATH, help="a release of MicroPython to build")
@click.option("--ram", "total", type=int, default=Ram.total, help="RAM in all, KB")
@click.option("--tls", type=int, default=Ram.tls, help="what a TLS session takes, KB")
@click.option("--kept", type=int, default=Ram.kept, help="by the application, KB")
@click.option("--least", is_flag=True, help="search from how much RAM in all on")
@click.option("--steps", type=int, default=0, metavar="N", help="say what is in use")
def ram(
    kinds: tuple[str, ...],
    sources: Path | None,
    total: int,
    tls: int,
    kept: int,
    least: bool,
    steps: int,
) -> int:
    """`ram`."""
    os.environ["MICROPYTHON"] = str(interpreter.ensure(sources))
    given = Ram(total, tls, kept)
    all_done = True
    with (
        tempfile.TemporaryDirectory() as folder,
        Laboratory() as laboratory,
        Model(Path(folder), laboratory) as model,
    ):
        for kind in kinds or KINDS:
            if least:
                print(f"{kind}: {model.least(kind, given)} KB", flush=True)
                continue
            outcome = model.run(kind, given, steps)
            all_done &= outcome.done
            print(f"{kind}: {'complete' if outcome.done else 'NOT complete'}, {outcome.said}")
            for line in outcome.trace:
                print("  " + line, flush=True)
    return not all_done
