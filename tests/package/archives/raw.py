"""A third look at one member: its blocks, and what they say literally, for the judge."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field

from tests.package.archives.blocks import BLOCK, EXTENDED, check_sum

#: Offset and length of a field; the unread ones CPython needs as numbers, the device does not.
SIZE_FIELD = (124, 12)
UNREAD_NUMBERS = ((100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8))


@dataclass
class Raw:
    """The blocks of one member: its extended headers with their content, then its own header.

    header: b"" when the archive ends before it; less than a block when it is cut off.
    """

    extensions: list[tuple[bytes, bytes]] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)  # of the extensions
    header: bytes = b""
    start: int = 0  # offset of `header`

    @property
    def kind(self) -> bytes:
        return self.header[156:157]

    @property
    def kinds(self) -> str:
        """The kinds of its extended headers, in order."""
        return b"".join(kind for kind, _ in self.extensions).decode()

    def records(self, kinds: bytes = b"xg") -> list[tuple[bytes, bytes]]:
        """The PAX records of these kinds of headers, as far as they are sound."""
        contents = [content for kind, content in self.extensions if kind in kinds]
        return [pair for content in contents for pair in records(content)[0]]


def number(header: bytes, at: int, length: int) -> int | None:
    """A header's number as CPython reads it, or None."""
    try:
        return tarfile.nti(header[at : at + length])
    except (tarfile.HeaderError, ValueError, IndexError):
        return None


def sound_sum(header: bytes) -> bool:
    """True when the check sum is there and right, in either way of summing."""
    sums = (check_sum(header), check_sum(header, signed=True))
    return len(header) == BLOCK and number(header, 148, 8) in sums


def octal_or_base256(text: bytes) -> bool:
    """True for the spellings of a number that the device reads."""
    if text[0] & 0x80:
        return text[0] == 0x80
    return re.fullmatch(rb"[ \t\n\r\v\f]*[0-7]*[ \t\n\r\v\f]*", text.split(b"\0")[0]) is not None


def records(content: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
    """(records of a PAX header, whether all of it was sound)."""
    found = []
    rest = content
    while rest:
        match = re.match(rb"(\d{1,10}) ", rest)
        length = int(match[1]) if match else 0
        body = rest[match.end() : length] if match else b""
        key, equals, value = body[:-1].partition(b"=")
        if not equals or body[-1:] != b"\n" or length > len(rest):
            return found, False
        found.append((key, value))
        rest = rest[length:]
    return found, True


def member_at(plain: bytes, offset: int) -> Raw:
    """The member whose blocks begin at offset. Stops at the first unsound header."""
    raw = Raw()
    while True:
        raw.start = offset
        raw.header = plain[offset : offset + BLOCK]
        if raw.kind not in EXTENDED or not sound_sum(raw.header):
            return raw
        size = number(raw.header, 124, 12)
        if size is None or size < 0:
            return raw
        offset += BLOCK
        raw.headers.append(raw.header)
        raw.extensions.append((raw.kind, plain[offset : offset + size]))
        offset += size + -size % BLOCK
