"""Archives of many programs' shapes, read inside MicroPython and by CPython: the same members."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
import zlib
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.node.node import run_code

READ = """
import binascii, hashlib, json, os, sys
from ota.errors import OtaError
from ota.package.archive import open_archive
from ota.tarfile_lite import TarReader

class File:
    def __init__(self, path):
        self.file = open(path, "rb")
    def readinto(self, buffer, n):
        # A link gives what it has: sometimes a byte, sometimes much.
        return self.file.readinto(buffer, min(n, 1 + self.file.tell() * 7 % 1500))

for path in json.loads(PATHS):
    members = []
    error = None
    try:
        archive = open_archive(File(path))
        reader = TarReader(archive)
        buffer = bytearray(700)
        while reader.next():
            digest = hashlib.sha256()
            while True:
                n = reader.readinto(buffer, 700)
                if not n:
                    break
                digest.update(memoryview(buffer)[:n])
            hexed = None if reader.is_folder else binascii.hexlify(digest.digest()).decode()
            members.append([reader.name.rstrip("/"), reader.is_folder, reader.size, hexed])
        while archive.readinto(buffer, 512):
            pass
    except OtaError as e:
        error = str(e)
    print(json.dumps([members, error]))
"""


def read_on_device(agent: Path, paths: list[Path]) -> list[tuple[list, str | None]]:
    """(members, error) of each archive, as the node's reader sees it."""
    names = json.dumps([str(p) for p in paths])
    result = run_code(f"PATHS = {names!r}\n" + READ, path=[agent], heap="4M")
    assert result.exit_code == 0, result.output
    return [tuple(json.loads(line)) for line in result.output.splitlines()]


