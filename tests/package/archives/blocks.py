"""Tar blocks by hand, so that each field can be odd or wrong."""

from __future__ import annotations

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

MAGIC = {"v7": bytes(8), "ustar": b"ustar\x0000", "gnu": b"ustar  \0", "pax": b"ustar\x0000"}
#: Kinds of headers that say something about the member, or members, behind them.
EXTENDED = (b"x", b"g", b"L", b"K")


def padded(content: bytes) -> bytes:
    """Content, filled up with zeros to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def octal(number: int, width: int) -> bytes:
    """A number as most programs write it."""
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """A number as GNU tar writes large and negative ones."""
    return bytes([0x80 if number >= 0 else 0xFF]) + (number % 256 ** (width - 1)).to_bytes(
        width - 1, "big"
    )


def check_sum(header: bytes, *, signed: bool = False) -> int:
    """The sum of a header's bytes, its own field as spaces."""
    blank = header[:148] + b" " * 8 + header[156:]
    return sum(memoryview(blank).cast("b" if signed else "B"))


def with_check_sum(header: bytes, *, signed: bool = False, text: str = "%06o\0 ") -> bytes:
    """The header with its sum filled in."""
    total = check_sum(header, signed=signed)
    if total <= 0:  # no spelling of it is agreed upon
        total = check_sum(header)
    return header[:148] + (text % total).encode().ljust(8, b"\0")[:8] + header[156:]


def header(
    name: bytes,
    size: int = 0,
    kind: bytes = b"0",
    *,
    style: str = "ustar",
    prefix: bytes = b"",
    link: bytes = b"",
    fields: dict[int, bytes] | None = None,
    signed: bool = False,
    sum_text: str = "%06o\0 ",
) -> bytes:
    """One header block. `fields` are raw bytes by offset, laid over everything else."""
    raw = bytearray(BLOCK)
    raw[: len(name[:100])] = name[:100]
    raw[100:108] = octal(0o644, 8)
    raw[108:116] = raw[116:124] = octal(1000, 8)
    raw[124:136] = octal(size, 12) if size < 8**11 else base256(size, 12)
    raw[136:148] = octal(1_700_000_000, 12)
    raw[156:157] = kind
    raw[157 : 157 + len(link[:100])] = link[:100]
    raw[257:265] = MAGIC[style]
    if style != "v7":
        raw[265:269] = raw[297:301] = b"node"
    raw[345 : 345 + len(prefix[:155])] = prefix[:155]
    for at, value in (fields or {}).items():
        raw[at : at + len(value)] = value
    return with_check_sum(bytes(raw), signed=signed, text=sum_text)


def record(key: str | bytes, value: str | bytes) -> bytes:
    """One PAX record, its own length in front."""
    key = key.encode() if isinstance(key, str) else key
    value = value.encode() if isinstance(value, str) else value
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def extended(kind: bytes, content: bytes, *, style: str = "ustar") -> bytes:
    """A header of an extended kind, with its content."""
    name = b"././@LongLink" if kind in (b"L", b"K") else b"././@PaxHeader"
    return header(name, len(content), kind, style=style) + padded(content)


def pax(*records: tuple[str | bytes, str | bytes], kind: bytes = b"x") -> bytes:
    """An extended PAX header of these records."""
    return extended(kind, b"".join(record(key, value) for key, value in records))


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's long name (`L`), or long target of a link (`K`)."""
    return extended(kind, name + b"\0", style="gnu")


def split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar keeps a long name; None when it does not fit."""
    for at, byte in enumerate(name):
        if byte == 0x2F and 0 < at <= 155 and 0 < len(name) - at - 1 <= 100:
            return name[:at], name[at + 1 :]
    return None


def member(
    name: bytes, content: bytes = b"", kind: bytes = b"0", *, style: str = "ustar", **options
) -> bytes:
    """A member of any format, with the extended headers that a long name needs in it."""
    head, prefix = b"", b""
    if len(name) > 100:
        halves = split(name) if style in ("ustar", "pax") else None
        if halves:
            prefix, name = halves
        elif style == "pax" and is_utf8(name):
            head = pax(("path", name))
        else:
            head = gnu_long(name)
    own = header(name, len(content), kind, style=style, prefix=prefix, **options)
    return head + own + padded(content)


def is_utf8(raw: bytes) -> bool:
    """True for strict UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
