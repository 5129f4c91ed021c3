"""`console` as a click command, until host_sim/console/cli.py defines it as one."""

from __future__ import annotations

import argparse

import click

from host_sim.console import cli


def _run(words: tuple[str, ...]) -> int:
    parser = argparse.ArgumentParser(prog="insigh-ota")
    cli.register(parser.add_subparsers())
    arguments = parser.parse_args(["console", *words])
    return arguments.run(arguments)


console = getattr(cli, "console", None) or click.Command(
    "console",
    callback=_run,
    params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