def read_here(data: bytes) -> list[list]:
    """The same from CPython's tarfile."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = b"" if member.isdir() else archive.extractfile(member).read()
            digest = None if member.isdir() else hashlib.sha256(content).hexdigest()
            members.append([member.name, member.isdir(), len(content), digest])
    return members


def random_tree(rng: random.Random, tar_format: int) -> sample.Tree:
    longest = 100 if tar_format == tarfile.USTAR_FORMAT else 400
    letters = "abcXYZ019-_ .äß中" if tar_format != tarfile.USTAR_FORMAT else "abcXYZ019-_"
    tree = {}
    for _ in range(rng.randrange(1, 9)):
        parts = [
            "".join(rng.choices(letters, k=rng.randrange(1, 40))).strip(" .") or "x"
            for _ in range(rng.randrange(1, 6))
        ]
        name = "/".join(parts)[:longest].strip("/ .") or "x"
        size = rng.choice([0, 1, 511, 512, 513, rng.randrange(9000)])
        tree[name] = rng.randbytes(size)
    return {n: c for n, c in tree.items() if not any(o.startswith(n + "/") for o in tree)}


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.few(1)
@pytest.mark.parametrize("tar_format", FORMATS)
def test_the_same_members_as_tarfile(tmp_path: Path, agent: Path, tar_format: str):
    rng = random.Random(tar_format)
    archives = []
    for n in range(120):
        plain = sample.tar(
            random_tree(rng, FORMATS[tar_format]),
            tar_format=FORMATS[tar_format],
            prefix=rng.choice(["", "./"]),
        )
        # Not zlib.compress(): before Python 3.11 it knows no window size.
        compressor = zlib.compressobj(rng.randrange(10), wbits=rng.randrange(9, 16))
        stream = compressor.compress(plain) + compressor.flush()
        wrapped = b"\x1f\x8b\x08" + bytes(5) + stream + zlib.crc32(stream).to_bytes(4, "big")
        shapes = [plain, gzip.compress(plain, rng.randrange(10)), stream, wrapped]
        path = tmp_path / f"{n}.bin"
        path.write_bytes(shapes[n % 4])
        archives.append((path, plain))
    seen = read_on_device(agent, [path for path, _ in archives])
    assert len(seen) == len(archives)
    for (path, plain), (members, error) in zip(archives, seen, strict=True):
        assert error is None, (path, error)
        assert members == read_here(plain), path


def test_gzip_headers_with_every_optional_field(tmp_path: Path, agent: Path):
    plain = sample.tar({"a/b.txt": b"content" * 300})
    body = gzip.compress(plain)[10:]
    paths = []
    for flags in range(32):
        header = bytes([0x1F, 0x8B, 8, flags, 1, 2, 3, 4, 2, 3])
        if flags & 4:
            header += b"\x05\x00extra"
        if flags & 8:
            header += b"name.tar\0"
        if flags & 16:
            header += b"a comment\0"
        if flags & 2:
            header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")  # RFC 1952, CRC16
        path = tmp_path / f"{flags}.gz"
        path.write_bytes(header + body)
        assert gzip.decompress(path.read_bytes()) == plain
        paths.append(path)
    for members, error in read_on_device(agent, paths):
        assert error is None
        assert members == read_here(plain)


def header(name: bytes = b"x", size: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """One ustar header, by hand, so that it can be wrong."""
    raw = bytearray(512)
    raw[: len(name)] = name
    raw[100:108] = b"0000644\0"
    raw[124:136] = b"%011o\0" % size
    raw[136:148] = b"00000000000\0"
    raw[156:157] = kind
    raw[257:265] = b"ustar\x0000"
    for field, value in fields.items():
        at = {"size_raw": 124, "magic": 257, "prefix": 345}[field]
        raw[at : at + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


END = bytes(1024)
BLOCK = b"c".ljust(512, b"\0")
REFUSED = {
    "hard link": (header(kind=b"1") + END, "neither file nor folder"),
    "symbolic link": (header(kind=b"2") + END, "neither file nor folder"),
    "character device": (header(kind=b"3") + END, "neither file nor folder"),
    "block device": (header(kind=b"4") + END, "neither file nor folder"),
    "fifo": (header(kind=b"6") + END, "neither file nor folder"),
    "GNU sparse": (header(kind=b"S") + END, "neither file nor folder"),
    "wrong check sum": (
        header() + b"y" + header(name=b"z")[1:] + END,
        "header check sum differs",
    ),
    "cut inside a header": (header() + header()[:300], "ends inside a block"),
    "cut inside content": (header(size=600) + BLOCK, "ends inside a member"),
    "cut inside padding": (header(size=3) + BLOCK[:100], "ends inside a member"),
    "data after a zero block": (header() + bytes(512) + header(), "data after a zero block"),
    "size not octal": (header(size_raw=b"0000000009x\0") + END, "number is not octal"),
    "negative size": (header(size_raw=b"\xff" * 12) + END, "negative or huge number"),
    "size beyond everything": (header(size_raw=b"\x80" + b"\xff" * 11) + END, "ends inside"),
    "PAX that lies about its length": (
        header(kind=b"x", size=12) + b"99 path=abc\n".ljust(512, b"\0") + header() + END,
        "damaged PAX header",
    ),
    "PAX without an end": (
        header(kind=b"x", size=11) + b"12 path=abc".ljust(512, b"\0") + header() + END,
        "damaged PAX header",
    ),
    "PAX sparse": (
        header(kind=b"x", size=22) + b"22 GNU.sparse.major=1\n".ljust(512, b"\0") + header() + END,
        "sparse file",
    ),
    "PAX of a megabyte": (header(kind=b"x", size=1 << 20) + END, "damaged PAX header"),
    "PAX behind nothing": (
        header(kind=b"x", size=12) + b"12 path=abc\n".ljust(512, b"\0") + END,
        "ends after an extended header",
    ),
    "name that is not UTF-8": (header(name=b"\xff\xfe") + END, "name is not UTF-8"),
    "folder with content": (header(name=b"d/", size=3) + BLOCK + END, "a folder has content"),
}


def test_damaged_and_hostile_archives_are_refused(tmp_path: Path, agent: Path):
    paths = []
    for n, (data, _) in enumerate(REFUSED.values()):
        paths.append(tmp_path / f"{n}.tar")
        # Behind a sound first member, so that it is known for a tar archive.
        paths[-1].write_bytes(header(name=b"first") + data)
    seen = read_on_device(agent, paths)
    for (row, (_, reason)), (_, error) in zip(REFUSED.items(), seen, strict=True):
        assert error and error.startswith("can not apply: ") and reason in error, (row, error)


@pytest.mark.few(2)
@pytest.mark.parametrize("tar_format", FORMATS)
def test_an_archive_cut_between_any_two_members_is_refused(
    tmp_path: Path, agent: Path, tar_format: str
):
    """At every block that could be its end, wrapped as well: a wrapping is sound, too, then."""
    tree = {f"folder/file {n}.txt": b"x" * 300 * n for n in range(6)}
    plain = sample.tar(tree, tar_format=FORMATS[tar_format])
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        cuts = [member.offset for member in archive]
    end = len(plain.rstrip(b"\0")) + 511 & ~511
    paths = []
    for cut in [*cuts[1:], end, end + 512, end + 1024]:
        for shape, data in (("tar", plain[:cut]), ("gz", gzip.compress(plain[:cut]))):
            paths.append(tmp_path / f"{cut}.{shape}")
            paths[-1].write_bytes(data)
    *cut_ones, plain_seen, wrapped_seen = read_on_device(agent, paths)
    assert len(cut_ones) >= 2 * 7
    for path, (_, error) in zip(paths, cut_ones, strict=False):
        assert error == "can not apply: bad archive, it has no end", path.name
    assert plain_seen == wrapped_seen == (read_here(plain), None)


def test_old_and_odd_but_sound_archives(tmp_path: Path, agent: Path):
    base256 = header(size_raw=b"\x80" + bytes(10) + b"\x01")
    rows = {
        "v7": (header(magic=bytes(8)), [["x", False, 0]]),
        "v7 folder": (header(name=b"d/", magic=bytes(8)), [["d", True, 0]]),
        "old file type": (header(kind=b"\0"), [["x", False, 0]]),
        "contiguous file": (header(kind=b"7"), [["x", False, 0]]),
        "prefix": (header(prefix=b"a/b"), [["a/b/x", False, 0]]),
        "base-256 size": (base256 + BLOCK, [["x", False, 1]]),
        "spaces round the size": (header(size_raw=b" 1 \0".ljust(12, b"\0")) + BLOCK, None),
    }
    paths = []
    for n, (data, _) in enumerate(rows.values()):
        paths.append(tmp_path / f"{n}.tar")
        paths[-1].write_bytes(data + END)
    for (row, (_, expected)), (members, error) in zip(
        rows.items(), read_on_device(agent, paths), strict=True
    ):
        assert error is None, (row, error)
        if expected:
            assert [m[:3] for m in members] == expected, row


def test_truncation_of_compressed_archives_is_always_seen(tmp_path: Path, agent: Path):
    tree = {"a.txt": random.Random(4).randbytes(300)}
    for build in (sample.tar_gz, sample.microfreezer):
        data = build(tree)
        paths = []
        for length in range(len(data)):
            paths.append(tmp_path / f"{build.__name__}{length}")
            paths[-1].write_bytes(data[:length])
        for path, (_, error) in zip(paths, read_on_device(agent, paths), strict=True):
            assert error, path


DAMAGED = "can not apply: bad archive, compressed stream is damaged"
WINDOWS = """
import sys, deflate
taken = []

