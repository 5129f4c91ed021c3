"""tar by hand, so that any field of it can be wrong, and what the node has on flash."""

from __future__ import annotations

from pathlib import Path

BLOCK = 512
END = bytes(2 * BLOCK)
POSIX = b"ustar\x0000"
GNU = b"ustar  \0"
FIRMWARE = Path(__file__).parents[3] / "firmware"

#: What the node has on flash, but for the agent: attacks refer to these names.
OLD_TREE: dict[str, bytes] = {
    "/boot.py": (FIRMWARE / "boot.py").read_bytes(),
    "/main.py": b"print('version', 1)\n" * 40,
    "/ota.json": b'{"device_id": "d", "device_key": "k", "control_channel": "c"}',
    "/ca.der": bytes(range(256)) * 3,
    "/ota/agent.py": b"old = 1\n",
    "/lib/driver.py": b"old = 2\n",
    "/lib/fast.mpy": b"M\x06\x00\x1f old",
    "/data/log.csv": b"1,2\n" * 500,
}


def header(
    name: bytes = b"x",
    size: int = 0,
    kind: bytes = b"0",
    *,
    size_field: bytes | None = None,
    sum_field: bytes | None = None,
    prefix: bytes = b"",
    link: bytes = b"",
    magic: bytes = POSIX,
) -> bytes:
    """One header block. `size_field` and `sum_field` take the place of the right ones."""
    raw = bytearray(BLOCK)

    def put(at: int, field: bytes) -> None:
        raw[at : at + len(field)] = field

    put(0, name[:100])
    put(100, b"0000644\0")
    put(124, b"%011o\0" % size if size_field is None else size_field)
    put(136, b"00000000000\0")
    put(156, kind)
    put(157, link)
    put(257, magic)
    put(345, prefix)
    put(148, b" " * 8)
    put(148, b"%06o\0 " % sum(raw) if sum_field is None else sum_field)
    return bytes(raw)


def padded(content: bytes) -> bytes:
    """Content, filled up to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def member(name: bytes, content: bytes = b"", kind: bytes = b"0", **fields) -> bytes:
    """A header with its content behind it; fields are those of :func:`header`."""
    return header(name, len(content), kind, **fields) + padded(content)


def folder(name: bytes) -> bytes:
    """An entry of a folder."""
    return header(name, kind=b"5")


def record(key: bytes, value: bytes) -> bytes:
    """One record of a PAX header, with the length it has."""
    text = b" %s=%s\n" % (key, value)
    length = len(text)
    while length != len(text) + len(str(length)):
        length = len(text) + len(str(length))
    return b"%d%s" % (length, text)


def extension(kind: bytes, content: bytes) -> bytes:
    """An extended header (`x`, `g`, `L` or `K`) as GNU tar and Python write it."""
    return member(b"././@PaxHeader", content, kind)


def pax(**values: bytes) -> bytes:
    """A PAX `x` header with these records, in this order."""
    return extension(b"x", b"".join(record(k.encode(), v) for k, v in values.items()))


def gnu_name(name: bytes) -> bytes:
    """A GNU `L` header: the name of the member that follows."""
    return member(b"././@LongLink", name + b"\0", b"L", magic=GNU)


#: A sound member in front, so that the archive is known for one and something is staged already.
FIRST = member(b"first.txt", b"sound\n")


def package(*parts: bytes) -> bytes:
    """A tar archive: a sound member, the parts, the end."""
    return FIRST + b"".join(parts) + END
