"""What the cases are mutated from: sound and odd archives, messages and names, as text."""

from __future__ import annotations

import base64
import tarfile
import zlib
from pathlib import Path

from host_sim import sample
from host_sim.campaigns.fuzz import pieces

Corpus = dict[str, list[bytes]]

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: bytes = b"file.py",
    size: int = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    size_raw: bytes = b"",
) -> bytes:
    """One tar header with a right check sum; `size_raw` in place of the octal text of `size`."""
    raw = bytearray(BLOCK)
    raw[: len(name)] = name
    raw[100:108], raw[108:116], raw[116:124] = b"0000644\0", b"0001750\0", b"0001750\0"
    raw[124:136] = (size_raw or b"%011o\0" % size).ljust(12, b"\0")
    raw[136:148], raw[156:157] = b"14524770200\0", kind
    raw[257 : 257 + len(magic)] = magic
    raw[345 : 345 + len(prefix)] = prefix
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def padded(content: bytes) -> bytes:
    """Content up to the end of its last block."""
    return content + bytes(-len(content) % BLOCK)


def member(name: bytes, content: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A header with its content behind it."""
    return header(name, len(content), kind, **fields) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """A PAX record with its right length."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


GNU = b"ustar  \0"
_LONG = b"a/" * 60 + b"long_name.py"

_MEMBERS = [
    member(b"main.py", b"print(1)\n"),
    member(b"empty", b""),
    member(b"lib/", kind=b"5"),
    member(b"old_folder/", magic=bytes(8)),
    member(b"v7.txt", b"v7", magic=bytes(8), kind=b"\0"),
    member(b"gnu.bin", bytes(range(256)) * 3, magic=GNU),
    member(b"contiguous", b"x" * 513, kind=b"7"),
    member(b"base.py", b"prefixed", prefix=b"very/deep/folder"),
    member("größe ä.txt".encode(), b"utf-8"),
    header(b"base256", size_raw=b"\x80" + bytes(9) + b"\x00\x03") + padded(b"abc"),
    header(b"spaces", size_raw=b"      7 \0") + padded(b"seven b"),
    header(b"hard", kind=b"1"),
    header(b"symbolic", kind=b"2"),
    header(b"device", kind=b"3"),
    header(b"fifo", kind=b"6"),
    header(b"sparse", kind=b"S", magic=GNU),
    member(b"././@LongLink", _LONG + b"\0", b"L", magic=GNU) + member(_LONG[:100], b"long"),
    member(b"././@LongLink", b"target\0", b"K", magic=GNU) + member(b"x", b"after K"),
    member(b"p", record(b"path", _LONG), b"x") + member(_LONG[:100], b"pax"),
    member(b"p", record(b"mtime", b"1700000000.25") + record(b"path", b"p.py"), b"x")
    + member(b"p.py", b"pax"),
    member(b"p", record(b"size", b"5"), b"x") + header(b"sized", size_raw=b"0") + padded(b"5 six"),
    member(b"g", record(b"path", b"everywhere") + record(b"comment", b"-"), b"g") + member(b"n"),
    member(b"s", record(b"GNU.sparse.major", b"1"), b"x") + member(b"sparse", b"1\n0\n"),
]

_TREES: list[sample.Tree] = [
    {"main.py": b"print('v2')\n"},
    {"a/b/c.py": b"# c\n" * 40, "a/b/d.bin": bytes(range(256)), "empty": b""},
    {"x" * 90 + "/" + "y" * 90 + ".py": b"long", "short.py": b"1"},
    {"δεδομένα/θ.csv": "θ;1\n".encode() * 30, "größe ä.txt": b"u"},
]
_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def _archives() -> list[bytes]:
    """Small archives of Python's tarfile in all its formats, and by hand; most without filling."""
    made = []
    for number, tree in enumerate(_TREES):
        for tar_format in _FORMATS:
            whole = sample.tar(tree, tar_format=tar_format, prefix="./" if number % 2 else "")
            made.append(whole.rstrip(b"\0") and padded(whole.rstrip(b"\0")) + END)
    made.append(sample.tar(_TREES[0]))  # filled up to 10 KB
    made.append(b"".join(_MEMBERS[:11]) + END)
    made.append(b"".join(_MEMBERS[16:21]) + END)
    made.append(b"".join(member(b"many/%d.py" % n, b"%d" % n) for n in range(6)) + END)
    made.append(member(b"no/end/blocks.py", b"e" * 600))
    return made


def _headers() -> list[bytes]:
    """The same one header at a time, with the content that belongs to it."""
    singles = list(_MEMBERS)
    for tree in _TREES:
        for tar_format in _FORMATS:
            data = sample.tar(tree, tar_format=tar_format)
            at = 0
            while any(data[at : at + BLOCK]):
                size = int(data[at + 124 : at + 135], 8)
                end = at + BLOCK + size + -size % BLOCK
                singles.append(data[at:end])
                at = end
    return list(dict.fromkeys(singles))


def _zlib(data: bytes, level: int = 9, window: int = 15, **options: int) -> bytes:
    compressor = zlib.compressobj(level, wbits=window, **options)
    return compressor.compress(data) + compressor.flush()


def _microfreezer(stream: bytes) -> bytes:
    return b"\x1f\x8b\x08" + bytes(5) + stream + zlib.crc32(stream).to_bytes(4, "big")


def _gzip(data: bytes, level: int = 9, flags: int = 0, fields: bytes = b"") -> bytes:
    """A gzip member with optional header fields; by hand, as Python's differs with its release."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\x02\x03" + fields
    sums = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return head + _zlib(data, level, -15) + sums


def _compressed() -> list[bytes]:
    """gzip with every kind of header, zlib of every window, microfreezer's; a small bomb."""
    small = padded(sample.tar(_TREES[0]).rstrip(b"\0")) + END
    trees = [sample.tar(tree) for tree in _TREES]
    bomb = member(b"zeros", bytes(40_000)) + END
    made = [_gzip(data, level) for data in trees for level in (1, 9)]
    made += [
        _gzip(small, 0),
        _gzip(small[:600]) + _gzip(small[600:]),
        _gzip(small, flags=4, fields=b"\x05\x00extra"),
        _gzip(small, flags=8 | 16, fields=b"name.tar\0a comment\0"),
        _gzip(bomb),
    ]
    made += [_zlib(trees[1], window=bits) for bits in range(9, 16)]
    made += [_zlib(small, 0), _zlib(small, strategy=zlib.Z_FIXED), _zlib(bomb)]
    made += [_microfreezer(_zlib(data, 1)) for data in trees]
    return made


_TAR_PIECES: Corpus = {
    "name": pieces.NAMES,
    "number": pieces.NUMBERS,
    "key": pieces.KEYS,
    "magic": pieces.MAGICS,
    "extension": [header(b"././@Header", kind=b"x")],
}


# What patches begin with, take, and are put into: text, zeros, and what looks like numbers.
_OLD = [
    b"".join(b"line %d of a file\n" % n for n in range(40)),
    bytes(600),
    bytes(range(256)) * 3,
    b"\x80\x81\xff\xff\xff\xff\x7f\1" * 80,
    b"abcdef" * 100,
]


def build() -> dict[str, Corpus]:
    """The corpus of every target: {target: {kind: pieces}}."""
    headers: Corpus = {"item": _headers(), **_TAR_PIECES}
    archives = _archives()
    return {
        "headers": headers,
        "sequences": headers,
        "streams": {"plain": archives, **_TAR_PIECES},
        "compressed": {
            "item": _compressed(),
            "plain": [data for data in archives if len(data) <= 4096],
            **_TAR_PIECES,
        },
        # A token fits behind the character `before`, up to one of `behind`.
        "requests": {
            "item": pieces.REQUESTS,
            "token": pieces.REQUEST_TOKENS,
            "before": [b":"],
            "behind": [b",}"],
        },
        "responses": {
            "item": pieces.RESPONSES,
            "token": pieces.RESPONSE_TOKENS,
            "body": [pieces.BODY],
            "before": [b"\n"],
            "behind": [bytes(range(256))],
        },
        "names": {"item": [], "name": pieces.NAMES},
        "patches": {"item": _OLD},
        "indexes": {"item": _OLD},
        "records": {"item": _OLD, "extension": _TAR_PIECES["extension"]},
    }


def write(folder: Path) -> int:
    """Write `folder/TARGET.txt` for each target, in lines of `kind base64`; returns their CRC-32.

    The number tells whether two machines have the same corpus: compressed items may differ with
    the release of zlib.
    """
    crc = 0
    for target, corpus in build().items():
        lines = [
            f"{kind} {base64.b64encode(piece).decode()}\n"
            for kind, pieces in corpus.items()
            for piece in pieces
        ]
        text = "".join(lines)
        crc = zlib.crc32(text.encode(), crc)
        (folder / f"{target}.txt").write_text(text)
    return crc
