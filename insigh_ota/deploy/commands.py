"""The commands on boards: who a node is, the agent onto a board and off it, what runs there."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.markup import escape

from host_sim.command import PATH, Output, json_option
from insigh_ota.deploy import ca as anchors
from insigh_ota.deploy import dist as mip
from insigh_ota.deploy import provision as who
from insigh_ota.deploy import rom
from insigh_ota.deploy.deploy import deploy as put
from insigh_ota.deploy.deploy import undeploy as take_off
from insigh_ota.deploy.errors import DeployError
from insigh_ota.deploy.remote import Board
from insigh_ota.deploy.status import status as show

_port = click.option(
    "--port", metavar="DEVICE", help="of the board, such as /dev/ttyUSB0, or a link to it"
)


@click.command(
    help="Write down who a node is, in a file that becomes its /ota.json. Asks for what is not "
    "said; the device key is never an option.",
    epilog="Example: insigh-ota provision --id node-7 --channel 5f0c",
)
@click.option(
    "--file", type=PATH, default=who.DEFAULT, metavar="FILE", help=f"default: {who.DEFAULT}"
)
@click.option("--id", "device_id", metavar="ID", help="of the device")
@click.option("--channel", metavar="ID", help="its control channel")
@click.option("--server", metavar="HOST[:PORT]", help="of the download, by HTTPS")
@click.option("--mqtt", metavar="HOST[:PORT]", help="the broker")
@click.option("--tls", type=click.Choice(["0", "1"]), help="1: MQTT over TLS, which is usual")
@json_option
def provision(
    file: Path,
    device_id: str | None,
    channel: str | None,
    server: str | None,
    mqtt: str | None,
    tls: str | None,
    as_json: bool,
) -> None:
    """`provision`."""
    who.write(
        file,
        device_id=device_id,
        channel=channel,
        server=server,
        mqtt=mqtt,
        tls=None if tls is None else tls == "1",
    )
    terminal, name = Output(as_json).terminal, escape(str(file))
    ignored = who.is_ignored(file)
    terminal.print(
        f"{name} is written; only you can read it{', and git ignores it' if ignored else ''}"
    )
    if who.is_tracked(file):
        folder, base = (shlex.quote(part) for part in (str(file.resolve().parent), file.name))
        terminal.print(
            f"[yellow]git tracks {name}, which holds the device key[/]: take it out with "
            f"git -C {escape(folder)} rm --cached {escape(base)}, and add it to .gitignore; "
            "a key that was committed stays in the history: have a new one made"
        )
    elif ignored is False:
        terminal.print(
            f"[yellow]git does not ignore {name}, which holds the device key[/]: add it to "
            ".gitignore"
        )
    with_tls = who.check(file)[1]
    if not with_tls:
        terminal.print(who.PLAIN)
    Output(as_json).data(file=str(file), git_ignores=ignored, tls=with_tls)


@click.command(
    help="Put the agent, boot.py and /ota.json on a board, verify them, and reset it.",
    epilog="Example: insigh-ota deploy --port /dev/ttyUSB0",
)
@_port
@click.option("--src", is_flag=True, help="sources instead of .mpy")
@click.option(
    "--agent",
    type=click.Choice(["firmware"]),
    help="it is frozen, or in ROMFS: no files of it are copied",
)
@click.option("--boot", type=click.Choice(["keep", "replace"]), help="with a boot.py of your own")
@click.option("--trial", type=click.Choice(["keep"]), help="confirm what is on trial")
@click.option("--provision", type=PATH, metavar="FILE", help=f"default: {who.DEFAULT}")
@json_option
def deploy(
    port: str | None,
    src: bool,
    agent: str | None,
    boot: str | None,
    trial: str | None,
    provision: Path | None,
    as_json: bool,
) -> None:
    """`deploy`."""
    output = Output(as_json)
    told = put(
        Board(port),
        output.terminal,
        source=src,
        in_firmware=agent == "firmware",
        boot=boot,
        keep_trial=trial == "keep",
        provisioning=provision,
    )
    output.data(**told)


@click.command(
    help="Put trust anchors on a board, which it needs for TLS: that of a server, or your own.",
    epilog="Example: insigh-ota ca --port /dev/ttyUSB0 --host console.insigh.io",
)
@_port
@click.option("--host", metavar="HOST[:PORT]", help="the public root of this server")
@click.option("--chain", type=PATH, metavar="FILE", help="that of this server's chain")
@click.option("--file", type=PATH, metavar="FILE", help="these roots, PEM or DER")
@json_option
def ca(
    port: str | None, host: str | None, chain: Path | None, file: Path | None, as_json: bool
) -> None:
    """`ca`."""
    given = [name for name, value in (("host", host), ("chain", chain), ("file", file)) if value]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]}: give one of them")
    if not given:
        raise DeployError(
            "which trust anchor? Say --host SERVER, --chain FILE or --file FILE (with make: "
            "HOST=server, CHAIN=file or CA=file)"
        )
    board, output = Board(port), Output(as_json)
    if host:
        found = [anchors.of_host(host)]
    elif chain:
        found = [anchors.of_chain(chain)]
    else:
        assert file is not None
        found = anchors.of_file(file)
    output.data(**anchors.install(board, output.terminal, found))


@click.command(
    help="Tell what runs on a board. It is interrupted for this, and begins anew afterwards.",
    epilog="Example: insigh-ota status --port /dev/ttyUSB0 --json",
)
@_port
@click.option("--stay", is_flag=True, help="do not reset it afterwards")
@json_option
def status(port: str | None, stay: bool, as_json: bool) -> None:
    """`status`."""
    output = Output(as_json)
    output.data(**show(Board(port), output.terminal, stay))


@click.command(help="Take the agent, its configuration and its state off a board.")
@_port
def undeploy(port: str | None) -> None:
    """`undeploy`."""
    take_off(Board(port), Output(False).terminal)


@click.command(help="Bring package.json up to date, and make dist/ with the compiled agent.")
@json_option
def dist(as_json: bool) -> None:
    """`dist`."""
    output = Output(as_json)
    mip.refresh(output.terminal)
    output.data(**mip.write(output.terminal))


@click.command(help="Make an image with the agent for a firmware's ROMFS.")
@click.option(
    "--out", type=PATH, default=rom.DEFAULT, metavar="FILE", help=f"default: {rom.DEFAULT}"
)
@click.option("--more", type=PATH, metavar="DIR", help="what else belongs into it")
@json_option
def romfs(out: Path, more: Path | None, as_json: bool) -> None:
    """`romfs`."""
    output = Output(as_json)
    output.data(**rom.write(output.terminal, out, more))
