"""An install that began never finds flash full, however little of it is free.

Each kind of package is tried with more and more blocks free, one by one where the border is: it is
refused before the commit and the old tree stands, or it is installed, confirmed and rolled back
without an error.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from host_sim.node.node import run_code
from tests.conftest import FIRMWARE

DEVICE = Path(__file__).parents[1] / "device"
KINDS = re.findall(
    r"^    (\w+),$", (DEVICE / "tight_packages.py").read_text().split("KINDS = (")[1], re.MULTILINE
)
# Enough for each package, and little, for the filler has to be written.
BLOCKS = {"small_files_in_new_folders": 224}
OTHER_BLOCKS = 144
SCRIPT = """
import tight_flash
import tight_packages
old, package = getattr(tight_packages, KIND)()
tight_flash.sweep(tight_flash.Flash(old, RECOVERY, BLOCKS), package, 5)
"""


def test_there_are_kinds_of_packages():
    assert len(KINDS) >= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if n % 3 else [])
        for n, kind in enumerate(KINDS)
    ],
)
def test_refused_before_the_commit_or_installed(kind: str, compiled: Path):
    # The agent's largest form is what the commit leaves a copy of.
    recovery = (FIRMWARE / "ota" / "recovery.py").read_bytes()
    names = {"KIND": kind, "RECOVERY": recovery, "BLOCKS": BLOCKS.get(kind, OTHER_BLOCKS)}
    lines = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    result = run_code(lines + SCRIPT, path=[compiled, DEVICE], heap="32M", timeout_s=110)
    assert result.exit_code == 0, result.output[-2000:]
    rows = sorted(json.loads(line) for line in result.output.splitlines())

    outcomes = [outcome for _, _, outcome in rows]
    wrong = [
        row for row in rows if row[2] != "installed" and not row[2].startswith("not enough space")
    ]
    assert wrong == []
    # Both ends of the sweep were seen, and what has once been enough is enough.
    assert outcomes[0] != "installed"
    first = outcomes.index("installed")
    assert set(outcomes[first:]) == {"installed"}
