"""Make the pictures in docs/ anew: all of them, or those that are named."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from host_sim.errors import SimError

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: By name, the module whose `make(folder)` makes them and returns their paths.
MAKERS = {"page": "tools.screenshots.page", "terminal": "tools.screenshots.terminal"}
#: A clone should stay small.
_MOST = 200 * 1024


def main(names: list[str]) -> int:
    """Make the pictures of these names, or all; returns the exit code."""
    unknown = sorted(set(names) - MAKERS.keys())
    if unknown:
        print(f"no pictures {unknown[0]!r}: there are {', '.join(MAKERS)}", file=sys.stderr)
        return 2
    for name in names or MAKERS:
        try:
            made = importlib.import_module(MAKERS[name]).make(DOCS)
        except SimError as error:
            print(f"screenshots: {error}", file=sys.stderr)
            return 2
        for path in made:
            size = path.stat().st_size
            print(f"{path.relative_to(DOCS.parent)}: {size >> 10} KB")
            if size > _MOST:
                print(f"screenshots: that is more than {_MOST >> 10} KB", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
