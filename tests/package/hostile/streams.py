"""Compression that lies: check sums, lengths, headers, what stands behind the end."""

from __future__ import annotations

import gzip
import zlib

from tests.package.hostile.raw import member, package
from tests.package.hostile.registry import BAD, hostile

TAR = package(member(b"lib/new.txt", b"content\n" * 100))
DAMAGED = BAD + "compressed stream is damaged"
EARLY = BAD + "compressed stream ends early"
BEHIND = BAD + "data after the compressed stream"
UNKNOWN = BAD + "unknown gzip method or flags"
CRC = BAD + "CRC-32 differs"


def deflated(data: bytes = TAR) -> bytes:
    """Raw deflate."""
    compressor = zlib.compressobj(9, wbits=-15)
    return compressor.compress(data) + compressor.flush()


def gz(
    stream: bytes | None = None, *, method: int = 8, flags: int = 0, fields: bytes = b""
) -> bytes:
    """gzip, with the header's optional fields as given and the trailer that belongs to TAR."""
    head = bytes([0x1F, 0x8B, method, flags]) + bytes(5) + b"\xff" + fields
    trailer = zlib.crc32(TAR).to_bytes(4, "little") + len(TAR).to_bytes(4, "little")
    return head + (deflated() if stream is None else stream) + trailer


def freezer(stream: bytes | None = None, crc: int | None = None) -> bytes:
    """microfreezer's format round a zlib stream."""
    stream = zlib.compress(TAR) if stream is None else stream
    crc = zlib.crc32(stream) if crc is None else crc
    return b"\x1f\x8b\x08" + bytes(5) + stream + crc.to_bytes(4, "big")


def flipped(data: bytes, at: int) -> bytes:
    """One bit of one byte changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@hostile(CRC)
def gzip_crc() -> bytes:
    """The check sum of something else."""
    return flipped(gz(), -8)


@hostile(BAD + "length differs")
def gzip_length() -> bytes:
    """The length of something else."""
    return flipped(gz(), -4)


@hostile(BAD + "length differs")
def gzip_length_of_nothing() -> bytes:
    """Zero, which some programs write when they do not know."""
    return gz()[:-4] + bytes(4)


@hostile(UNKNOWN)
def gzip_method() -> bytes:
    """Method 7, which never was."""
    return gz(method=7)


@hostile(UNKNOWN)
def gzip_reserved_flag_5() -> bytes:
    """A bit that must be zero: there may be a field behind it that nobody knows."""
    return gz(flags=0x20)


@hostile(UNKNOWN)
def gzip_reserved_flag_7() -> bytes:
    """Another one."""
    return gz(flags=0x80)


@hostile(BAD + "endless name in the gzip header")
def gzip_endless_name() -> bytes:
    """A file name of which no end comes."""
    return gz(flags=8, fields=b"n" * 20_000 + b"\0")


@hostile(BAD + "endless name in the gzip header")
def gzip_endless_comment() -> bytes:
    """The same as a comment."""
    return gz(flags=16, fields=b"c" * 20_000 + b"\0")


@hostile(EARLY)
def gzip_name_to_the_end() -> bytes:
    """The file ends inside the name."""
    return gz(flags=8, fields=b"n" * 600)[:500]


@hostile(EARLY)
def gzip_extra_field_beyond_the_end() -> bytes:
    """64 KB of an extra field, of which there is not much."""
    return gz(flags=4, fields=b"\xff\xff")


@hostile(BAD + "CRC of the gzip header differs")
def gzip_header_crc() -> bytes:
    """The header's own check sum is wrong."""
    return gz(flags=2, fields=b"\x00\x00")


@hostile(EARLY)
def gzip_header_only() -> bytes:
    """Ten bytes."""
    return gz()[:10]


