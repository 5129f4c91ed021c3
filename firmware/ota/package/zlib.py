"""Decompression of zlib streams (RFC 1950), alone or in microfreezer's format.

That is eight bytes of a gzip header, a zlib stream, and a big-endian CRC-32 of that stream.
"""

from binascii import crc32

import deflate

from ..tarfile_lite import bad
from .inflate import Inflated


class Zlib(Inflated):
    """A zlib stream (DeflateIO verifies its Adler-32), alone or in microfreezer's wrapping."""

    def __init__(self, ahead, wrapped):
        self.summed = ahead.source = _Summed(ahead) if wrapped else ahead.source
        super().__init__(ahead, deflate.ZLIB, (ahead.peek(1)[0] >> 4) + 8)

    def finish(self):
        """Verify the CRC-32, and see that nothing follows."""
        stated = self.source.take(4) if type(self.summed) is _Summed else b""
        if len(self.source.peek(1)):
            raise bad("data after the compressed stream")
        if stated and int.from_bytes(stated, "big") != self.summed.sum:
            raise bad("CRC-32 differs")


class _Summed:
    """The source of a ReadAhead, with the CRC-32 of all from here on but the last four bytes."""

    def __init__(self, ahead):
        self.source = ahead.source
        self.sum = 0
        self.last = b""
        self.add(ahead.peek(ahead.ahead()))

    def add(self, data):
        """Take these bytes into the sum, but for the last four so far."""
        data = self.last + data
        self.last = data[-4:]
        self.sum = crc32(data[:-4], self.sum)

    def readinto(self, buffer, n):
        """As the source's."""
        n = self.source.readinto(buffer, n) if self.source else 0
        self.add(bytes(memoryview(buffer)[:n]))
        return n
