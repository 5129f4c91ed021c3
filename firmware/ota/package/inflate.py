"""Decompression of what archive.py has recognised.

Formats: gzip RFC 1952, zlib RFC 1950; microfreezer's is eight bytes of a gzip header, a zlib
stream, and a big-endian CRC-32 of that stream.
"""

import binascii
import gc
import struct

import deflate
from micropython import const

from ..errors import Transient
from ..tarfile_lite import bad

_GZIP_HEADER_LIMIT = const(1024)
_PIECE = const(32)  # what _ENOUGH in archive.py is enough for


class _Inflated:
    def __init__(self, ahead, format, window_bits):
        self._ahead = ahead
        self._format = format
        self._window_bits = window_bits
        self._begin()

    def _begin(self):
        # Now, because the window is allocated at the first read: nothing else may take its room.
        self._ahead.fill()
        self.window = 1 << self._window_bits
        self._deflate = deflate.DeflateIO(self._ahead.stream, self._format, self._window_bits)

    def readinto(self, buffer, n):
        """Read at most n bytes of the archive; 0 only at its verified end."""
        while self._deflate:
            try:
                got = self._fill(buffer, n)
            except MemoryError:
                raise Transient(
                    "can not apply",
                    "no memory for a window of %d bytes" % (1 << self._window_bits),
                )
            except (EOFError, OSError) as error:
                if error.args and error.args[0] != 22:  # EINVAL is DeflateIO's
                    raise  # the source's own
                if not isinstance(error, EOFError) and self._ahead.fill(0) >= 0:
                    raise bad("compressed stream is damaged")
                if self._ahead.source:
                    raise bad("compressed stream is mostly empty blocks")
                raise bad("compressed stream ends early")
            if got:
                self._account(buffer, got)
                return got
            self._deflate = None
            self._finish()
        return 0

    def _fill(self, buffer, n):
        """Fill buffer with n bytes, fewer only at the end of the compressed stream."""
        ahead = self._ahead
        done = 0
        while done < n:
            got = self._deflate.readinto(ahead.buffer, min(n - done, _PIECE))
            if got == _PIECE:  # without a slice, which would be garbage
                struct.pack_into(b"32s", buffer, done, ahead.buffer)
            else:
                buffer[done : done + got] = memoryview(ahead.buffer)[:got]
            if ahead.stream.tell() > ahead.until and ahead.fill() < 0:
                raise EOFError  # the piece is made of what lay there earlier
            if not got:
                break
            done += got
        return done


class Gzip(_Inflated):
    """gzip members one after the other, CRC-32 and length of each verified."""

    def __init__(self, ahead):
        super().__init__(ahead, deflate.RAW, 15)

    def _begin(self):
        self._skip_header(self._ahead)
        self._crc = 0
        self._length = 0
        super()._begin()

    def _skip_header(self, ahead):
        ahead.begin_crc()
        head = ahead.take(8)
        ahead.take(2)  # XFL and OS say nothing that matters here
        flags = head[3]
        if head[0] != 0x1F or head[1] != 0x8B or head[2] != 8 or flags & 0xE0:
            raise bad("unknown gzip method or flags")
        self._window_bits = 15
        if flags & 4:  # FEXTRA
            size = ahead.take(2)
            size = size[0] | size[1] << 8
            if size == 5:
                # Our packager's word for how far back it looked (docs/signing.md). Too small a
                # window makes DeflateIO fail, not err.
                field = ahead.take(5)
                if field[:4] == b"OW\x01\x00" and 9 <= field[4] <= 15:
                    self._window_bits = field[4]
                size = 0
            for _ in range(size):
                ahead.take(1)
        for flag in (8, 16):  # FNAME, FCOMMENT
            if flags & flag:
                left = _GZIP_HEADER_LIMIT
                while ahead.take(1)[0]:
                    left -= 1
                    if not left:
                        raise bad("endless name in the gzip header")
        crc = ahead.end_crc()
        if flags & 2 and int.from_bytes(ahead.take(2), "little") != crc & 0xFFFF:  # FHCRC
            raise bad("CRC of the gzip header differs")

    def _account(self, buffer, n):
        part = buffer if n == len(buffer) else memoryview(buffer)[:n]
        self._crc = binascii.crc32(part, self._crc)
        self._length += n

    def _finish(self):
        ahead = self._ahead
        trailer = ahead.take(8)
        if int.from_bytes(trailer[:4], "little") != self._crc:
            raise bad("CRC-32 differs")
        if int.from_bytes(trailer[4:], "little") != self._length & 0xFFFFFFFF:
            raise bad("length differs")
        following = ahead.peek(2)
        if len(following) and following[0] == 0x1F and following[-1] in (0x1F, 0x8B):
            # As `cat a.gz b.gz` makes it, and pigz. The old window has to go before the new one.
            gc.collect()
            self._begin()
            return
        while len(following):  # tapes and block devices pad with zeros
            if any(following):
                raise bad("data after the compressed stream")
            ahead.take(len(following))
            following = ahead.peek(8)


class Zlib(_Inflated):
    """A zlib stream (DeflateIO verifies its Adler-32), alone or in microfreezer's wrapping."""

    def __init__(self, ahead, wrapped):
        self._wrapped = wrapped
        if wrapped:
            ahead.begin_crc()
        super().__init__(ahead, deflate.ZLIB, (ahead.peek(1)[0] >> 4) + 8)

    def _account(self, buffer, n):
        pass

    def _finish(self):
        if self._wrapped:
            crc = self._ahead.end_crc()
            if int.from_bytes(self._ahead.take(4), "big") != crc:
                raise bad("CRC-32 differs")
        if len(self._ahead.peek(1)):
            raise bad("data after the compressed stream")
