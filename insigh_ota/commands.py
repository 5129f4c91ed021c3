"""All commands of `insigh-ota`. This module names them; each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence

import click

from host_sim.cli import CONSOLE, DEMO, NODES
from host_sim.command import Entry, Lazy, complete, run
from insigh_ota import places
from insigh_ota.deploy.cli import FOR_BUILDERS, ON_BOARDS

PROGRAM = "insigh-ota"


@click.command(
    help="Print the script that lets your shell complete the commands and options of insigh-ota.",
    epilog='Example: eval "$(insigh-ota completion bash)", in ~/.bashrc',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """`completion`: click's own script."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(insigh_ota, {}, PROGRAM, "_INSIGH_OTA_COMPLETE").source())


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {places.version()}")
        context.exit()


insigh_ota = Lazy(
    PROGRAM,
    help="Over-the-air updates for MicroPython nodes of the insigh.io platform.",
    epilog="Each command has its own --help, and -h. An error is one line on stderr and exit code "
    "2; --json puts data on stdout as JSON. Try first: insigh-ota demo",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        )
    ],
    sections={
        "Look": {"demo": DEMO, "console": CONSOLE},
        "Packages": {
            "package": Entry(
                "insigh_ota.package.cli:package", "build, inspect, verify, keygen, migrate"
            ),
            "push": Entry("insigh_ota.push:push", "a folder onto a node: build, try, request"),
            "rollout": Entry("insigh_ota.rollout.cli:rollout", "a package to a fleet, in waves"),
        },
        "Boards": ON_BOARDS,
        "Virtual nodes": NODES,
        "Firmware builders and mip": FOR_BUILDERS,
        "This command": {
            "completion": Entry(
                "insigh_ota.commands:completion", "the script for your shell's completion"
            )
        },
    },
)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command, or answer the shell that completes one; returns the exit code."""
    answered = complete(insigh_ota, PROGRAM)
    return run(insigh_ota, words, program=PROGRAM) if answered is None else answered
