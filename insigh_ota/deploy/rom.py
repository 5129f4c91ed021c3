"""``romfs``: the agent as an image for the ROMFS partition of a firmware."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from host_sim import files
from host_sim.node import romfs
from insigh_ota.deploy import firmware

#: In the current folder.
DEFAULT = Path("build/ota.romfs")


def write(terminal: Console, out: Path = DEFAULT, more: Path | None = None) -> dict:
    """Make the image `out`, with what is in the folder `more` beside the agent.

    Returns what was made, for programs.
    """
    image = romfs.build(firmware.FIRMWARE, more)
    files.write(out, image, parents=True)
    name = escape(str(out))
    terminal.print(f"{name}: {len(image)} bytes, agent {firmware.version()}")
    terminal.print(f"To a board that has room for it: mpremote romfs deploy {name}")
    return {"image": str(out), "bytes": len(image), "agent": firmware.version()}
