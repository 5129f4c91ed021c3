"""What the cases are mutated from: sound and odd archives, messages and names, as text."""

from __future__ import annotations

import base64
import gzip
import tarfile
import zlib
from pathlib import Path

from host_sim import sample

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


def _gzip_with(flags: int, extra: bytes, plain: bytes) -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(4) + b"\x02\x03" + extra
    return head + gzip.compress(plain, mtime=0)[10:]


def _compressed() -> list[bytes]:
    """gzip with every kind of header, zlib of every window, microfreezer's; a small bomb."""
    small = padded(sample.tar(_TREES[0]).rstrip(b"\0")) + END
    trees = [sample.tar(tree) for tree in _TREES]
    bomb = member(b"zeros", bytes(40_000)) + END
    made = [gzip.compress(data, level, mtime=0) for data in trees for level in (1, 9)]
    made += [
        gzip.compress(small, 0, mtime=0),
        gzip.compress(small[:600], mtime=0) + gzip.compress(small[600:], mtime=0),
        _gzip_with(4, b"\x05\x00extra", small),
        _gzip_with(8 | 16, b"name.tar\0a comment\0", small),
        gzip.compress(bomb, mtime=0),
    ]
    made += [_zlib(trees[1], window=bits) for bits in range(9, 16)]
    made += [_zlib(small, 0), _zlib(small, strategy=zlib.Z_FIXED), _zlib(bomb)]
    made += [_microfreezer(_zlib(data, 1)) for data in trees]
    return made


