"""Which releases of MicroPython npm has for Node.js, and where they are.

`python -m host_sim.releases.interpreters` installs them into the virtual environment.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from host_sim.errors import SimError
from host_sim.npm import Pinned

HERE = Path(__file__).parent
RELEASES = Pinned("MicroPython's releases", HERE)
_PREFIX = "micropython-"


@dataclass(frozen=True)
class Release:
    """One of them, such as "1.28.0"; `mpy`: whether it loads compiled modules."""

    name: str
    mpy: bool

    @property
    def short(self) -> str:
        """Such as "1.28"."""
        return ".".join(self.name.split("-")[0].split(".")[:2])


def releases() -> list[Release]:
    """All that package.json pins, oldest first. The two previews have no loader of .mpy."""
    pinned = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    names = [name.removeprefix(_PREFIX) for name in pinned]
    return [Release(name, "preview" not in name) for name in names]


def folder_of(release: str) -> Path:
    """The folder with its micropython.mjs. Raises SimError when it is not installed."""
    folder = RELEASES.find()
    if folder is None:
        raise SimError("MicroPython's releases are not installed: make releases (it needs npm)")
    return folder / "node_modules" / f"{_PREFIX}{release}"


if __name__ == "__main__":
    sys.exit(RELEASES.main())
