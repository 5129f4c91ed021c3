"""``board IMG``: the virtual node on a pseudo-terminal, on the command line."""

from __future__ import annotations

import json
import signal
import sys
from types import SimpleNamespace
from typing import Any

import click

from host_sim import ctrl_c
from host_sim.board.board import Board
from host_sim.command import PATH
from host_sim.node.flash_rules import IN_PLACE_KINDS


@click.command(
    help="Put the virtual node on a port, for mpremote and for insigh-ota deploy. IMG is its "
    "flash, which is made if it is missing. Events are lines of JSON on stdout.",
    epilog="Example: insigh-ota board board.img --link board.port",
)
@click.argument("image", metavar="IMG", type=PATH)
@click.option("--blocks", type=int, default=512, help="of a new flash; 512 is 2 MB")
@click.option("--heap", metavar="SIZE", help="MicroPython heap, such as 96K")
@click.option("--link", metavar="PATH", type=PATH, help="make this a link to the port")
@click.option("--fast", is_flag=True, help="deep sleep takes no time")
@click.option("--fat", is_flag=True, help="the flash is FAT, not littlefs")
@click.option("--romfs", type=PATH, metavar="FILE", help="its firmware's ROMFS image")
@click.option("--cut", type=int, metavar="OP", help="power fails at this operation")
@click.option("--torn", type=click.Choice([*IN_PLACE_KINDS]), default="none", metavar="KIND")
@click.option("--seed", type=int, default=0, help="for the random torn kinds")
@click.option("--json", "always", is_flag=True, help="as it always does: lines of JSON on stdout")
def board(**given: Any) -> int:
    """`board IMG`."""
    return _command(SimpleNamespace(**given))


def _command(arguments: SimpleNamespace) -> int:
    """``board IMG``: events as JSON lines on stdout, first of all the port."""

    def report(event: dict) -> None:
        print(json.dumps(event), flush=True)

    served = Board(
        arguments.image,
        blocks=arguments.blocks,
        heap=arguments.heap,
        fat=arguments.fat,
        romfs=arguments.romfs,
        fast=arguments.fast,
        cut=arguments.cut,
        torn=arguments.torn,
        seed=arguments.seed,
        link=arguments.link,
        report=report,
    )
    # So that a board ended by `kill` hangs up, and its node with it.
    signal.signal(signal.SIGTERM, lambda *_: served.stop())
    ctrl_c.gently(served.stop)
    report({"event": "ready", "port": served.port, "new": served.fresh})
    port = arguments.link or served.port
    print(f"board on {port}; for its REPL: mpremote connect {port}", file=sys.stderr)
    code = served.serve()
    traffic = served.traffic
    report(
        {
            "event": "flash",
            "ops": traffic.ops,
            "prog_bytes": traffic.prog_bytes,
            "erases": traffic.erases,
        }
    )
    return code
