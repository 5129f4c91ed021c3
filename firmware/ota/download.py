"""The bytes of a package, over the built-in HTTPS or an integrator's transport.

All that has to be in RAM while they come.

Whatever the transport, exactly the announced number of bytes is given out. A connection that is
lost is taken up again where it ended, below everything that unpacks: what is above never notices.
"""

from micropython import const

from . import drop
from .errors import Refused, Transient, name_of

_REASON = const("can not download")
_LONGEST_LINE = const(1024)
_MOST_HEADERS = const(64)


class Download:
    """The body of the requested package.

    config: a complete configuration; limits: Limits; open_stream: called with the URL in place of
    the built-in verified HTTPS, or None; on_bytes: called with the number of bytes so far. Raises
    Refused or Transient; neither quotes the URL: it holds the device key.
    """

    def __init__(self, config, request, limits, open_stream, on_bytes):
        self.config = config
        self.answer = Response
        self.request = request
        self.limits = limits
        self.open_stream = open_stream
        self._on_bytes = on_bytes
        self.done = 0
        self.fruitless = 0  # new connections in a row that have brought nothing
        self.etag = None  # of the first answer
        self.response = None
        self.pull = None  # what gives its body
        self.length = None  # that the first answer has stated
        self._fetch()

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 when all that was announced has come."""
        n = min(n, self.request.size - self.done)
        if not n:
            return 0
        while True:
            try:
                got = self.read(buffer, n)
                if not got:
                    raise Transient(_REASON, "the body ended early")
                break
            except Transient as error:
                self._fetch(error)
        self.fruitless = 0
        self.done += got
        self._on_bytes(self.done)
        return got

    def end(self):
        """Raise Refused unless all that was announced came, and no more."""
        if self.done < self.request.size:
            raise Refused(_REASON, "the archive is shorter than announced")
        if self.read(bytearray(1), 1):
            raise Refused(_REASON, "the body is longer than announced")

    def close(self):
        """End the connection."""
        response, self.response = self.response, None
        self.pull = None
        if response:
            try:
                response.close()
            except Exception:
                pass  # an integrator's; everything that matters has been read

    def read(self, buffer, n):
        """Read at most n bytes of what the server sends, whatever they are; 0 at its end."""
        try:
            return self.pull(buffer, n)
        except (Refused, Transient, MemoryError):
            raise
        except Exception as error:  # of a foreign transport it may be any
            raise Transient(_REASON, "the body stopped, " + name_of(error))

    def _fetch(self, error=None):
        from .fetch import fetch

        try:
            fetch(self, error)
        except BaseException:
            self.close()
            raise
        finally:
            del fetch
            drop("fetch")


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
