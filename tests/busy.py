"""How much longer something takes on a machine that is busy with other tests."""

from __future__ import annotations

import os


def factor() -> float:
    """How many programs want each core, 1 at least: a limit of time is multiplied by it."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
