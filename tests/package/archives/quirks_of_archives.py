"""Quirks of whole archives: how they end, and what they are wrapped in."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from tests.package.archives import wrapping
from tests.package.archives.blocks import member
from tests.package.archives.quirks import QUIRKS, Parts, end, wrap
from tests.package.archives.wrapping import Wrapped

_BODY = b"content"

end("junk after the end", lambda rng: bytes(1024 + 512 * rng.randrange(4)) + b"junk")
end("member after the end", lambda rng: bytes(1024) + member(b"hidden.py", _BODY))
end("member after one zero block", lambda rng: bytes(512) + member(b"hidden.py", _BODY))
end("part of a block at the end", lambda rng: member(b"last.py")[: rng.randrange(1, 512)])
end("no end", lambda rng: b"")
end("one zero block", lambda rng: bytes(512))
end("part of a zero block at the end", lambda rng: bytes(rng.randrange(1, 1024)))
end("zeros of any number at the end", lambda rng: bytes(rng.randrange(1024, 3000)))


def _truncated(rng: random.Random, parts: Parts) -> None:
    parts.cut = True


QUIRKS["truncated"] = _truncated


def _nothing(rng: random.Random, parts: Parts) -> None:
    parts.members, parts.end = [], b""


QUIRKS["nothing"] = _nothing


def _gzip_with(rng: random.Random, plain: bytes, flags: int, **options) -> Wrapped:
    start = wrapping.gzip_header(rng, flags, **options)
    return Wrapped("gzip", wrapping.gzip_member(rng, plain, start))


def _wrong_header_crc(rng: random.Random, plain: bytes) -> Wrapped:
    start = wrapping.gzip_header(rng, 2)
    start = start[:-1] + bytes([start[-1] ^ 1])
    return Wrapped("gzip", wrapping.gzip_member(rng, plain, start))


def _gzip_like_a_header(rng: random.Random, plain: bytes) -> Wrapped:
    """Its first 512 bytes, taken for a tar header, have no check sum, and sum up to nothing."""
    start = wrapping.GZIP_MAGIC + b"\x08\x04" + bytes(6) + (600).to_bytes(2, "little")
    # Signed bytes: what makes up for the sum so far, and for the eight spaces of the sum's field.
    missing = -256 - sum(memoryview(start).cast("b"))
    extra = [-128] * (-missing // 128) + [-(-missing % 128)]
    start += bytes(byte % 256 for byte in extra).ljust(600, b"\0")
    return Wrapped("gzip", wrapping.gzip_member(rng, plain, start))


def _damaged(rng: random.Random, plain: bytes) -> Wrapped:
    """A compressed archive that was cut short, has junk behind it, or a byte changed."""
    wrapped = rng.choice(wrapping.WRAPPINGS)(rng, plain)
    data = bytearray(wrapped.data.rstrip(b"\0") if wrapped.kind == "gzip" else wrapped.data)
    kind = rng.choice(["cut", "junk", "changed", "check sum"])
    if kind == "cut":
        del data[max(20, rng.randrange(len(data))) :]
    elif kind == "junk":
        data += rng.choice([b"junk", b"\x1f", b"\0\0junk"])
    elif kind == "changed":
        data[rng.randrange(min(12, len(data) - 1), len(data))] ^= 1 << rng.randrange(8)
    else:
        data[-rng.randrange(1, 5)] ^= 1 << rng.randrange(8)
    return Wrapped(wrapped.kind, bytes(data))


def _changed(
    make: Callable[[random.Random, bytes], Wrapped], at: int
) -> Callable[[random.Random, bytes], Wrapped]:
    """A sound stream but for one bit, `at` bytes before its end."""

    def changed(rng: random.Random, plain: bytes) -> Wrapped:
        wrapped = make(rng, plain)
        data = bytearray(wrapped.data)
        data[-at] ^= 1 << rng.randrange(8)
        return Wrapped(wrapped.kind, bytes(data))

    return changed


def _preset_dictionary(rng: random.Random, plain: bytes) -> Wrapped:
    compressor = zlib.compressobj(zdict=b"lib/module.py")
    return Wrapped("zlib", compressor.compress(plain) + compressor.flush())


def _member_after_padding(rng: random.Random, plain: bytes) -> Wrapped:
    middle = len(plain) // 2
    first, second = plain[:middle], plain[middle:]
    data = wrapping.gzip_member(rng, first) + bytes(9) + wrapping.gzip_member(rng, second)
    return Wrapped("gzip", data)


wrap("gzip header with a wrong CRC", _wrong_header_crc)
wrap("reserved gzip flag", lambda rng, plain: _gzip_with(rng, plain, 0x20))
wrap("very long gzip name", lambda rng, plain: _gzip_with(rng, plain, 8, name_length=1500))
wrap("gzip like a header", _gzip_like_a_header)
wrap("gzip member after padding", _member_after_padding)
wrap("damaged compression", _damaged)
wrap("zlib with a preset dictionary", _preset_dictionary)
for _name, _make, _at in (
    ("gzip with a wrong CRC-32", wrapping.one_gzip_member, 8),
    ("gzip with a wrong length", wrapping.one_gzip_member, 4),
    ("zlib with a wrong Adler-32", wrapping.one_zlib_stream, 2),
    ("microfreezer with a wrong Adler-32", wrapping.microfreezer, 6),
    ("microfreezer with a wrong CRC-32", wrapping.microfreezer, 2),
):
    wrap(_name, _changed(_make, _at))