@hostile(EARLY)
def gzip_cut_in_its_stream() -> bytes:
    """Half of it."""
    return gz()[: len(gz()) // 2]


@hostile(EARLY)
def gzip_without_its_trailer() -> bytes:
    """All of the content, nothing to prove it."""
    return gz()[:-8]


@hostile(EARLY)
def gzip_with_half_a_trailer() -> bytes:
    """The check sum, but not the length."""
    return gz()[:-4]


@hostile(BAD + "it has no end")
def gzip_of_nothing() -> bytes:
    """A sound gzip file without content."""
    return gzip.compress(b"")


@hostile(DAMAGED)
def deflate_block_of_a_reserved_type() -> bytes:
    """Block type 3."""
    return gz(b"\x07" + deflated())


@hostile(DAMAGED)
def deflate_stored_block_with_a_wrong_length() -> bytes:
    """The length and its complement disagree."""
    return gz(b"\x01" + len(TAR).to_bytes(2, "little") + b"\0\0" + TAR)


@hostile(BAD)
def deflate_that_reaches_behind_its_beginning() -> bytes:
    """A copy of what has never been there: a careless reader gives out its memory."""
    # Fixed Huffman codes: length 3 (0000001), distance 1 (00000), end (0000000).
    bits = "1" + "10" + "0000001" + "00000" + "0000000"
    return gz(int(bits[::-1], 2).to_bytes(4, "little"))


@hostile(BAD)
def deflate_with_too_many_codes() -> bytes:
    """A Huffman table that no tree can have: nineteen code lengths of one bit."""
    bits = "1" + "01" + "00000" + "00000" + "1111" + "100" * 19
    return gz(int(bits[::-1], 2).to_bytes(12, "little") + deflated())


@hostile(CRC)
def second_member_crc() -> bytes:
    """The first gzip member is sound, the second is not."""
    return gzip.compress(TAR[:1024]) + flipped(gzip.compress(TAR[1024:]), -8)


@hostile(BAD + "length differs")
def second_member_length() -> bytes:
    """The same with the second member's length."""
    return gzip.compress(TAR[:1024]) + flipped(gzip.compress(TAR[1024:]), -1)


@hostile(EARLY)
def second_member_cut() -> bytes:
    """The second gzip member ends early."""
    return gzip.compress(TAR[:1024]) + gzip.compress(TAR[1024:])[:-12]


@hostile(UNKNOWN)
def second_member_method() -> bytes:
    """The second gzip member is compressed by something else."""
    return gzip.compress(TAR[:1024]) + b"\x1f\x8b\x07" + gzip.compress(TAR[1024:])[3:]


@hostile(BAD + "data after its end")
def second_member_is_another_archive() -> bytes:
    """Two complete archives, each compressed: a scanner may see the first one only."""
    return gzip.compress(TAR) + gzip.compress(package(member(b"evil", b"x")))


@hostile(BEHIND)
def garbage_behind_gzip() -> bytes:
    """Something behind the end that no check sum covers."""
    return gz() + b"garbage"


@hostile(BEHIND)
def garbage_behind_zeros_behind_gzip() -> bytes:
    """Padding, and then something."""
    return gz() + bytes(512) + b"garbage"


@hostile(BAD)
def first_bytes_of_a_member_behind_gzip() -> bytes:
    """It begins as a second gzip member would, and is none."""
    return gz() + b"\x1f"


@hostile(DAMAGED)
def zlib_check_sum() -> bytes:
    """Another Adler-32."""
    return flipped(zlib.compress(TAR), -1)


@hostile(DAMAGED)
def zlib_with_a_dictionary() -> bytes:
    """It needs a dictionary that only the sender has."""
    compressor = zlib.compressobj(zdict=TAR[:200])
    return compressor.compress(TAR) + compressor.flush()


@hostile(BAD + "neither tar nor a known compression", length=True)
def zlib_header_check() -> bytes:
    """Its two bytes are no multiple of 31."""
    return flipped(zlib.compress(TAR), 1)


@hostile(BAD + "neither tar nor a known compression", length=True)
def zlib_window_of_64_kilobytes() -> bytes:
    """A window larger than deflate has."""
    return b"\x88\x1c" + zlib.compress(TAR)[2:]


@hostile(EARLY)
def zlib_without_its_check_sum() -> bytes:
    """All of the content, nothing to prove it."""
    return zlib.compress(TAR)[:-4]


@hostile(BEHIND)
def garbage_behind_zlib() -> bytes:
    """Something behind the end that no check sum covers."""
    return zlib.compress(TAR) + b"garbage"


@hostile(BEHIND)
def second_zlib_stream() -> bytes:
    """zlib knows no members."""
    return zlib.compress(TAR) + zlib.compress(TAR)


@hostile(CRC)
def microfreezer_crc() -> bytes:
    """The outer check sum is wrong, all others are right."""
    return flipped(freezer(), -1)


@hostile(CRC)
def microfreezer_crc_the_other_way_round() -> bytes:
    """Its bytes in gzip's order."""
    stream = zlib.compress(TAR)
    return freezer(stream, int.from_bytes(zlib.crc32(stream).to_bytes(4, "big"), "little"))


@hostile(CRC)
def microfreezer_crc_of_the_content() -> bytes:
    """The check sum that gzip would have had."""
    return freezer(crc=zlib.crc32(TAR))


@hostile(EARLY)
def microfreezer_without_its_crc() -> bytes:
    """The zlib stream is complete."""
    return freezer()[:-4]


@hostile(DAMAGED)
def microfreezer_zlib_check_sum() -> bytes:
    """The outer check sum is right, of a stream whose own is wrong."""
    return freezer(flipped(zlib.compress(TAR), -1))


@hostile(BEHIND)
def garbage_behind_microfreezer() -> bytes:
    """Something behind the end that no check sum covers."""
    return freezer() + b"\0"
