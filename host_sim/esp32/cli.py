"""`ram`: whether an update fits a board's RAM, where its heap grows, and the least that does."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from host_sim.bench.laboratory import Laboratory
from host_sim.esp32 import interpreter
from host_sim.esp32.model import KINDS, Model, Ram


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the `ram` command."""
    parser = subparsers.add_parser("ram", help="a model of an ESP32's growing heap")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--sources", type=Path, help="a release of MicroPython to build")
    parser.add_argument("--ram", type=int, default=Ram.total, help="RAM in all, KB")
    parser.add_argument("--tls", type=int, default=Ram.tls, help="what a TLS session takes, KB")
    parser.add_argument("--kept", type=int, default=Ram.kept, help="by the application, KB")
    parser.add_argument("--least", action="store_true", help="search from how much RAM in all on")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="say what is in use")
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    os.environ["MICROPYTHON"] = str(interpreter.ensure(arguments.sources))
    ram = Ram(arguments.ram, arguments.tls, arguments.kept)
    all_done = True
    with (
        tempfile.TemporaryDirectory() as folder,
        Laboratory() as laboratory,
        Model(Path(folder), laboratory) as model,
    ):
        for kind in arguments.kinds or KINDS:
            if arguments.least:
                print(f"{kind}: {model.least(kind, ram)} KB", flush=True)
                continue
            outcome = model.run(kind, ram, arguments.steps)
            all_done &= outcome.done
            print(f"{kind}: {'complete' if outcome.done else 'NOT complete'}, {outcome.said}")
            for line in outcome.trace:
                print("  " + line, flush=True)
    return not all_done
