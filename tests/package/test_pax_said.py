"""PAX headers that say nothing of a name or a size, which are not given to pax.py, and others."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from host_sim.node.node import run_code
from tests.package.archives.blocks import record

READ = """
import io, sys
from ota.tarfile_lite import TarReader

class Source:
    def __init__(self, data):
        self.file = io.BytesIO(data)
    def readinto(self, buffer, n):
        return self.file.readinto(memoryview(buffer)[:n])

with open(PATH, "rb") as file:
    reader = TarReader(Source(file.read()))
buffer = bytearray(4096)
try:
    while reader.next():
        n = reader.readinto(buffer, 4096) if reader.size else 0
        print(reader.name, reader.size, bytes(buffer[:n]))
except Exception as error:
    print(error)
"""


def block(name: bytes, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name.decode())
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def archive(records: bytes) -> bytes:
    head = block(b"x", b"x", len(records)) + padded(records)
    return head + block(b"main.py", b"0", 3) + padded(b"x=1") + bytes(1024)


SAID = {
    "nothing": b"",
    "a time": record(b"mtime", b"1700000000.25"),
    "times and owners": record(b"mtime", b"17.25") + record(b"uid", b"9999999"),
    "a name": record(b"path", b"other.py") + record(b"mtime", b"17.25"),
    "a name behind": record(b"mtime", b"17.25") + record(b"path", b"other.py"),
    "a long key": record(b"SCHILY.xattr.user." + b"k" * 250, b"1") + record(b"path", b"other.py"),
    "long keys": record(b"SCHILY.xattr." + b"k" * 255, b"v" * 300) * 3 + record(b"path", b"o.py"),
    "a line in a value": record(b"mtime", b"1\n17 path=evil.py"),
}


@pytest.mark.parametrize("records", SAID.values(), ids=SAID)
def test_as_cpython_reads_it(records: bytes, tmp_path: Path, agent: Path):
    data = archive(records)
    (tmp_path / "a.tar").write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        expected = [f"{m.name} {m.size} {theirs.extractfile(m).read()}" for m in theirs]
    output = run_code(f"PATH = {str(tmp_path / 'a.tar')!r}\n{READ}", path=[agent]).output
    assert output.splitlines() == expected


@pytest.mark.parametrize("length", [b"0", b"4", b"99", b"13x", b""])
def test_a_length_that_makes_no_sense(length: bytes, tmp_path: Path, agent: Path):
    (tmp_path / "a.tar").write_bytes(archive(length + b" mtime=1.5\n"))
    output = run_code(f"PATH = {str(tmp_path / 'a.tar')!r}\n{READ}", path=[agent]).output
    assert "bad archive, damaged PAX header" in output
    assert "main.py" not in output


def test_a_name_behind_an_empty_header_is_the_one_that_everybody_sees(tmp_path: Path, agent: Path):
    """The content of data.bin looks like a member: it must not become one."""
    inner = block(b"hidden.py", b"0", 3) + padded(b"x=2")
    data = block(b"x", b"x", 0) + block(b"data.bin", b"0", len(inner)) + inner + bytes(1024)
    (tmp_path / "a.tar").write_bytes(data)
    output = run_code(f"PATH = {str(tmp_path / 'a.tar')!r}\n{READ}", path=[agent]).output
    assert [line.split(" ")[0] for line in output.splitlines()] == ["data.bin"]


@pytest.mark.parametrize("records", [SAID["a time"], SAID["a name"]], ids=["a time", "a name"])
@pytest.mark.parametrize("kept", [1, 15, 511])
def test_cut_inside_a_header_of_pax_is_cut_inside_a_member(
    kept: int, records: bytes, tmp_path: Path, agent: Path
):
    """Where the archive ends is what somebody looks for who packs it again."""
    head = block(b"x", b"x", len(records)) + padded(records)
    (tmp_path / "a.tar").write_bytes(head[: 512 + kept])
    output = run_code(f"PATH = {str(tmp_path / 'a.tar')!r}\n{READ}", path=[agent]).output
    assert "bad archive, ends inside a member" in output
