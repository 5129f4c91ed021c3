"""The bytes of a package, over the built-in HTTPS or an integrator's transport.

Whatever the transport, exactly the announced number of bytes is given out. A connection that is
lost is taken up again where it ended, below everything that unpacks: what is above never notices.
"""

from micropython import const

from . import drop
from .errors import Refused, Transient, name_of

_REASON = const("can not download")


class Download:
    """The body of the requested package.

    config: a complete configuration; limits: Limits; open_stream: called with the URL in place of
    the built-in verified HTTPS, or None; on_bytes: called with the number of bytes so far. Raises
    Refused or Transient; neither quotes the URL: it holds the device key.
    """

    def __init__(self, config, request, limits, open_stream, on_bytes):
        self.config = config
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