_NAMES = [
    *(b"main.py", b"lib", b"a", b"b.py", b"boot.py", b"ota", b"boot.mpy", b"main.mpy", b""),
    *(b".", b"..", b"...", b"../", b"/..", b"..\\", b"a/../b", b"./..", b" ..", b".. ", b"..\0"),
    *(b".ota", b".ota/state", b"ota.json", b"/ota.json", b".OTA", b".ota ", b"ca.der", b"/.ota/"),
    *(b"/", b"//", b"./", b"\\", b"C:\\x", b"\x1b[2J", b"\n", b"a\tb", b"\x7f", b"\x01", b"\0"),
    *("ä".encode(), "中".encode(), "😀".encode(), b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80"),
    *(b"\xc0\xae\xc0\xae", b"\xc0\xaf", b"\xe0\x80\xae", b"\xc1\x9c", b"\xe2\x80\xae", b"%2e%2e"),
    *(b"n" * 100, b"n" * 155, b"n" * 255, b"n" * 256, "ä".encode() * 128, b"d/" * 200, b"=", b" "),
]
_NUMBERS = [
    *(b"", b"0", b"7", b"8", b"00000000000\0", b"00000000001\0", b"00000000777\0", b"77777777777"),
    *(b"777777777777", b"0x10", b"-1", b"+1", b" 1", b"1 ", b" 1 \0", b"1 1", b"1\x002", b"\0\0"),
    *(b"\x80" + bytes(11), b"\x80" + bytes(10) + b"\x01", b"\x80" + b"\xff" * 11, b"\xff" * 12),
    *(b"\xff" * 11 + b"\xfe", b"\x80" + bytes(7), b"\x40" + bytes(11), b"512", b"1000", b"1024"),
    *(b"9" * 10, b"9" * 11, b"4294967296", b"2147483648", b"1_0", b"1.5", b"1e3", b"\xd9\xa1"),
]
_KEYS = [
    *(b"path", b"path", b"path", b"size", b"size", b"linkpath", b"mtime", b"uid", b"comment", b""),
    *(b"GNU.sparse.major", b"GNU.sparse.name", b"hdrcharset", b"Path", b"path\0", b"pa", b"a b"),
]
_MAGICS = [b"ustar\x0000", GNU, bytes(8), b"ustar\0\0\0", b"ustar   ", b"USTAR\0", b"ustar\x0001"]

_TAR_PIECES: Corpus = {
    "name": _NAMES,
    "number": _NUMBERS,
    "key": _KEYS,
    "magic": _MAGICS,
    "extension": [header(b"././@Header", kind=b"x")],
}

_REQUEST = (
    b'[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar.gz"},{"n":"s","v":3987}]'
)
_REQUESTS = [
    _REQUEST,
    b'[ { "vs" : "fa8884d2" , "n" : "i" } , {"n":"s","vs":"12"},{"n":"t","vs":".tar"},{"n":"e"}]',
    b'[{"bn":"urn:x:","n":"e","v":0},{"n":"i","vs":"a"},{"n":"t","vs":".tar"},{"n":"s","v":1}]',
    b'[{"n":"e","v":1},{"n":"i","vs":"fa8884d2"}]',
    b'[{"n":"e","v":2},{"n":"i","vs":"fa8884d2"},{"n":"m","vs":"not enough space"}]',
    b'[{"bn":"e","v":0.0},{"bn":"","n":"i","v":12345678},{"n":"t","vs":".tar"},{"n":"s","v":9e3}]',
    b"",
    b"{}",
    b"[]",
]
_REQUEST_TOKENS = [
    *b'[ ] { } , : " \\ [] {} [[ ]] null true false NaN Infinity -0 1e999 -1e999 1e-999'.split(),
    *(b'"n":', b'"v":', b'"vs":', b'"bn":', b'"e"', b'"i"', b'"t"', b'"s"', b'"x"', b'""'),
    *(b'{"n":"s","v":1}', b'{"n":"i","vs":"a"}', b'{"n":"e","v":0}', b'{"bn":1}', b'{"n":[]}'),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\uD83D\\uDE00"', b'"\\x"', b'"\\', b"\\u00", b'"\xff"'),
    *(b"0", b"1", b"-1", b"3987", b"1.5", b"9" * 30, b"0x10", b"1_0", b'"0"', b'" 1"', b'"1e3"'),
    *(b"\xef\xbb\xbf", b"\0", b"\n", b"\xff", b"[" * 70, b'{"a":' * 30, b'"' + b"a" * 200 + b'"'),
    *(b"9" * 400, b"1e400", b"-", b".", b'"../x"', b'"a&dk=b"', b'"a b"', b'".tar"', b'".TAR"'),
]

_BODY = b"0123456789" * 40
_LENGTH = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 400\r\nDate: today\r\n\r\n" + _BODY
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"64\r\n"
    + _BODY[:100]
    + b"\r\n12c;name=value\r\n"
    + _BODY[:300]
    + b"\r\n0\r\nTrailer: x\r\n\r\n"
)
_RESPONSES = [
    _LENGTH,
    _CHUNKED,
    b"HTTP/1.0 200 OK\nConnection: close\n\n" + _BODY,
    b"HTTP/1.1 100 Continue\r\n\r\n" + _LENGTH,
    b"HTTP/1.1 302 Found\r\nLocation: https://other.example/x?y=z\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 307 T\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<html>no</html>",
    b"HTTP/1.1 503\r\nContent-Length: 4\r\n\r\nbusy",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
]
_RESPONSE_TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\t", b";", b"\0", b"\xff", b"\r\n "),
    *(b"HTTP/1.1 ", b"HTTP/2 ", b"200", b"301", b"302", b"100", b"99999999999", b"-200"),
    *(b"Content-Length: 400\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n", b"400"),
    *(
        b"Content-Length: 999999999\r\n",
        b"Content-Length: 1000000000\r\n",
        b"CONTENT-LENGTH:1\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"chunked"),
    *(b"Content-Encoding: gzip\r\n", b"Location: /\r\n", b"Location: //h/\r\n", b"Location: \r\n"),
    *(b"Location: https://h:99999/\r\n", b"Location: https://h:80:80/\r\n", b"https://u@h/"),
    *(b"Location: http://h/\r\n", b"Location: https://\r\n", b"Location: HTTPS://H\r\n"),
    *(b"Location: https://h?\r\n", b"Location: https://h#x\r\n", b"Location: https://[::1]/\r\n"),
    *(
        b"Location: https://h/\xc3\xa9\r\n",
        b"Location: /a b\r\n",
        b"Location: /\x7f\r\n",
        b"h" * 1100,
    ),
    *(
        b"0\r\n\r\n",
        b"0\r\n",
        b"ffffffff\r\n",
        b"fffffffff\r\n",
        b"0x10\r\n",
        b"-1\r\n",
        b"1_0\r\n",
    ),
    *(b"+5\r\n", b"5 \r\n", b"00000005\r\n", b"X: y\r\n" * 70),
    b"Name" + b"x" * 2000 + b": y\r\n",
]


def build() -> dict[str, Corpus]:
    """The corpus of every target: {target: {kind: pieces}}."""
    headers: Corpus = {"item": _headers(), **_TAR_PIECES}
    return {
        "headers": headers,
        "sequences": headers,
        "streams": {"item": _archives(), **_TAR_PIECES},
        "compressed": {"item": _compressed(), **_TAR_PIECES},
        # A token fits behind the character `before`, up to one of `behind`.
        "requests": {
            "item": _REQUESTS,
            "token": _REQUEST_TOKENS,
            "before": [b":"],
            "behind": [b",}"],
        },
        "responses": {
            "item": _RESPONSES,
            "token": _RESPONSE_TOKENS,
            "before": [b"\n"],
            "behind": [bytes(range(256))],
        },
        "names": {"item": [], "name": _NAMES},
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
