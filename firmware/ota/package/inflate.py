"""Decompression of what archive.py has recognised: gzip (RFC 1952)."""

import binascii
import gc
import struct

import deflate

from ..tarfile_lite import bad


class Inflated:
    """What DeflateIO makes of a ReadAhead, as open_archive() says.

    finish() is called behind the stream: it verifies what follows, and may begin another one.
    """

    sum = None  # CRC-32 of what came out, where that is what has to be compared
    length = 0

    def __init__(self, ahead, format, window_bits):
        self.source = ahead
        self._format = format
        self._window_bits = window_bits
        self._begin()

    def _begin(self):
        self.source.fill()
        self.window = 1 << self._window_bits
        self._deflate = deflate.DeflateIO(self.source.stream, self._format, self._window_bits)
        # Made once: each look for a method makes an object.
        self._tell, self._read = self.source.stream.tell, self._deflate.readinto
        # The window is allocated at the first read: now, before anything else takes its room.
        self._first = None
        first = bytearray(1)
        try:
            self._first = first[: self._fill(first, 1)]
        except MemoryError:
            raise MemoryError(self.window)  # trouble.py says it in words

    def readinto(self, buffer, n):
        """Read at most n bytes of the archive; 0 only at its verified end."""
        while self._deflate:
            got = self._fill(buffer, n)
            if got:
                if self.sum is not None:
                    part = buffer if got == len(buffer) else memoryview(buffer)[:got]
                    self.sum = binascii.crc32(part, self.sum)
                    self.length += got
                return got
            self._deflate = self._read = None
            self.finish()
        return 0

    def forget(self):
        """Give nothing more, and take nothing."""
        self.source.source = None
        self._deflate = self._read = None

    def ahead(self):
        """As open_archive() says: nowhere."""
        return -1

    def _fill(self, buffer, n):
        """Fill buffer with n bytes, fewer only at the end of the compressed stream."""
        ahead = self.source
        piece, most, form = ahead.buffer, ahead.piece, ahead.form
        tell, until = self._tell, ahead.until
        readinto, put = self._read, struct.pack_into
        done = 0
        if self._first:  # one byte
            buffer[:1] = self._first
            self._first = None
            done = 1
        try:
            while done < n:
                if most > n - done:
                    most = n - done
                got = readinto(piece, most)
                if got == ahead.piece:  # without a slice, which would be garbage
                    put(form, buffer, done, piece)
                else:
                    buffer[done : done + got] = memoryview(piece)[:got]
                if tell() > until:
                    if ahead.fill() < 0:
                        raise EOFError  # the piece is made of what lay there earlier
                    until = ahead.until
                if not got:
                    break
                done += got
            return done
        except (EOFError, OSError) as error:
            if ahead.failed:
                raise ahead.failed
            if error.args and error.args[0] != 22:  # EINVAL is DeflateIO's
                raise  # the source's own
            if not isinstance(error, EOFError) and ahead.fill(0) >= 0:
                raise bad("compressed stream is damaged")
            if ahead.source:
                raise bad("compressed stream is mostly empty blocks")
            raise bad("compressed stream ends early")


class Gzip(Inflated):
    """gzip members one after the other, CRC-32 and length of each verified.

    restart: for one that begins behind a full flush, (window in bits, `sum`, `length` so far).
    """

    def __init__(self, ahead, restart=None):
        self._restarts = restart
        super().__init__(ahead, deflate.RAW, 15)

    def _begin(self):
        if self._restarts:
            self._window_bits, self.sum, self.length = self._restarts
        else:
            from .archive import read_gzip_header

            self._window_bits, self._restarts = read_gzip_header(self.source)
            del read_gzip_header
            self.sum = self.length = 0
        super()._begin()

    def ahead(self):
        """As open_archive() says: behind an empty stored block, where the header says so."""
        if not self._restarts or self._first or not self._deflate:
            return -1
        # In front of it are at most the 15 bits that end the block before, and three of its own.
        at = self.source.peek(8, False).find(b"\0\0\xff\xff")
        return self.source.ahead() - at - 4 if at >= 0 else -1

    def finish(self):
        """Verify the trailer; go on with another member, or see that nothing follows."""
        ahead = self.source
        trailer = ahead.take(8)
        if int.from_bytes(trailer[:4], "little") != self.sum:
            raise bad("CRC-32 differs")
        if int.from_bytes(trailer[4:], "little") != self.length & 0xFFFFFFFF:
            raise bad("length differs")
        following = ahead.peek(2)
        if len(following) and following[0] == 0x1F and following[-1] in (0x1F, 0x8B):
            # As `cat a.gz b.gz` makes it, and pigz. The old window has to go before the new one.
            gc.collect()
            self._restarts = 0
            self._begin()
            # The sum has begun anew: that of a file on both sides would be wrong (staging.py).
            self._restarts = 0
            return
        while len(following):  # tapes and block devices pad with zeros
            if any(following):
                raise bad("data after the compressed stream")
            ahead.take(len(following))
            following = ahead.peek(8)
