"""The body of an HTTP answer, as urequests shapes it: all that has to be in RAM while it comes."""

from micropython import const

from .errors import Transient

_REASON = const("can not download")
_LONGEST_LINE = const(1024)
_MOST_HEADERS = const(64)


class Response:
    """An answer, as https.get() fills it in.

    status_code: int; length: bytes of the body, None when the server does not say; etag: bytes, a
    strong entity tag, b"" without one; content_range: bytes or None; raw: an object with
    `readinto(buffer, n)`, 0 at the end of the body. wire: the Wire it comes on.
    """

    def __init__(self, wire):
        self.status_code = 0
        self.length = None
        self.etag = b""
        self.content_range = None
        self.raw = self
        self._wire = wire
        self.chunked = False
        self.left = None  # bytes of the body, or of this chunk; None: until the server closes

    def readinto(self, buffer, n):
        """Read at most n bytes of the body into buffer; 0 at its end.

        Raises Transient when the connection ends before the body does, OSError when it fails.
        """
        if self.chunked and not self.left:
            self._next_chunk()
        if self.left is not None and n > self.left:
            n = self.left
        if not n:
            return 0
        got = self._wire.receive(buffer if n == len(buffer) else memoryview(buffer)[:n])
        if self.left is not None:
            if not got:
                raise Transient(_REASON, "the body ended early")
            self.left -= got
            if self.chunked and not self.left and self._line():
                raise Transient(_REASON, "a chunk is longer than it says")
        return got

    def close(self):
        """End the connection."""
        self._wire.close()

    def receive(self, byte):
        """Read the next byte, of the head or between chunks. Raises Transient at the end."""
        if not self._wire.receive(byte):
            raise Transient(_REASON, "the answer ended early")

    def _line(self):
        """One line between chunks, without its end, or its first byte too many."""
        line = bytearray()
        byte = bytearray(1)
        for _ in range(_MOST_HEADERS * _LONGEST_LINE):
            self.receive(byte)
            if byte[0] == 10:
                return bytes(line).rstrip(b"\r")
            if len(line) <= _LONGEST_LINE:
                line += byte
        raise Transient(_REASON, "a header line is too long")

    def _next_chunk(self):
        text = self._line().split(b";")[0].strip()
        # Eight digits at most: int() alone would also take signs, underscores and a 0x.
        if not 0 < len(text) <= 8 or any(c not in b"0123456789abcdefABCDEF" for c in text):
            raise Transient(_REASON, "a chunk's size makes no sense")
        self.left = int(text, 16)
        if not self.left:
            self.chunked = False
            for _ in range(_MOST_HEADERS):  # trailers, which tell nothing that matters here
                if not self._line():
                    return
            raise Transient(_REASON, "more than %d headers" % _MOST_HEADERS)
