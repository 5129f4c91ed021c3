"""Small archives cut at every byte, and with every single bit flipped: never installed.

The exceptions carry no content, and are listed here; what they leave on the node is byte for byte
what the sound archive leaves.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import pytest

from host_sim.node.node import run_code
from tests.package.hostile.raw import BLOCK, END, OLD_TREE, member
from tests.package.hostile.streams import freezer

DEVICE = Path(__file__).parents[1] / "device"
CONTENT = b"the first file\n" * 3
FIRST = member(b"a.txt", CONTENT)
TAR = FIRST + member(b"lib/b.txt", b"and another one") + END
GZIP_HEADER = 10
GZIP_TRAILER = 8


def compressed(wbits: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    compressor = zlib.compressobj(9, wbits=wbits, strategy=strategy)
    return compressor.compress(TAR) + compressor.flush()


SHAPES = {
    "tar": TAR,
    # With deflate's fixed codes, and with tables of codes in front of the blocks.
    "gzip": compressed(31, zlib.Z_FIXED),
    "gzip tables": gzip.compress(TAR, 9, mtime=0),
    "zlib": compressed(15, zlib.Z_FIXED),
    "microfreezer": freezer(zlib.compress(TAR, 9)),
}
#: Bits of a gzip header that say nothing about the content.
NO_CONTENT = {
    "FTEXT, a hint that this is text": {3 * 8},
    "MTIME, when the original was changed": set(range(4 * 8, 8 * 8)),
    "XFL, how hard the compressor tried": set(range(8 * 8, 9 * 8)),
    "OS, where the original was": set(range(9 * 8, 10 * 8)),
}
SCRIPT = """
import json
import staging_probe as probe
_trial = False  # our boot.py has run: else nothing is installed
"""
THROUGH_FLASH = """
node = probe.Node(FILES)
probe.run_damage(node, BASE, probe.%s(BASE))
"""
THROUGH_THE_READER = """
sound = probe.read(BASE, len(BASE))[0]
for at, damaged, announced in probe.%s(BASE):
    members, reason = probe.read(damaged, announced)
    if members is not None:
        print(json.dumps([at, announced, members == sound]))
"""


def try_all(agent: Path, shape: str, script: str) -> list:
    """What the device says of the damaged forms of a shape that were not simply refused."""
    names = {"FILES": OLD_TREE, "BASE": SHAPES[shape]}
    lines = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    result = run_code(lines + SCRIPT + script, path=[agent, DEVICE], heap="16M", timeout_s=100)
    assert result.exit_code == 0, result.output[-2000:]
    return [json.loads(line) for line in result.output.splitlines()]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bits_of_the_stream_without_content(data: bytes, header: int, trailer: int) -> set[int]:
    """Bits of raw deflate inside data that mean nothing, as CPython's zlib says.

    Padding behind the last block, and distances of copies inside a run of zeros, where one
    distance gives the same as another.
    """
    found = set()
    for bit in range(8 * header, 8 * (len(data) - trailer)):
        stream = zlib.decompressobj(-15)
        try:
            same = stream.decompress(flipped(data, bit)[header:]) == TAR
        except zlib.error:
            continue
        if same and stream.eof and len(stream.unused_data) == trailer:
            found.add(bit)
    return found


@pytest.mark.few(1)
@pytest.mark.parametrize("shape", ["gzip", "gzip tables", "zlib", "microfreezer"])
def test_a_compressed_archive_that_is_cut_is_never_installed(compiled: Path, shape: str):
    """At every byte; announced as the whole, and as what is left of it."""
    *installed, refused = try_all(compiled, shape, THROUGH_FLASH % "cuts")
    assert installed == []
    assert refused == 2 * (len(SHAPES[shape]) - 1)


@pytest.mark.slow
def test_a_plain_archive_that_is_cut_is_never_installed(compiled: Path):
    """At every byte: between members, too, where only the missing end tells."""
    *installed, refused = try_all(compiled, "tar", THROUGH_FLASH % "cuts")
    assert installed == []
    assert refused == 2 * (len(TAR) - 1)


@pytest.mark.slow
def test_flipped_bits_of_gzip(compiled: Path):
    data = SHAPES["gzip"]
    header = set.union(*NO_CONTENT.values())
    stream = bits_of_the_stream_without_content(data, GZIP_HEADER, GZIP_TRAILER)
    *installed, refused = try_all(compiled, "gzip", THROUGH_FLASH % "flips")
    assert {flip["at"] for flip in installed} == header | stream
    assert all(flip["end"] == "reset" and flip["same"] for flip in installed)
    assert refused + len(installed) == 8 * len(data)
    assert len(stream) < len(data)


@pytest.mark.slow
def test_flipped_bits_of_gzip_with_tables_of_codes(compiled: Path):
    """As before, but for bits of the tables that belong to codes which no symbol uses.

    zlib refuses a table with a gap; the interpreter's inflate takes it, and the check sum proves
    that nothing of the content hung on it.
    """
    data = SHAPES["gzip tables"]
    expected = set.union(*NO_CONTENT.values())
    expected |= bits_of_the_stream_without_content(data, GZIP_HEADER, GZIP_TRAILER)
    *installed, refused = try_all(compiled, "gzip tables", THROUGH_FLASH % "flips")
    seen = {flip["at"] for flip in installed}
    assert expected <= seen
    assert len(seen - expected) <= 8
    assert max(seen - expected, default=0) < 8 * len(data) / 2
    assert all(flip["end"] == "reset" and flip["same"] for flip in installed)
    assert refused + len(installed) == 8 * len(data)


@pytest.mark.slow
def test_flipped_bits_of_zlib(compiled: Path):
    data = SHAPES["zlib"]
    stream = bits_of_the_stream_without_content(data, 2, 4)
    *installed, refused = try_all(compiled, "zlib", THROUGH_FLASH % "flips")
    assert {flip["at"] for flip in installed} == stream
    assert all(flip["end"] == "reset" and flip["same"] for flip in installed)
    assert refused + len(installed) == 8 * len(data)


@pytest.mark.slow
def test_flipped_bits_of_microfreezer(compiled: Path):
    """Its outer check sum covers every bit of its stream."""
    *installed, refused = try_all(compiled, "microfreezer", THROUGH_FLASH % "flips")
    assert installed == []
    assert refused == 8 * len(SHAPES["microfreezer"])


@pytest.mark.slow
def test_flipped_bits_of_a_plain_archive(compiled: Path):
    """tar has a check sum of each header and none of the content: nothing can see a flip there."""
    read = try_all(compiled, "tar", THROUGH_THE_READER % "flips")
    passed = {at: same for at, _, same in read}
    content, padding, sums, other = set(), set(), set(), set()
    for at in passed:
        block, byte = divmod(at // 8, BLOCK)
        if block in (1, 3):
            length = len(CONTENT) if block == 1 else 15
            (content if byte < length else padding).add(at)
        else:
            (sums if block < 4 and 148 <= byte < 156 else other).add(at)
    assert other == set()
    # How the check sum is spelt: a leading zero may be a space, what follows its end is free.
    assert all(passed[at] for at in sums | padding)
    assert len(sums) <= 2 * 12
    # Every bit of the content passes, and shows.
    assert len(content) == 8 * (len(CONTENT) + 15)
    assert not any(passed[at] for at in content)
    assert len(padding) == 8 * (2 * BLOCK - len(CONTENT) - 15)
