"""How much longer something takes on a machine that is busy with other tests."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def factor() -> float:
    """How many programs want each core, 1 at least: a limit of time is multiplied by it."""
    wanted = os.getloadavg()[0]
    # The average is a minute late: at its begin a busy time is not seen in it.
    with contextlib.suppress(OSError):
        wanted = max(wanted, int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]))
    return max(1.0, wanted / (os.cpu_count() or 1))
