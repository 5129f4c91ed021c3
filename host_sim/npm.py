"""What npm brings: installed once into the virtual environment, as a lock file pins it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from host_sim.console.process_broker import find_program
from host_sim.errors import SimError
from insigh_ota.places import cache

_PINNED = ("package.json", "package-lock.json")
_TIMEOUT = 300


@dataclass(frozen=True)
class Pinned:
    """`what` it is, for people; `source`: the folder with its two files of npm."""

    what: str
    source: Path

    @property
    def folder(self) -> Path:
        """Where it belongs."""
        digest = hashlib.sha256(b"".join((self.source / name).read_bytes() for name in _PINNED))
        return cache(self.source.name) / digest.hexdigest()[:16]

    def find(self) -> Path | None:
        """The folder that has it, or None when it, or Node.js, is not installed."""
        folder = self.folder
        return folder if folder.is_dir() and find_program("node") else None

    def install(self) -> Path:
        """Fetch it, once. The folder appears complete or not at all. Raises SimError."""
        folder = self.folder
        if folder.is_dir():
            return folder
        npm = find_program("npm")
        if npm is None or find_program("node") is None:
            raise SimError(f"{self.what}: install Debian's packages nodejs and npm, it needs them")
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            for name in _PINNED:
                shutil.copyfile(self.source / name, fresh / name)
            # No scripts: nothing that is fetched runs before it is asked to.
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(
                [*command, "--loglevel=error"],
                cwd=fresh,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
            if done.returncode:
                raise SimError(f"npm can not install {self.what}: {done.stderr.strip()[-500:]}")
            fresh.rename(folder)
        except subprocess.TimeoutExpired as error:
            raise SimError(f"npm can not install {self.what}: it does not end") from error
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def main(self) -> int:
        """Install it, for a command line."""
        try:
            print(self.install())
        except SimError as error:
            print(f"host_sim: {error}", file=sys.stderr)
            return 2
        return 0
