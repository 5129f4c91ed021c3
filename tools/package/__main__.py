"""`python -m tools.package`, as older instructions have it."""

from __future__ import annotations

if __name__ == "__main__":
    from host_sim import first  # noqa: F401

import sys

from host_sim import ctrl_c
from insigh_ota.package.__main__ import main

if __name__ == "__main__":
    sys.exit(ctrl_c.run(main))
