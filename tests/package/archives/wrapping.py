"""What an archive is wrapped in: nothing, gzip in all its forms, zlib, microfreezer's format."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

GZIP_MAGIC = b"\x1f\x8b"
MICROFREEZER_START = GZIP_MAGIC + b"\x08" + bytes(5)


class Damaged(Exception):
    """The wrapping can not be read by CPython; the text says why."""


@dataclass(frozen=True)
class Wrapped:
    """An archive as the platform stores it. kind: plain, gzip, zlib or microfreezer."""

    kind: str
    data: bytes


def deflate(content: bytes, level: int, wbits: int, strategy: int = 0, flush_at: int = 0) -> bytes:
    """Compressed content; wbits as zlib has them. flush_at: length of a first, flushed part."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, wbits, strategy=strategy)
    first = b""
    if flush_at:
        first = compressor.compress(content[:flush_at]) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + compressor.compress(content[flush_at:]) + compressor.flush()


def gzip_header(rng: random.Random, flags: int, *, name_length: int | None = None) -> bytes:
    """A gzip header with the optional fields that flags asks for, random inside."""
    header = GZIP_MAGIC + bytes([8, flags]) + rng.randbytes(4) + bytes([rng.choice([0, 2, 4]), 3])
    if flags & 4:
        extra = rng.randbytes(rng.choice([0, 1, 5, 300]))
        header += len(extra).to_bytes(2, "little") + extra
    for flag in (8, 16):
        if flags & flag:
            length = rng.choice([0, 1, 40]) if name_length is None else name_length
            header += bytes(rng.choices(range(1, 256), k=length)) + b"\0"
    if flags & 2:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header


def gzip_member(rng: random.Random, content: bytes, header: bytes | None = None) -> bytes:
    """One gzip member of random level, strategy and header fields."""
    if header is None:
        header = gzip_header(rng, rng.choice([0, 0, 8, rng.randrange(32)]))
    flush_at = rng.choice([0, len(content) // 2])
    body = deflate(content, rng.randrange(10), -15, rng.choice([0, 2, 3, 4]), flush_at)
    trailer = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return header + body + trailer


def _gzip_of_python(rng: random.Random, plain: bytes) -> Wrapped:
    return Wrapped("gzip", gzip.compress(plain, rng.randrange(10), mtime=0))


def one_gzip_member(rng: random.Random, plain: bytes) -> Wrapped:
    return Wrapped("gzip", gzip_member(rng, plain))


def _gzip_members(rng: random.Random, plain: bytes) -> Wrapped:
    """Several members, some of them empty, cut anywhere; sometimes padded with zeros."""
    cuts = sorted(rng.randrange(len(plain) + 1) for _ in range(rng.randrange(1, 5)))
    pairs = zip([0, *cuts], [*cuts, len(plain)], strict=True)
    data = b"".join(gzip_member(rng, plain[a:b]) for a, b in pairs)
    return Wrapped("gzip", data + bytes(rng.choice([0, 0, 1, 700])))


def one_zlib_stream(rng: random.Random, plain: bytes) -> Wrapped:
    return Wrapped("zlib", deflate(plain, rng.randrange(10), rng.randrange(9, 16)))


def _zlib_of_256(rng: random.Random, plain: bytes) -> Wrapped:
    """The smallest window that the format knows; zlib itself does not write it."""
    header = b"\x08\x1d"
    body = deflate(plain, 0, -15)  # stored blocks look back at nothing
    return Wrapped("zlib", header + body + zlib.adler32(plain).to_bytes(4, "big"))


def microfreezer(rng: random.Random, plain: bytes) -> Wrapped:
    stream = deflate(plain, rng.randrange(10), rng.choice([15, 15, rng.randrange(9, 16)]))
    return Wrapped(
        "microfreezer", MICROFREEZER_START + stream + zlib.crc32(stream).to_bytes(4, "big")
    )


WRAPPINGS: tuple[Callable[[random.Random, bytes], Wrapped], ...] = (
    _gzip_of_python,
    one_gzip_member,
    _gzip_members,
    one_zlib_stream,
    one_zlib_stream,
    _zlib_of_256,
    microfreezer,
)


def wrap(rng: random.Random, plain: bytes) -> Wrapped:
    """Half of all archives plain, the others in any wrapping."""
    if rng.random() < 0.5:
        return Wrapped("plain", plain)
    return rng.choice(WRAPPINGS)(rng, plain)


def unwrap(wrapped: Wrapped) -> bytes:
    """The tar bytes, by CPython's gzip and zlib. Raises Damaged."""
    try:
        if wrapped.kind == "gzip":
            with gzip.GzipFile(fileobj=io.BytesIO(wrapped.data)) as file:
                return file.read()
        if wrapped.kind == "zlib":
            return _inflate(wrapped.data)
        if wrapped.kind == "microfreezer":
            stream, crc = wrapped.data[8:-4], wrapped.data[-4:]
            if zlib.crc32(stream).to_bytes(4, "big") != crc:
                raise Damaged("CRC-32 of the compressed bytes")
            return _inflate(stream)
    except (OSError, EOFError, zlib.error) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error
    return wrapped.data


def _inflate(stream: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(stream)
    if not decompressor.eof or decompressor.unused_data:
        raise Damaged("not exactly one zlib stream")
    return content


@dataclass(frozen=True)
class GzipMember:
    """What the header of a gzip member says, and how it stands in the file."""

    flags: int
    header_crc_agrees: bool
    longest_text: int  # bytes of the name or comment
    behind_padding: bool


def gzip_members(data: bytes) -> list[GzipMember]:
    """The members of a sound gzip file (RFC 1952)."""
    members = []
    rest = data
    while rest.strip(b"\0"):
        padding = len(rest) - len(rest.lstrip(b"\0"))
        member, rest = _gzip_member(rest[padding:], padding > 0)
        members.append(member)
    return members


def _gzip_member(data: bytes, behind_padding: bool) -> tuple[GzipMember, bytes]:
    flags, at, longest = data[3], 10, 0
    if flags & 4:
        at += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):
        if flags & flag:
            end = data.index(0, at)
            longest = max(longest, end - at)
            at = end + 1
    agrees = True
    if flags & 2:
        agrees = (zlib.crc32(data[:at]) & 0xFFFF).to_bytes(2, "little") == data[at : at + 2]
        at += 2
    decompressor = zlib.decompressobj(-15)
    decompressor.decompress(data[at:])
    member = GzipMember(flags, agrees, longest, behind_padding)
    return member, decompressor.unused_data[8:]
