"""A body that comes in chunks (RFC 9112, 7.1). Few servers send a file so."""

from micropython import const

from .errors import Transient

_REASON = const("can not download")
_LONGEST_LINE = const(1024)
_MOST_HEADERS = const(64)


class Chunks:
    """What is in the chunks of a download.Response, as its `raw`."""

    def __init__(self, response):
        self._response = response
        self._more = True

    def readinto(self, buffer, n):
        """Read at most n bytes of the body into buffer; 0 at its end. Raises as the Response."""
        response = self._response
        if self._more and not response.left:  # None at the beginning
            self._next()
        got = response.readinto(buffer, n)
        if self._more and not response.left and self._line():
            raise Transient(_REASON, "a chunk is longer than it says")
        return got

    def _next(self):
        text = self._line().split(b";")[0].strip()
        # Eight digits at most: int() alone would also take signs, underscores and a 0x.
        if not 0 < len(text) <= 8 or any(c not in b"0123456789abcdefABCDEF" for c in text):
            raise Transient(_REASON, "a chunk's size makes no sense")
        self._response.left = int(text, 16)
        if not self._response.left:
            self._more = False
            for _ in range(_MOST_HEADERS):  # trailers, which tell nothing that matters here
                if not self._line():
                    return
            raise Transient(_REASON, "more than %d headers" % _MOST_HEADERS)

    def _line(self):
        """One line between chunks, without its end, or its first byte too many."""
        line = bytearray()
        byte = bytearray(1)
        for _ in range(_MOST_HEADERS * _LONGEST_LINE):
            if not self._response.wire.receive(byte):
                raise Transient(_REASON, "the answer ended early")
            if byte[0] == 10:
                return bytes(line).rstrip(b"\r")
            if len(line) <= _LONGEST_LINE:
                line += byte
        raise Transient(_REASON, "a header line is too long")
