"""Quirks of members: what they are, what they are called, their extended headers and numbers."""

from __future__ import annotations

import random

from tests.package.archives import blocks
from tests.package.archives.blocks import extended, gnu_long, header, member, pax, record
from tests.package.archives.quirks import anywhere, last

_BODY = b"content"
_NAME = b"lib/module.py"


def _style(rng: random.Random) -> str:
    return rng.choice(["v7", "ustar", "gnu", "pax"])


# --- what a member is ---------------------------------------------------------------------------

_TYPES = {
    "hard link": (b"1", b"lib/other.py"),
    "hard link out of the root": (b"1", b"../other.py"),
    "symbolic link": (b"2", b"other.py"),
    "symbolic link out of the root": (b"2", b"../../etc/passwd"),
    "symbolic link to an absolute path": (b"2", b"/etc/passwd"),
    "character device": (b"3", b""),
    "block device": (b"4", b""),
    "fifo": (b"6", b""),
}
for _name, (_kind, _target) in _TYPES.items():
    anywhere(
        _name,
        lambda rng, kind=_kind, target=_target: member(
            _NAME, kind=kind, link=target, style=_style(rng)
        ),
    )
anywhere(
    "long target of a link",
    lambda rng: gnu_long(b"t" * 150, b"K") + member(_NAME, kind=b"2", link=b"t" * 100),
)
anywhere(
    "unknown type",
    lambda rng: member(
        _NAME, _BODY * rng.randrange(200), rng.choice([*b"89ABDMNVZz~\xff"]).to_bytes(1, "big")
    ),
)
anywhere(
    "Solaris extended header",
    lambda rng: pax(("path", "renamed.py"), kind=b"X") + member(_NAME, _BODY),
)
anywhere(
    "GNU sparse",
    lambda rng: (
        header(
            _NAME,
            512,
            b"S",
            style="gnu",
            fields={386: b"%011o\0%011o\0" % (0, 512), 483: b"%011o\0" % 512},
        )
        + bytes(512)
    ),
)
anywhere(
    "PAX sparse 0.0",
    lambda rng: (
        extended(
            b"x",
            record("GNU.sparse.size", "1024")
            + record("GNU.sparse.numblocks", "1")
            + record("GNU.sparse.offset", "512")
            + record("GNU.sparse.numbytes", "512"),
        )
        + member(_NAME, bytes(512))
    ),
)
anywhere(
    "PAX sparse 0.1",
    lambda rng: (
        pax(
            ("GNU.sparse.size", "1024"),
            ("GNU.sparse.map", "512,512"),
            ("GNU.sparse.name", "real.py"),
        )
        + member(_NAME, bytes(512))
    ),
)
anywhere(
    "PAX sparse 1.0",
    lambda rng: (
        pax(
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "real.py"),
            ("GNU.sparse.realsize", "1024"),
        )
        + member(_NAME, blocks.padded(b"1\n512\n512\n") + bytes(512))
    ),
)

# --- what it is called --------------------------------------------------------------------------

