"""Tar bytes from whatever the platform stores: plain tar, gzip, zlib or microfreezer's format.

The content decides, not the request's `t`. Formats: gzip RFC 1952, zlib RFC 1950; microfreezer's
is eight bytes of a gzip header, a zlib stream, and a big-endian CRC-32 of that stream.
"""

import binascii
import gc

from micropython import const

from .errors import Refused, Transient
from .tarfile_lite import looks_like_header

_AHEAD = const(1024)
_GZIP_HEADER_LIMIT = const(1024)


def _bad(detail):
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
                raise _bad("compressed stream ends early")
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
    if len(head) >= 10 and head[0] == 0x1F and head[1] == 0x8B:
        if head[2] == 8 and not any(head[3:8]) and _is_zlib(head[8], head[9]):
            ahead.take(8)
            return _Zlib(ahead, True)
        return _Gzip(ahead)
    if len(head) >= 2 and _is_zlib(head[0], head[1]):
        return _Zlib(ahead, False)
    raise _bad("neither tar nor a known compression")


def _is_zlib(first, second):
    return first & 15 == 8 and first >> 4 < 8 and (first << 8 | second) % 31 == 0


def _deflate(ahead, format_name, window_bits):
    """A DeflateIO over ahead. Its window is allocated at the first read."""
    import io

    import deflate

    class Stream(io.IOBase):
        def readinto(self, buffer):
            return ahead.readinto(buffer)

    return deflate.DeflateIO(Stream(), getattr(deflate, format_name), window_bits)


class _Inflated:
    def __init__(self, ahead, format_name, window_bits):
        self._ahead = ahead
        self._format_name = format_name
        self._window_bits = window_bits
        self._begin()

    def _begin(self):
        self._deflate = _deflate(self._ahead, self._format_name, self._window_bits)

    def readinto(self, buffer, n):
        """Read at most n bytes of the archive; 0 only at its verified end."""
        while self._deflate:
            try:
                got = self._deflate.readinto(buffer, n)
            except EOFError:
                raise _bad("compressed stream ends early")
            except MemoryError:
                raise Transient(
                    "can not apply",
                    "no memory for a window of %d bytes" % (1 << self._window_bits),
                )
            except OSError as error:
                if error.args[0] != 22:  # EINVAL is DeflateIO's; others are the source's own
                    raise
                raise _bad("compressed stream is damaged")
            if got:
                self._account(buffer, got)
                return got
            self._deflate = None
            self._finish()
        return 0


class _Gzip(_Inflated):
    """gzip members one after the other, CRC-32 and length of each verified."""

    def __init__(self, ahead):
        super().__init__(ahead, "RAW", 15)

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
            raise _bad("unknown gzip method or flags")
        if flags & 4:  # FEXTRA
            size = ahead.take(2)
            for _ in range(size[0] | size[1] << 8):
                ahead.take(1)
        for flag in (8, 16):  # FNAME, FCOMMENT
            if flags & flag:
                left = _GZIP_HEADER_LIMIT
                while ahead.take(1)[0]:
                    left -= 1
                    if not left:
                        raise _bad("endless name in the gzip header")
        crc = ahead.end_crc()
        if flags & 2 and int.from_bytes(ahead.take(2), "little") != crc & 0xFFFF:  # FHCRC
            raise _bad("CRC of the gzip header differs")

    def _account(self, buffer, n):
        part = buffer if n == len(buffer) else memoryview(buffer)[:n]
        self._crc = binascii.crc32(part, self._crc)
        self._length += n

    def _finish(self):
        ahead = self._ahead
        trailer = ahead.take(8)
        if int.from_bytes(trailer[:4], "little") != self._crc:
            raise _bad("CRC-32 differs")
        if int.from_bytes(trailer[4:], "little") != self._length & 0xFFFFFFFF:
            raise _bad("length differs")
        following = ahead.peek(1)
        if len(following) and following[0]:
            # As `cat a.gz b.gz` makes it, and pigz. The old window has to go before the new one.
            gc.collect()
            self._begin()
            return
        while len(following):  # tapes and block devices pad with zeros
            if any(following):
                raise _bad("data after the compressed stream")
            ahead.take(len(following))
            following = ahead.peek(8)


class _Zlib(_Inflated):
    """A zlib stream (DeflateIO verifies its Adler-32), bare or in microfreezer's wrapping."""

    def __init__(self, ahead, wrapped):
        self._wrapped = wrapped
        if wrapped:
            ahead.begin_crc()
        super().__init__(ahead, "ZLIB", (ahead.peek(1)[0] >> 4) + 8)

    def _account(self, buffer, n):
        pass

    def _finish(self):
        if self._wrapped:
            crc = self._ahead.end_crc()
            if int.from_bytes(self._ahead.take(4), "big") != crc:
                raise _bad("CRC-32 differs")
        if len(self._ahead.peek(1)):
            raise _bad("data after the compressed stream")
