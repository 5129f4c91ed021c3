"""Both readers: the device's inside MicroPython, and CPython's `tarfile` with its data filter."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from host_sim.node.node import run_code
from tests.package.archives.wrapping import Damaged, Wrapped, unwrap
from tests.private_names import private

_SCRIPT = Path(__file__).with_name("on_device.py")
#: Where members would go; it must not exist, so that no link there changes what the filter says.
DESTINATION = "/nonexistent/node"
HAS_FILTER = hasattr(tarfile, "data_filter")


class Member(NamedTuple):
    """What a reader found. path: absolute and clean. sha256: in hexadecimal, None for folders."""

    path: str
    is_folder: bool
    size: int
    sha256: str | None


@dataclass
class DeviceReading:
    """What the device's reader made of an archive: members up to the error, if there was one."""

    members: list[Member]
    error: str | None


def read_on_device(
    agent: Path, archives: list[bytes], noises: list[int] | None = None
) -> list[DeviceReading]:
    """All archives in one interpreter. agent: the folder to import `ota` from.

    noises: a number for each archive, which decides in what pieces it arrives.
    """
    with tempfile.TemporaryDirectory() as scratch:
        pack = Path(scratch, "pack")
        with pack.open("wb") as file:
            for noise, data in zip(noises or range(len(archives)), archives, strict=True):
                file.write(len(data).to_bytes(4, "big") + noise.to_bytes(4, "big") + data)
        script = f"PACK = {str(pack)!r}\n" + _SCRIPT.read_text()
        for name in ("_add_file", "_add_folder", "_feed"):
            script = script.replace(name, private(agent, "install/staging", name))
        result = run_code(script, path=[agent], heap="1M", timeout_s=600)
    if result.exit_code:
        raise RuntimeError("the device's reader ended: " + result.output[-2000:])
    readings, members = [], []
    for line in result.output.splitlines():
        said = json.loads(line)
        if isinstance(said, list):
            members.append(Member(*said))
        else:
            readings.append(DeviceReading(members, said))
            members = []
    if len(readings) != len(archives):
        raise RuntimeError(f"{len(readings)} answers for {len(archives)} archives")
    return readings


class Entry(NamedTuple):
    """A member as CPython sees it. start: offset of its first block, extended headers included.

    member: None when the filter, or the end of the archive, kept CPython from extracting it.
    """

    info: tarfile.TarInfo
    start: int
    member: Member | None


@dataclass
class Reading:
    """What CPython made of an archive.

    damaged: why the wrapping could not be read; nothing else is known then. refusal: why it
    stopped. end: the offset in `plain` where it did, or took the archive to end.
    """

    plain: bytes = b""
    entries: list[Entry] = field(default_factory=list)
    damaged: str | None = None
    refusal: Exception | None = None
    end: int = 0

    @property
    def members(self) -> list[Member]:
        """All that CPython would have extracted."""
        return [entry.member for entry in self.entries if entry.member]


def clean(name: str) -> str:
    """The absolute path of a name that stays inside the root."""
    return posixpath.normpath("/" + name.lstrip("/"))


def read_here(wrapped: Wrapped) -> Reading:
    """Read an archive by CPython alone."""
    try:
        return read_tar(unwrap(wrapped))
    except Damaged as error:
        return Reading(damaged=str(error))


def read_tar(plain: bytes) -> Reading:
    """Read tar bytes with `tarfile`, each member through its data filter."""
    reading = Reading(plain)
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:", encoding="utf-8") as archive:
            for info in archive:
                reading.entries.append(Entry(info, reading.end, None))
                member = _member(archive, info)
                reading.entries[-1] = Entry(info, reading.end, member)
                reading.end = archive.offset
    except Exception as error:  # it has no one class of errors for damaged archives
        reading.refusal = error
    return reading


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    path = clean(tarfile.data_filter(info, DESTINATION).name)
    if info.isdir():
        return Member(path, True, 0, None)
    if info.issym() or info.islnk():
        return Member(path, False, 0, "link")
    content = archive.extractfile(info).read()
    return Member(path, False, len(content), hashlib.sha256(content).hexdigest())
