"""Real archivers and compressors, run on a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

#: The Debian package that brings a program.
PACKAGES = {
    "tar": "tar",
    "bsdtar": "libarchive-tools",
    "busybox": "busybox",
    "git": "git",
    "gzip": "gzip",
    "pigz": "pigz",
    "zopfli": "zopfli",
}
# Names are UTF-8 on the disk; programs should know, and stamp the same time zone everywhere.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": os.environ.get("PATH", os.defpath)}


def need(program: str) -> None:
    """Skip the test without this program; in CI, where it is to be installed, fail it."""
    if shutil.which(program) is None or (program == "tar" and not _is_gnu_tar()):
        message = f"{program} is not installed (Debian's package {PACKAGES[program]})"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def _is_gnu_tar() -> bool:
    return b"GNU tar" in subprocess.run(["tar", "--version"], capture_output=True).stdout


def output_of(command: list[str], folder: Path, stdin: bytes = b"") -> bytes:
    """What the program writes to standard output, run in a folder. Its failure fails the test."""
    need(command[0])
    done = subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, env=_ENVIRONMENT, timeout=60
    )
    assert done.returncode == 0, (command, done.stderr[-500:])
    return done.stdout
