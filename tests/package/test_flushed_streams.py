"""Compressed streams that were flushed anywhere, and those that hold next to nothing.

DeflateIO reads from a buffer that is filled up between its reads (package/ahead.py): it
must find there whatever a compressor may put before the next few bytes, or the package is refused.
"""

from __future__ import annotations

import json
import random
import shutil
import zlib
from pathlib import Path

import pytest

from host_sim.node.flash import FIRMWARE
from host_sim.node.node import run_code

EMPTY = b"\0\0\0\xff\xff"  # a stored block of no bytes, on the boundary of a byte
EMPTY_BLOCKS = "can not apply: bad archive, compressed stream is mostly empty blocks"

READ = """
import binascii, json
from ota.package.archive import open_archive
from ota.package.widen import widen
from ota.errors import OtaError

class Source:
    def __init__(self, file):
        self.file = file
    def readinto(self, buffer, n):
        return self.file.readinto(buffer, min(n, 1 + self.file.tell() * 7 % 1500))

def read(file, size):
    buffer = bytearray(size)
    crc = total = 0
    fault = None
    try:
        reader = open_archive(Source(file))
        if size & 1 == 0:
            widen(reader)  # as where memory is plenty
        while True:
            n = reader.readinto(buffer, size)
            if not n:
                break
            crc = binascii.crc32(memoryview(buffer)[:n], crc)
            total += n
    except OtaError as error:
        fault = str(error)
    return [total, crc, fault]

for path, size in json.loads(STREAMS):
    with open(path, "rb") as file:
        print(json.dumps(read(file, size)))
"""

GROWTH = """
import gc, io
from ota.package.archive import open_archive

def growth(path):
    with open(path, "rb") as file:
        reader = open_archive(io.BytesIO(file.read()))
    buffer = bytearray(1024)
    total = reader.readinto(buffer, 1024)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(1023):
        total += reader.readinto(buffer, 1024)
    print(total, gc.mem_alloc() - before)

growth(PATH)
"""


def on_device(agent: Path, folder: Path, streams: list[tuple[bytes, int]]) -> list:
    """What comes of each stream, read in pieces of so many bytes: [bytes, CRC-32, why no more]."""
    rows = []
    for n, (stream, size) in enumerate(streams):
        path = folder / str(n)
        path.write_bytes(stream)
        rows.append([str(path), size])
    code = f"STREAMS = {json.dumps(rows)!r}\n{READ}"
    result = run_code(code, path=[agent], heap="4M", timeout_s=120)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def expected(data: bytes) -> list:
    return [len(data), zlib.crc32(data), None]


def some_data(rng: random.Random, size: int) -> bytes:
    """Bytes of all sorts, in runs: noise, text, and what repeats."""
    data = bytearray()
    while len(data) < size:
        length = rng.choice((1, 3, 40, 400, 3000))
        kind = rng.randrange(4)
        if kind == 0:
            data += rng.randbytes(length)
        elif kind == 1:
            data += bytes(rng.choices(b"etaoin shrdlu\n", k=length))
        elif kind == 2 and data:
            start = rng.randrange(len(data))
            data += data[start : start + length]
        else:
            data += rng.randbytes(1) * length
    return bytes(data[:size])


def flushed(rng: random.Random, data: bytes) -> bytes:
    """The data as gzip, zlib or microfreezer's format, flushed as only zlib's user could want."""
    form = rng.choice(("gzip", "zlib", "microfreezer"))
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
    packer = zlib.compressobj(
        rng.randrange(10),
        zlib.DEFLATED,
        31 if form == "gzip" else 15,
        rng.randrange(1, 10),
        rng.choice(strategies),
    )
    # In this order each of them leaves a mark of its own, even with nothing in between.
    marks = (zlib.Z_BLOCK, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)
    marks = [mark for mark in marks if rng.random() < 0.6]
    most = rng.choice((1, 2, 5, 50, 500))
    stream = b""
    start = 0
    while start < len(data):
        if rng.random() < 0.002:  # for a while otherwise
            most = rng.choice((1, 2, 5, 50, 500))
        step = rng.randint(1, most)
        stream += packer.compress(data[start : start + step])
        stream += b"".join(packer.flush(mark) for mark in marks)
        start += step
    stream += packer.flush()
    if form == "microfreezer":
        return b"\x1f\x8b\x08" + bytes(5) + stream + zlib.crc32(stream).to_bytes(4, "big")
    return stream


def make(seed: int, count: int) -> list[tuple[bytes, bytes, int]]:
    """(data, stream, bytes to read at a time)"""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        data = some_data(rng, rng.randrange(8000))
        made.append((data, flushed(rng, data), rng.choice((1, 31, 32, 33, 512, 700, 1024))))
    return made


def wrong(agent: Path, folder: Path, seed: int, count: int) -> list:
    """What was not read as it had been written."""
    made = make(seed, count)
    read = on_device(agent, folder, [(stream, size) for _, stream, size in made])
    pairs = zip(read, made, strict=True)
    return [found for found, (data, _, _) in pairs if found != expected(data)]


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))]
)
def test_flushed_anywhere(tmp_path: Path, agent: Path, seed: int):
    assert wrong(agent, tmp_path, seed, 300) == []


