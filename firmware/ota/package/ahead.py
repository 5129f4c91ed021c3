"""A source of bytes, with a look at what comes next."""

import io

from micropython import const

from ..errors import Transient
from ..tarfile_lite import bad

_PART = const(256)  # asked of the source at a time
# How many bytes DeflateIO makes at a time, and how many have to lie ahead for each: two, and
# 289 for the code tables of a block; or, where each was flushed by itself, in every way that zlib
# has, 17. So 20 are enough for a piece of this size, and for any larger one.
_PIECE = const(32)
_ENOUGH = const(20)
# With memory to spare, because what a piece costs is nearly the same for all sizes.
_LARGE_PIECE = const(256)
_LARGE_PART = const(1024)


class ReadAhead:
    """A source with a look at what comes next.

    DeflateIO asks for one byte at a time. A call into Python for each would take more time than
    all else, so it gets `stream`, a BytesIO, and fill() is called between its reads, when `stream`
    is beyond `until`. BytesIO can not be cut off: behind `_end` lies what was there earlier.

    Where the source fails, what has come of it is given out first: another wake may go on behind
    it (marks.py).
    """

    # Of a gzip member so far; plain tar has none.
    sum = length = 0
    failed = None

    def __init__(self, source):
        self.buffer = bytearray(_PART)
        self.piece, self.form = _PIECE, b"32s"
        self.stream = io.BytesIO(_PIECE * _ENOUGH + _PART)
        self.window = 0  # bytes; plain tar needs none
        self.begin(source)

    def begin(self, source):
        """Forget what was taken, and go on with this source."""
        self.source = source  # None at its end
        self.stream.seek(0)
        self.until = self._end = 0

    def readinto(self, buffer, n):
        """Read at most n bytes as they are; 0 at the end of the source."""
        if self.stream:
            left = self._end - self.stream.tell()
            large = self.piece == _LARGE_PIECE
            if not left and large and n < _LARGE_PART:
                left = self.fill(1)  # each call of the source takes its time
            if left or not self.source:
                if self.failed and not left:
                    raise self.failed
                return self.stream.readinto(buffer, min(n, left))
            if not large:
                self.stream = self.buffer = None  # plain tar needs no more looks
                self._end = 0
        return self.source.readinto(buffer, n)

    def ahead(self):
        """How many bytes of the source have been taken, but not given out."""
        return self._end - self.stream.tell() if self.stream else 0

    def fill(self, least=None):
        """See to it that so many bytes lie ahead, or all that the source has.

        least: at most what is enough for a piece, and so much without it. Returns how many do;
        less than 0 when more were taken than there were.
        """
        # Few names: where there are more, each call takes memory for them from the heap.
        stream = self.stream
        if least is None:
            least = self.piece * _ENOUGH
        left = self._end - stream.tell()
        if not 0 <= left < least or not self.source:
            return left
        end = 0
        while end < left:  # to the front; a slice would be garbage
            stream.seek(self._end - left + end)
            n = stream.readinto(self.buffer, left - end)
            stream.seek(end)
            end += stream.write(self.buffer, n)
        stream.seek(end)
        while end < least:
            try:
                n = self.source.readinto(self.buffer, len(self.buffer))
            except Transient as error:
                self.failed = error
                n = 0
            if not n:
                self.source = None
                break
            end += stream.write(self.buffer, n)
        stream.seek(0)
        self._end = end
        self.until = end - self.piece * _ENOUGH if self.source else end
        return end

    def peek(self, n, all=True):
        """The next n bytes (fewer only at the source's end) without consuming them.

        all: False takes what there is where the source has failed.
        """
        left = self.fill(n)
        if left < n:
            if self.failed and all:
                raise self.failed
            n = left
        start = self.stream.tell()
        found = self.stream.read(n)
        self.stream.seek(start)
        return found

    def take(self, n):
        """The next n bytes, consumed."""
        if self.fill(n) < n:
            if self.failed:
                raise self.failed
            raise bad("compressed stream ends early")
        return self.stream.read(n)
