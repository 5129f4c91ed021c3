"""ROMFS images with the agent, as `mpremote romfs build` makes them: its own code does it."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

from mpremote.romfs import make_romfs

from host_sim.errors import SimError
from host_sim.node.agent_code import compile_all
from host_sim.node.process import compile_mpy

#: Where the agent lies in it; `/rom/lib` is in the sys.path of firmware with ROMFS.
PLACE = "lib"


def lay(folder: Path, firmware: Path, more: Path | None = None) -> None:
    """Write what belongs into the image: the agent of `firmware`, and what is in `more`, compiled.

    Raises SimError when `more` is no folder, has an agent of its own, or does not compile.
    """
    if more is not None:
        if not more.is_dir():
            raise SimError(f"no folder {more}")
        for place in ("ota", f"{PLACE}/ota"):
            if (more / place).exists():
                raise SimError(f"{more} has its own {place}")
        shutil.copytree(more, folder, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        for source in sorted(folder.rglob("*.py")):
            # mpremote would write the path that it has on this machine into it.
            name = source.relative_to(folder).as_posix()
            compile_mpy(source, source.with_suffix(".mpy"), name)
            source.unlink()
    compile_all(firmware, folder / PLACE)


def build(firmware: Path, more: Path | None = None) -> bytes:
    """The image; errors as for `lay`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "rom"
        lay(folder, firmware, more)
        with contextlib.redirect_stdout(io.StringIO()):  # it lists all that it takes
            return make_romfs(str(folder), mpy_cross=False)