def test_each_byte_flushed_in_every_way(tmp_path: Path, agent: Path):
    """The most that zlib can be made to put between two bytes, behind a block with tables."""
    marks = (zlib.Z_BLOCK, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)
    data = some_data(random.Random(5), 20_000)
    streams = []
    for level in range(10):
        packer = zlib.compressobj(level, zlib.DEFLATED, 31)
        stream = packer.compress(data[:17_000]) + packer.flush(zlib.Z_BLOCK)
        for n in range(17_000, 18_000):
            stream += packer.compress(data[n : n + 1])
            stream += b"".join(packer.flush(mark) for mark in marks)
        streams.append((stream + packer.compress(data[18_000:]) + packer.flush(), 1024))
    assert max(len(stream) for stream, _ in streams) > 30_000
    assert on_device(agent, tmp_path, streams) == [expected(data)] * 10


def in_gzip(body: bytes, data: bytes) -> bytes:
    head = b"\x1f\x8b\x08" + bytes(7)
    return head + body + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def empty_blocks(count: int, data: bytes, at: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = packer.compress(data[:at]) + packer.flush(zlib.Z_SYNC_FLUSH) + EMPTY * count
    return in_gzip(body + packer.compress(data[at:]) + packer.flush(), data)


def test_empty_blocks_in_a_row_are_read_or_refused(tmp_path: Path, agent: Path):
    """As long as they fit they are read; when not, the package is refused, and for that reason."""
    data = some_data(random.Random(6), 5000)
    rows = [(count, at) for count in (*range(0, 400, 9), 5000) for at in (0, 1, 33, 2500, 4999)]
    streams = [(empty_blocks(count, data, at), 1024) for count, at in rows]
    assert all(zlib.decompress(stream, 31) == data for stream, _ in streams)
    found = on_device(agent, tmp_path, streams)
    refused = set()
    for (count, at), (total, crc, fault) in zip(rows, found, strict=True):
        assert (total, crc) == (len(data[:total]), zlib.crc32(data[:total])), (count, at)
        assert fault in (None, EMPTY_BLOCKS), (count, at)
        if fault:
            refused.add((count, at))
        else:
            assert total == len(data), (count, at)
    assert refused >= {(5000, at) for at in (0, 1, 33, 2500, 4999)}
    assert min(count for count, _ in refused) > 110


@pytest.mark.few(1)
@pytest.mark.parametrize("form", [31, 15])
def test_cut_off_anywhere(tmp_path: Path, agent: Path, form: int):
    """What lies in the buffer from earlier is never taken for the rest of the stream."""
    data = some_data(random.Random(7), 9000)
    packer = zlib.compressobj(6, zlib.DEFLATED, form)
    stream = packer.compress(data) + packer.flush()
    cuts = [*range(30, len(stream) - 30, 41), *range(len(stream) - 30, len(stream))]
    for total, crc, fault in on_device(agent, tmp_path, [(stream[:cut], 512) for cut in cuts]):
        assert crc == zlib.crc32(data[:total])
        assert fault == "can not apply: bad archive, compressed stream ends early"


def test_reading_allocates_nothing(tmp_path: Path, agent: Path):
    """1 MB out of a gzip stream, in blocks of 1 KB, without a collection."""
    rng = random.Random(8)
    lines = b"".join(b"%06d,%d\n" % (n, rng.randrange(1000)) for n in range(120_000))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    (tmp_path / "stream").write_bytes(packer.compress(lines) + packer.flush())
    code = f"PATH = {str(tmp_path / 'stream')!r}\n{GROWTH}"
    assert run_code(code, path=[agent], heap="4M").output.split() == [str(1 << 20), "0"]


#: Faults planted in the buffer: (file, what stands there, what it becomes).
FAULTS = {
    "too little ahead": ("ahead", "_ENOUGH = const(20)", "_ENOUGH = const(5)"),
    "rest lost": ("ahead", "while end < left:", "while end < left - 1:"),
    "filled up too late": (
        "ahead",
        "end - self.piece * _ENOUGH if self.source",
        "end if self.source",
    ),
    "what lay there earlier": (
        "inflate",
        "if ahead.fill() < 0:",
        "if ahead.fill() is None:",
    ),
}


@pytest.mark.few(1)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(tmp_path: Path, fault: str):
    module, old, new = FAULTS[fault]
    shutil.copytree(FIRMWARE / "ota", tmp_path / "broken" / "ota")
    file = tmp_path / "broken" / "ota/package" / f"{module}.py"
    source = file.read_text()
    assert source.count(old) == 1
    file.write_text(source.replace(old, new))
    if module == "ahead":
        assert wrong(tmp_path / "broken", tmp_path, 1, 100)
    else:
        with pytest.raises(AssertionError):
            test_cut_off_anywhere(tmp_path, tmp_path / "broken", 31)
