"""Tar bytes from whatever the platform stores: plain tar, gzip, zlib or microfreezer's format.

The content decides, not the request's `t`. What unpacks is imported when it is needed.
"""

import binascii

from micropython import const

from .errors import Refused
from .tarfile_lite import looks_like_header

_AHEAD = const(1024)


def bad(detail):
    """The Refused for an archive that is damaged or unknown."""
    return Refused("can not apply", "bad archive, " + detail)


class ReadAhead:
    """A source with a look at what comes next.

    DeflateIO asks for one byte at a time, so `readinto` first hands out what is buffered. It also
    keeps the CRC-32 of what went through, for the one format whose check sum is of its input.
    """

    def __init__(self, source):
        self._source = source
        self._buffer = bytearray(_AHEAD)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._crc = None
        self._crc_from = 0

    def readinto(self, buffer, n=0):
        """Read at most n (without n: len(buffer)) bytes; 0 at the end of the source."""
        n = n or len(buffer)
        start = self._start
        if start == self._end:
            if n >= _AHEAD and self._crc is None:
                return self._source.readinto(buffer, n)
            if not self._fill():
                return 0
            start = 0
        if n == 1:
            buffer[0] = self._buffer[start]
        else:
            n = min(n, self._end - start)
            buffer[:n] = self._view[start : start + n]
        self._start = start + n
        return n

    def peek(self, n):
        """The next n bytes (fewer only at the source's end) without consuming them."""
        while self._end - self._start < n:
            if self._start:
                self._count_crc()
                left = self._end - self._start
                self._buffer[:left] = self._buffer[self._start : self._end]
                self._start, self._end, self._crc_from = 0, left, 0
            more = self._source.readinto(self._view[self._end :], _AHEAD - self._end)
            if not more:
                break
            self._end += more
        return self._view[self._start : min(self._start + n, self._end)]

    def take(self, n):
        """The next n bytes, consumed. n: at most 8."""
        taken = bytearray(n)
        for i in range(n):
            if not self.readinto(memoryview(taken)[i:], 1):
                raise bad("compressed stream ends early")
        return taken

    def begin_crc(self):
        """Start the CRC-32 of everything consumed from here on."""
        self._crc = 0
        self._crc_from = self._start

    def end_crc(self):
        """The CRC-32 since begin_crc(), int."""
        self._count_crc()
        crc, self._crc = self._crc, None
        return crc

    def _count_crc(self):
        if self._crc is not None:
            self._crc = binascii.crc32(self._view[self._crc_from : self._start], self._crc)
            self._crc_from = self._start

    def _fill(self):
        self._count_crc()
        self._start = self._crc_from = 0
        self._end = self._source.readinto(self._buffer, _AHEAD)
        return self._end


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
    raise bad("neither tar nor a known compression")


def _is_zlib(first, second):
    return first & 15 == 8 and first >> 4 < 8 and (first << 8 | second) % 31 == 0