_NAMES = {
    "inner ..": [b"a/../b.py", b"a/b/../../c", b"./a/.."],
    "leading ..": [b"../b.py", b"./../b.py", b"/../b.py", b"a/../../b.py", b".."],
    "backslash": [b"a\\b.py", b"..\\b.py", b"\\"],
    "longest part": [b"p" * 255, b"a/" + b"p" * 255 + b"/b", "ß".encode() * 127],
    "part too long": [b"p" * 256, b"a/" + b"p" * 300 + b"/b", "ß".encode() * 128],
    "longest path": [b"/".join([b"p" * 255] * 4), b"d/" * 511 + b"f"],
    "path too long": [
        b"d/" * 511 + b"ff",
        b"/".join([b"p" * 255] * 4) + b"/x",
        b"d/" * 512 + b"f",
    ],
    "path too long in bytes only": [b"/".join(["ß".encode() * 120] * 5)],
    "dots that are names": [b"...", b"a/.../b", b"..a", b"a..", b".hidden", b"a/.b"],
    "no name": [b"", b"/", b".", b"./", b"//", b"./.", b"././"],
    "bytes of a compressed stream": [b"x^y.py", b"x\x01", b"h\x81", b"\x1f\x8b\x08"],
    "not UTF-8": [b"caf\xe9.py", b"\xff\xfe", b"a/\x80b", b"\xe4\xb8", b"\xf0\x9f\x8c"],
    "UTF-8 of another kind": [b"\xc0\xae\xc0\xae/x", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"],
    "protected": [b".ota/state", b"./ota.json", b"/.ota", b"ota.json/x", b"boot.mpy", b"main.mpy"],
    "hardly protected": [b".otaku", b"ota.jsonx", b"lib/ota.json", b"ota/main.mpy", b"boot.py"],
}
for _name, _spellings in _NAMES.items():
    anywhere(
        _name,
        lambda rng, spellings=_spellings: member(
            rng.choice(spellings),
            *rng.choice([(b"", b"0"), (_BODY, b"0"), (b"", b"5")]),
            style=rng.choice(["gnu", "pax"]),
        ),
    )
anywhere(
    "control character",
    lambda rng: member(
        b"a" + rng.choice([*range(1, 32), 127]).to_bytes(1, "big") + b"b", style=_style(rng)
    ),
)
anywhere("file named with a slash", lambda rng: member(b"folder/", style=_style(rng)))
anywhere(
    "folder of old with content", lambda rng: member(b"folder/", _BODY, rng.choice([b"0", b"\0"]))
)
anywhere(
    "long name with a slash at its end",
    lambda rng: member(b"l" * 120 + b"/", b"", rng.choice([b"0", b"\0", b"5"]), style="gnu"),
)
anywhere(
    "PAX path with a slash at its end",
    lambda rng: (
        pax(("path", "folder/"))
        + member(b"folder", *rng.choice([(b"", b"0"), (_BODY, b"0"), (b"", b"\0"), (b"", b"5")]))
    ),
)
anywhere(
    "slash at the end of the short name only",
    lambda rng: pax(("path", "renamed")) + member(b"folder/", rng.choice([b"", _BODY]), b"\0"),
)
anywhere(
    "prefix without ustar",
    lambda rng: header(
        _NAME,
        kind=rng.choice([b"0", b"5"]),
        style=rng.choice(["v7", "gnu"]),
        prefix=b"14737474747",
    ),
)
anywhere("prefix without a name", lambda rng: header(b"", kind=b"0", prefix=b"folder"))
anywhere("prefix with a slash at its end", lambda rng: header(b"", prefix=b"a/", kind=b"5"))

# --- what macOS puts beside files ---------------------------------------------------------------

_BESIDE = [b"._module.py", b"lib/._module.py", b"./._.", b".DS_Store", b"lib/.DS_Store"]
_BESIDE += [b"__MACOSX/._lib", b"__MACOSX/lib/x.py", b"lib/__MACOSX", "größe/._ä.py".encode()]
anywhere(
    "attributes of macOS",
    lambda rng: (
        rng.choice([b"", pax(("SCHILY.xattr.com.apple.provenance", "\x01\n7 path=x\n\0"))])
        + member(
            rng.choice(_BESIDE),
            *rng.choice([(_BODY, b"0"), (_BODY * 200, b"0"), (b"", b"\0"), (b"", b"5")]),
            style=_style(rng),
        )
    ),
)
anywhere(
    "attributes of macOS by an extended name",
    lambda rng: (
        rng.choice([pax(("path", "lib/._x"), ("size", "7")), gnu_long(b"d/" * 70 + b"._x")])
        + member(_NAME, _BODY)
    ),
)
anywhere(
    "an extended name only for what is passed over",
    lambda rng: member(b"lib/._a.py", _BODY) + member(_NAME, _BODY),
)
anywhere(
    "hardly of macOS", lambda rng: member(rng.choice([b"_._", b"a._", b"_._/x", b"DS_Store"]))
)

# --- extended headers ---------------------------------------------------------------------------

_X = pax(("path", "extended/name.py"))
_X_NAMELESS = pax(("mtime", "1.5"))
_L = gnu_long(b"long/name.py")
_K = gnu_long(b"long/target", b"K")
_GLOBAL = pax(("comment", "0123456789abcdef"), kind=b"g")
_EXTENSIONS = {
    "x twice": [_X + _X, _X_NAMELESS + _X, _X + _X_NAMELESS],
    "L twice": [_L + _L, _L + _K + _L],
    "x and L": [_X + _L, _L + _X],
    "x without a path and L": [_X_NAMELESS + _L, _L + _X_NAMELESS],
    "K beside others": [_K, _K + _L, _L + _K, _K + _X, _X + _K],
    "K twice": [_K + _K],
    "global header": [_GLOBAL, _GLOBAL + _X, _GLOBAL + _L, _GLOBAL + _GLOBAL],
    "global header after an extended one": [_X + _GLOBAL, _L + _GLOBAL],
    "global path": [pax(("path", "all/the/same"), kind=b"g") + member(_NAME)],
    "global path and x": [pax(("path", "all/the/same"), kind=b"g") + _X],
    "global size": [pax(("size", "5"), kind=b"g"), pax(("size", "7"), kind=b"g")],
    "path twice in one x": [pax(("path", "first"), ("path", "second"))],
    "empty path in x": [pax(("path", ""))],
    "empty size in x": [pax(("size", ""))],
    "empty path takes back a global one": [
        pax(("path", "all/the/same"), kind=b"g") + pax(("path", ""))
    ],
    "other records": [
        pax(("atime", "1.5"), ("SCHILY.dev", "5"), ("LIBARCHIVE.creationtime", "1.25")),
        pax(("uname", "größe"), ("hdrcharset", "ISO-IR 10646 2000 UTF-8")),
        pax(("comment", "a=b\nc=d\n\0e")),
        extended(b"x", b""),
    ],
    "NUL in x path": [pax(("path", "a\0b"))],
    "x path that is not UTF-8": [pax((b"path", b"caf\xe9"), (b"hdrcharset", b"BINARY"))],
    "bad record length": [
        extended(b"x", b"99 path=abc\n"),
        extended(b"x", b"11 path=abc\n"),
        extended(b"x", b"0 path=abc\n"),
        extended(b"x", b"x path=abc\n"),
        extended(b"x", b"12 path=abc.25 path=hidden/name.py\n"),
        extended(b"x", b"10 pathabc\n"),
    ],
    "odd size in x": [pax(("size", text)) for text in ("-7", "+7", "7 ", "1_0", "7.0", "abc")],
    "very large size in x": [pax(("size", "99999999999")), pax(("size", "9" * 30))],
    "PAX size": [pax(("size", "7"))],
    "PAX size with a wrong one in the header": [pax(("size", "1030"))],
    "long comment": [pax(("comment", "c" * n)) for n in (480, 499, 500, 501, 4200, 65536)],
    "long comment between others": [
        pax(("size", "7"), ("comment", "c" * n), ("path", "extended/name.py"))
        for n in (470, 1000, 60000)
    ],
    "long record that is damaged": [
        extended(b"x", b"1000 comment=" + b"c" * 987),
        extended(b"x", b"1001 comment=" + b"c" * 986 + b"\n"),
        extended(b"x", b"999 comment=" + b"c" * 986 + b"\n"),
    ],
    "PAX path of the longest": [pax(("path", "p/" * n)) for n in (2042, 2298, 2299, 2300, 2301)],
    "very long extended header": [gnu_long(b"l" * 5000), pax(("path", "p" * 5000))],
    "long name with junk behind its end": [extended(b"L", b"name.py\0junk", style="gnu")],
    "empty long name": [gnu_long(b"")],
}
for _name, _heads in _EXTENSIONS.items():
    anywhere(
        _name,
        lambda rng, heads=_heads: rng.choice(heads) + member(_NAME, _BODY),
    )
anywhere(
    "global size of other blocks",
    lambda rng: pax(("size", "7"), kind=b"g") + member(_NAME, bytes(600)) + member(_NAME, _BODY),
)
anywhere(
    "size of more than 8 GB in x only",
    lambda rng: pax(("size", "1024")) + header(_NAME, 0) + bytes(1024),
)
for _name, _heads in {
    "x last": [_X, _X_NAMELESS],
    "L last": [_L, _K],
    "global header last": [_GLOBAL],
}.items():
    last(_name, lambda rng, heads=_heads: rng.choice(heads))

# --- numbers ------------------------------------------------------------------------------------

_SIZES = {
    "size in base 256": [blocks.base256(7, 12)],
    "negative size": [blocks.base256(-7, 12), b"-7\0"],
    "huge size": [b"\x80" + b"\xff" * 11, b"\x81" + bytes(11), b"\xc0" + bytes(11)],
    "size as Python spells it": [b"0o7\0", b"0_7\0", b"+7\0"],
    "size that is no number": [b"7x\0", b"8\0", b"0x7\0", b"7 7\0", b"\xb57\0"],
    "size between blanks": [b" 7 \0", b"\t7\0", b"7  ", b"0000000007 \0", b"000000000007"],
    "size behind a NUL": [b"\x0000000007\0"],
    "no size": [bytes(12), b" " * 12],
}
for _name, _spellings in _SIZES.items():
    anywhere(
        _name,
        lambda rng, spellings=_spellings: (
            header(_NAME, fields={124: rng.choice(spellings).ljust(12, b"\0")}, style=_style(rng))
            + blocks.padded(_BODY)
        ),
    )
anywhere(
    "junk in a number that is not read",
    lambda rng: member(
        _NAME, _BODY, fields={rng.choice([100, 108, 116, 136, 329, 337]): b"?" * 8}
    ),
)
anywhere(
    "numbers in base 256",
    lambda rng: member(
        _NAME,
        _BODY,
        style="gnu",
        fields={108: blocks.base256(10**7, 8), 136: blocks.base256(-1000, 12)},
    ),
)
anywhere(
    "folder with a size",
    lambda rng: header(
        rng.choice([b"folder", b"folder/"]), rng.choice([7, 600]), b"5", style=_style(rng)
    ),
)
anywhere(
    "folder with a size in x", lambda rng: pax(("size", "600")) + header(b"folder", kind=b"5")
)
anywhere("signed check sum", lambda rng: member("größe.py".encode(), _BODY, signed=True))
anywhere(
    "wrong check sum",
    lambda rng: member(_NAME, _BODY, sum_text="%07o\0").replace(b"lib", b"lic", 1),
)
anywhere(
    "check sum that is no number",
    lambda rng: member(_NAME, _BODY, sum_text=rng.choice(["0x%x", "%d89", "?%o"])),
)
anywhere("noise for a header", lambda rng: rng.randbytes(512))
