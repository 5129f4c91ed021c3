"""`python -m host_sim COMMAND …`: one entry for every part of the simulator."""

from __future__ import annotations

if __name__ == "__main__":
    from host_sim import first  # noqa: F401

from host_sim import ctrl_c

if __name__ == "__main__":
    ctrl_c.watch()  # before the imports below, which take their time

import argparse
import sys

from host_sim import demo
from host_sim.bench import built
from host_sim.bench import cli as bench
from host_sim.board import cli as board
from host_sim.campaigns.badlink import cli as badlink
from host_sim.campaigns.brokers import cli as brokers
from host_sim.campaigns.fleet import cli as fleet
from host_sim.campaigns.fuzz import cli as fuzz
from host_sim.campaigns.lives import cli as lives
from host_sim.campaigns.orders import cli as orders
from host_sim.campaigns.powercut import cli as powercut
from host_sim.campaigns.scripts import cli as scripts
from host_sim.campaigns.wakes import cli as wakes
from host_sim.console import cli as console
from host_sim.errors import SimError
from host_sim.esp32 import cli as ram
from host_sim.node import flash, node


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each part registers its own sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m host_sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parts = (
        demo,
        flash,
        console,
        node,
        board,
        powercut,
        badlink,
        fuzz,
        bench,
        built,
        ram,
        scripts,
        orders,
        lives,
        wakes,
        fleet,
        brokers,
    )
    for part in parts:
        part.register(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; an expected failure is one line on stderr and exit code 2."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except SimError as error:
        print(f"host_sim: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