class Spy:
    GZIP, RAW, ZLIB = deflate.GZIP, deflate.RAW, deflate.ZLIB

    def DeflateIO(self, stream, kind, bits):
        taken.append(bits)
        return deflate.DeflateIO(stream, kind, bits)

sys.modules["deflate"] = Spy()
from ota.package.archive import open_archive
for path in PATHS:
    with open(path, "rb") as file:
        reader = open_archive(file)
        try:
            data = bytearray()
            piece = bytearray(512)
            while True:
                n = reader.readinto(piece, 512)
                if not n:
                    break
                data += piece[:n]
            print(taken, len(data))
        except Exception as error:
            print(taken, error)
        taken.clear()
"""


def in_gzip(data: bytes, window: int, says: bytes) -> bytes:
    head = b"\x1f\x8b\x08\x04" + bytes(6) + len(says).to_bytes(2, "little") + says
    deflate = zlib.compressobj(9, zlib.DEFLATED, -window)
    body = deflate.compress(data) + deflate.flush()
    return head + body + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def test_a_window_as_small_as_the_packager_says(tmp_path: Path, agent: Path):
    """Its extra field is taken at its word; one that lies makes the archive a damaged one."""
    far = random.Random(9).randbytes(3000)
    data = sample.tar({"a.bin": far + far})  # looks back 3000 bytes where it may
    rows = {
        in_gzip(data, 9, b"OW\1\0\x09"): f"[9] {len(data)}",
        in_gzip(data, 12, b"OW\1\0\x0c"): f"[12] {len(data)}",
        in_gzip(data, 12, b"OW\1\0\x09"): "[9] " + DAMAGED,
        in_gzip(data, 15, b"OW\1\0\x10"): f"[15] {len(data)}",
        in_gzip(data, 15, b"OW\1\0\x08"): f"[15] {len(data)}",
        in_gzip(data, 15, b"XY\1\0\x09"): f"[15] {len(data)}",
        in_gzip(data, 9, b"OW\2\0\x09\1"): f"[9] {len(data)}",
        in_gzip(data, 12, b"OW\2\0\x0c\xfe"): f"[12] {len(data)}",  # flags of a later packager
        in_gzip(data, 15, b"OW\2\0\x10\1"): f"[15] {len(data)}",
        in_gzip(data, 15, b"XY\2\0\x09\1"): f"[15] {len(data)}",
        in_gzip(data, 15, b"OW\2\0\x09"): f"[15] {len(data)}",
        in_gzip(data, 15, b"OW\1\0\x09\1"): f"[15] {len(data)}",
        in_gzip(data, 15, b"OW\3\0\x09\1\1"): f"[15] {len(data)}",
        in_gzip(data, 9, b"OW\1\0\x09") + in_gzip(data, 15, b""): f"[9, 15] {2 * len(data)}",
    }
    paths = []
    for n, content in enumerate(rows):
        paths.append(str(tmp_path / str(n)))
        Path(paths[-1]).write_bytes(content)
    result = run_code(f"PATHS = {paths!r}\n" + WINDOWS, path=[agent], heap="1M")
    assert result.output.splitlines() == list(rows.values())
