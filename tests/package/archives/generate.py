"""Archives from seeds: the same identity gives the same bytes, on every Python from 3.10 on."""

from __future__ import annotations

import random
import tarfile
from dataclasses import dataclass

from tests.package.archives import (
    blocks,
    quirks_of_archives,  # noqa: F401 (they register themselves)
    quirks_of_members,  # noqa: F401
)
from tests.package.archives.quirks import QUIRKS, Parts
from tests.package.archives.wrapping import Wrapped, wrap

STYLES = ("v7", "ustar", "gnu", "pax")
_TAR_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz_",
    "abcXYZ019-_ .,;+#'()[]{}!%&=~^$@",
    "aäßéøñçőğı",
    "αβγδεабвгд中文字テスト한글",
    "🌡🔋a ",
)
_SIZES = (0, 0, 1, 2, 100, 511, 512, 513, 1023, 1024, 1025, 3000)


@dataclass(frozen=True)
class Archive:
    """An archive and where it comes from.

    quirks: names of what is odd in it. noise: decides in what pieces the device gets it.
    """

    identity: str
    wrapped: Wrapped
    quirks: tuple[str, ...]
    noise: int


def part_of_name(rng: random.Random, longest: int) -> str:
    """One part of a path, at most `longest` bytes of UTF-8."""
    letters = "".join(rng.choices(rng.choice(_ALPHABETS), k=rng.randrange(1, longest + 1)))
    letters = letters.encode()[:longest].decode(errors="ignore")
    return "x" if letters in ("", ".", "..") else letters


def file_name(rng: random.Random) -> str:
    """A sound path: short mostly, sometimes deep, sometimes long, sometimes spelled oddly."""
    kind = rng.random()
    if kind < 0.7:
        parts = [part_of_name(rng, 20) for _ in range(rng.randrange(1, 5))]
    elif kind < 0.85:
        parts = [part_of_name(rng, 8) for _ in range(rng.randrange(5, 30))]
    else:
        parts = [part_of_name(rng, 255) for _ in range(rng.randrange(1, 4))]
    name = "/".join(parts)
    if rng.random() < 0.25:
        name = rng.choice(["./", "/", ".//", "//./"]) + name
    if rng.random() < 0.05:
        name = name.replace("/", rng.choice(["//", "/./"]), 1)
    return name


def content(rng: random.Random) -> bytes:
    """Content of a file: text, noise, zeros, or what looks like an archive itself."""
    size = rng.choice(_SIZES) if rng.random() < 0.97 else rng.randrange(20_000)
    kind = rng.random()
    if kind < 0.5:
        return (b"def read(channel):\n    return channel.value\n" * (size // 40 + 1))[:size]
    if kind < 0.7:
        return rng.randbytes(size)
    if kind < 0.8:
        return bytes(size)
    return (blocks.member(b"inner.txt", b"not a member") * (size // 1024 + 1))[:size]


def part_by_tarfile(rng: random.Random) -> bytes:
    """One member as Python's `tarfile` writes it."""
    tar_format = rng.choice(_TAR_FORMATS)
    info = tarfile.TarInfo(file_name(rng))
    body = b""
    if rng.random() < 0.25:
        info.type = tarfile.DIRTYPE
    else:
        body = content(rng)
        info.size = len(body)
        info.type = rng.choice([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.CONTTYPE])
    info.mode = rng.randrange(0o10000)
    info.mtime = rng.choice([0, 1_700_000_000, 1_700_000_000.25, 8**11 - 1])
    info.uid = info.gid = rng.choice([0, 1000, 0o7777777])
    info.uname = info.gname = rng.choice(["", "root", "großmutter"])
    if tar_format == tarfile.PAX_FORMAT and rng.random() < 0.2:
        info.pax_headers = {"comment": "größer ½", "SCHILY.xattr.user.note": "a=b\n\x01"}
    if tar_format == tarfile.USTAR_FORMAT:
        info.mtime = int(info.mtime)
        try:
            return info.tobuf(tar_format) + blocks.padded(body)
        except ValueError:  # its name is too long for this format
            tar_format = tarfile.GNU_FORMAT
    return info.tobuf(tar_format) + blocks.padded(body)


def part_by_hand(rng: random.Random) -> bytes:
    """One sound member of any format, numbers spelled in any of the usual ways."""
    style = rng.choice(STYLES)
    name = file_name(rng).encode()
    options = {
        "style": style,
        "signed": rng.random() < 0.2,
        "sum_text": rng.choice(["%06o\0 ", "%06o \0", "%07o\0", "%o\0", " %o ", "%08o"]),
    }
    if rng.random() < 0.25:
        if style == "v7" or rng.random() < 0.3:
            if len(name) > 98:
                name = name[:98].decode(errors="ignore").encode()
            return blocks.member(name.rstrip(b"/") + b"/", b"", b"\0", **options)
        return blocks.member(name + rng.choice([b"", b"/"]), b"", b"5", **options)
    body = content(rng)
    kind = rng.choice([b"0", b"\0", b"0", b"7"]) if style != "v7" else b"\0"
    number = rng.choice(["%011o\0", "%011o ", "%10o \0", "%o\0", "  %o", "%012o"]) % len(body)
    options["fields"] = {124: number.encode().ljust(12, b"\0")}
    if rng.random() < 0.1:
        options["fields"] = {124: blocks.base256(len(body), 12)}
    if rng.random() < 0.1:
        record = rng.choice([("mtime", "1.5"), ("size", str(len(body))), ("uid", "5")])
        if len(name) <= 100:
            return blocks.pax(record) + blocks.member(name, body, kind, **options)
    return blocks.member(name, body, kind, **options)


def part(rng: random.Random) -> bytes:
    """One sound member, half of them by `tarfile`."""
    return part_by_tarfile(rng) if rng.random() < 0.5 else part_by_hand(rng)


def end(rng: random.Random, length: int) -> bytes:
    """A sound end: two zero blocks, and any blocking factor's padding."""
    record = 512 * rng.choice([1, 1, 2, 4, 20, 63])
    return bytes(1024 + -(length + 1024) % record)


def make(identity: str) -> Archive:
    """The archive of an identity such as ``"1/537"``: a seed and a number.

    Numbers go through all quirks in turn, so that none is left to chance; a third of the archives
    has none.
    """
    rng = random.Random(identity)
    number = int(identity.rpartition("/")[2])
    names = list(QUIRKS)
    chosen = []
    if number % 3:
        chosen.append(names[(number - number // 3 - 1) % len(names)])
        if rng.random() < 0.15:
            chosen.append(rng.choice(names))
    parts = Parts([part(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 4, 6]))])
    for name in chosen:
        QUIRKS[name](rng, parts)
    plain = b"".join(parts.members)
    plain += end(rng, len(plain)) if parts.end is None else parts.end
    if parts.cut:
        plain = plain[: rng.randrange(max(1, len(plain)))]
    wrapped = parts.wrap(rng, plain) if parts.wrap else wrap(rng, plain)
    return Archive(identity, wrapped, tuple(chosen), rng.randrange(1 << 30))
