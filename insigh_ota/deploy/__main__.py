"""The agent on boards. The Makefile has a target for each command."""

from __future__ import annotations

if __name__ == "__main__":
    from host_sim import first  # noqa: F401

from host_sim import ctrl_c

if __name__ == "__main__":
    ctrl_c.watch()  # before the imports below, which take their time

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from host_sim.errors import SimError
from insigh_ota.deploy import ca, dist, provision, rom
from insigh_ota.deploy.deploy import deploy, undeploy
from insigh_ota.deploy.errors import DeployError
from insigh_ota.deploy.remote import Board
from insigh_ota.deploy.status import status


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="python -m insigh_ota.deploy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    put = commands.add_parser("deploy", help="the agent, boot.py and /ota.json onto a board")
    put.add_argument("--port", metavar="DEVICE")
    put.add_argument("--src", action="store_true", help="sources instead of .mpy")
    put.add_argument("--agent", choices=["firmware"], help="it is frozen, or in ROMFS: no files")
    put.add_argument("--boot", choices=["keep", "replace"], help="what to do with a foreign one")
    put.add_argument("--trial", choices=["keep"], help="confirm what is on trial")
    put.add_argument("--provision", type=Path, metavar="FILE", help="default: provision.json")

    who = commands.add_parser("provision", help="write down who a node is")
    who.add_argument("--file", type=Path, default=provision.DEFAULT)
    who.add_argument("--id", metavar="ID")
    who.add_argument("--channel", metavar="ID")
    who.add_argument("--server", metavar="HOST[:PORT]")
    who.add_argument("--mqtt", metavar="HOST[:PORT]")
    who.add_argument("--tls", choices=["0", "1"])

    off = commands.add_parser("undeploy", help="take it all off a board again")
    off.add_argument("--port", metavar="DEVICE")

    show = commands.add_parser("status", help="what runs on a board")
    show.add_argument("--port", metavar="DEVICE")
    show.add_argument("--stay", action="store_true", help="do not reset it afterwards")

    anchor = commands.add_parser("ca", help="the trust anchors onto a board")
    anchor.add_argument("--port", metavar="DEVICE")
    source = anchor.add_mutually_exclusive_group()
    source.add_argument("--host", metavar="HOST[:PORT]", help="the public root of this server")
    source.add_argument("--chain", type=Path, metavar="FILE", help="that of this server's chain")
    source.add_argument("--file", type=Path, metavar="FILE", help="these roots, PEM or DER")

    commands.add_parser("dist", help="package.json, and dist/ with the compiled agent")

    image = commands.add_parser("romfs", help="an image of the agent for a firmware's ROMFS")
    image.add_argument("--out", type=Path, default=rom.DEFAULT, metavar="FILE")
    image.add_argument("--more", type=Path, metavar="DIR", help="what else belongs into it")
    return parser


def _run(arguments: argparse.Namespace, terminal: Console) -> None:
    command = arguments.command
    if command == "dist":
        dist.refresh(terminal)
        dist.write(terminal)
    elif command == "romfs":
        rom.write(terminal, arguments.out, arguments.more)
    elif command == "provision":
        tls = None if arguments.tls is None else arguments.tls == "1"
        provision.write(
            arguments.file,
            device_id=arguments.id,
            channel=arguments.channel,
            server=arguments.server,
            mqtt=arguments.mqtt,
            tls=tls,
        )
        file = escape(str(arguments.file))
        ignored = provision.is_ignored(arguments.file)
        terminal.print(
            f"{file} is written; only you can read it{', and git ignores it' if ignored else ''}"
        )
        if ignored is False:
            terminal.print(
                f"[yellow]git does not ignore {file}, which holds the device key[/]: add it to "
                ".gitignore, or name it provision-….json in this project's folder"
            )
        if not provision.check(arguments.file)[1]:
            terminal.print(provision.PLAIN)
    elif command == "deploy":
        deploy(
            Board(arguments.port),
            terminal,
            source=arguments.src,
            in_firmware=arguments.agent == "firmware",
            boot=arguments.boot,
            keep_trial=arguments.trial == "keep",
            provisioning=arguments.provision,
        )
    elif command == "undeploy":
        undeploy(Board(arguments.port), terminal)
    elif command == "status":
        status(Board(arguments.port), terminal, arguments.stay)
    else:
        if not (arguments.host or arguments.chain or arguments.file):
            raise DeployError("which trust anchor? Say HOST=server, CHAIN=file or CA=file")
        board = Board(arguments.port)
        if arguments.host:
            anchors = [ca.of_host(arguments.host)]
        elif arguments.chain:
            anchors = [ca.of_chain(arguments.chain)]
        else:
            anchors = ca.of_file(arguments.file)
        ca.install(board, terminal, anchors)


def main(argv: list[str] | None = None) -> int:
    """Run one command; an expected failure is one line on stderr and exit code 2."""
    arguments = build_parser().parse_args(argv)
    terminal = Console(soft_wrap=True)
    try:
        _run(arguments, terminal)
    except (DeployError, SimError) as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
