"""``board IMG``: the virtual node on a pseudo-terminal, on the command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from host_sim import ctrl_c
from host_sim.board.board import Board
from host_sim.node.flash_rules import IN_PLACE_KINDS


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``board`` to the command line."""
    parser = subparsers.add_parser("board", help="the virtual node on a port, for mpremote")
    parser.add_argument("image", metavar="IMG", type=Path, help="its flash; made if missing")
    parser.add_argument("--blocks", type=int, default=512, help="of a new flash; 512 is 2 MB")
    parser.add_argument("--heap", metavar="SIZE", help="MicroPython heap, such as 96K")
    parser.add_argument("--link", metavar="PATH", type=Path, help="make this a link to the port")
    parser.add_argument("--fast", action="store_true", help="deep sleep takes no time")
    parser.add_argument("--fat", action="store_true", help="the flash is FAT, not littlefs")
    parser.add_argument("--romfs", type=Path, metavar="FILE", help="its firmware's ROMFS image")
    parser.add_argument("--cut", type=int, metavar="OP", help="power fails at this operation")
    parser.add_argument("--torn", choices=[*IN_PLACE_KINDS], default="none", metavar="KIND")
    parser.add_argument("--seed", type=int, default=0, help="for the random torn kinds")
    parser.set_defaults(run=_command)


def _command(arguments: argparse.Namespace) -> int:
    """``board IMG``: events as JSON lines on stdout, first of all the port."""

    def report(event: dict) -> None:
        print(json.dumps(event), flush=True)

    board = Board(
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
    signal.signal(signal.SIGTERM, lambda *_: board.stop())
    ctrl_c.gently(board.stop)
    report({"event": "ready", "port": board.port, "new": board.fresh})
    port = arguments.link or board.port
    print(f"board on {port}; for its REPL: mpremote connect {port}", file=sys.stderr)
    code = board.serve()
    traffic = board.traffic
    report(
        {
            "event": "flash",
            "ops": traffic.ops,
            "prog_bytes": traffic.prog_bytes,
            "erases": traffic.erases,
        }
    )
    return code
