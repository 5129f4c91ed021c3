"""`python -m insigh_ota.package`: the same commands as `insigh-ota package`."""

from __future__ import annotations

if __name__ == "__main__":
    from host_sim import first  # noqa: F401

from host_sim import ctrl_c

if __name__ == "__main__":
    ctrl_c.watch()  # before the imports below, which take their time

import sys
from collections.abc import Sequence

from host_sim.command import run
from insigh_ota.package.cli import package


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; an expected failure is one line on stderr and exit code 2."""
    return run(package, words, program="python -m insigh_ota.package")


if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
