"""Tar bytes from whatever the platform stores: plain tar, gzip, zlib or microfreezer's format.

The content decides, not the request's `t`. What unpacks is imported when it is needed.
"""

import binascii
import io

from micropython import const

from ..errors import Refused
from ..tarfile_lite import bad, looks_like_header

_PART = const(256)  # asked of the source at a time
# What has to lie ahead before DeflateIO makes 32 bytes: two for each of them and 289 for the code
# tables of a block; or, when each was flushed by itself, in every way that zlib has, 17 for each.
_ENOUGH = const(640)
_AHEAD = const(896)  # the sum of both


class ReadAhead:
    """A source with a look at what comes next.

    DeflateIO asks for one byte at a time. A call into Python for each would take more time than
    all else, so it gets `stream`, a BytesIO, and fill() is called between its reads, when `stream`
    is beyond `until`. BytesIO can not be cut off: behind `_end` lies what was there earlier.

    It also keeps the CRC-32 of what went through, for the one format whose check sum is of its
    input.
    """

    def __init__(self, source):
        self.source = source  # None at its end
        self.buffer = bytearray(_PART)
        self.stream = io.BytesIO(_AHEAD)
        self.until = 0
        self.window = 0  # bytes; plain tar needs none
        self._end = 0
        self._crc = None
        self._crc_from = 0

    def readinto(self, buffer, n):
        """Read at most n bytes as they are; 0 at the end of the source."""
        if self.stream:
            left = self._end - self.stream.tell()
            if left:
                return self.stream.readinto(buffer, min(n, left))
            self.stream = None  # plain tar needs no more looks
        return self.source.readinto(buffer, n)

    def fill(self, least=_ENOUGH):
        """See to it that so many bytes (at most _ENOUGH) lie ahead, or all that the source has.

        Returns how many do; less than 0 when more were taken than there were.
        """
        stream, buffer = self.stream, self.buffer
        start = stream.tell()
        left = self._end - start
        if not 0 <= left < least or not self.source:
            return left
        self._crc = self.end_crc()
        self._crc_from = end = 0
        while end < left:  # to the front; a slice would be garbage
            stream.seek(start + end)
            n = stream.readinto(buffer, left - end)
            stream.seek(end)
            end += stream.write(buffer, n)
        stream.seek(end)
        while end < least:
            n = self.source.readinto(buffer, _PART)
            if not n:
                self.source = None
                break
            end += stream.write(buffer, n)
        stream.seek(0)
        self._end = end
        self.until = end - _ENOUGH if self.source else end
        return end

    def peek(self, n):
        """The next n bytes (fewer only at the source's end) without consuming them."""
        n = min(n, self.fill(n))
        start = self.stream.tell()
        found = self.stream.read(n)
        self.stream.seek(start)
        return found

    def take(self, n):
        """The next n bytes, consumed."""
        if self.fill(n) < n:
            raise bad("compressed stream ends early")
        return self.stream.read(n)

    def begin_crc(self):
        """Start the CRC-32 of everything consumed from here on."""
        self._crc = 0
        self._crc_from = self.stream.tell()

    def end_crc(self):
        """The CRC-32 since begin_crc(), int."""
        crc, self._crc = self._crc, None
        if crc is not None:
            passed = self.stream.tell() - self._crc_from
            self.stream.seek(self._crc_from)
            crc = binascii.crc32(self.stream.read(passed), crc)
        return crc


def open_archive(source):
    """Find out what source holds and return a reader of its tar bytes.

    source: an object with `readinto(buffer, n)`. The result has `readinto(buffer, n)`, which gives
    0 only after every check sum and length has been verified and the source is at its end.
    Raises Refused on damaged or unknown content, and when the window does not fit in memory.
    """
    ahead = ReadAhead(source)
    head = ahead.peek(512)
    # A tar header is asked first: a file name may begin with the bytes of a zlib header.
    if len(head) == 512 and (looks_like_header(head) or not any(head)):
        return ahead
    from .inflate import Gzip, Zlib

    if len(head) >= 10 and head[0] == 0x1F and head[1] == 0x8B:
        if head[2] == 8 and not any(head[3:8]) and _is_zlib(head[8], head[9]):
            ahead.take(8)
            return Zlib(ahead, True)
        return Gzip(ahead)
    if len(head) >= 2 and _is_zlib(head[0], head[1]):
        return Zlib(ahead, False)
    # Where the server did not say that it has as many bytes as the package, it may have sent a
    # page that tells of repairs, and that may pass.
    if getattr(source, "length", 0) is None:
        raise Refused("can not download", "neither tar nor a known compression")
    raise bad("neither tar nor a known compression")


def _is_zlib(first, second):
    return first & 15 == 8 and first >> 4 < 8 and (first << 8 | second) % 31 == 0
