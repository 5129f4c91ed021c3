"""The bytes of a package, over the built-in HTTPS or an integrator's transport.

All that has to be in RAM while they come.

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
    the built-in verified HTTPS, or None; on_bytes: called with the number of bytes so far; budget:
    how many may be `fetched` in this wake, 0: no limit; at: where an earlier wake has ended, in a
    package of the entity tag etag (bytes; b"": any). `done` is 0 after that where the server has
    another one by now. stop: where the first answer is to end; less than 0: ask for nothing yet
    (package/wanted.py). Where a server does not know Range, `stop` is the end
    then. Raises Refused or Transient; neither quotes the URL, which has the key.
    """

    def __init__(
        self, config, request, limits, open_stream, on_bytes, budget=0, at=0, etag=None, stop=0
    ):
        self.config = config
        self.answer = Response
        self.request = request
        self.limits = limits
        self.open_stream = open_stream
        self.on_bytes = on_bytes
        self.budget = budget
        self.done = at
        self.resumed = at > 0  # and nothing has been heard of the server
        self.fetched = 0
        self.fruitless = 0  # new connections in a row that have brought nothing
        self.etag = etag  # of the first answer
        self.response = None
        self.pull = None  # what gives its body
        self.length = None  # that the first answer has stated
        self.stop = stop or request.size
        if stop >= 0:
            self.fetch()

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 when all up to `stop` has come."""
        n = min(n, self.stop - self.done)
        if n <= 0:
            return 0
        if self.budget:
            n = self.left(n)
        while True:
            try:
                got = self.pull(buffer, n)
                if got:
                    break
                error = Transient(_REASON, "the body ended early")
            except Exception as caught:
                error = _verdict(caught)
            self.fetch(error)
        self.fruitless = 0
        self.done += got
        self.fetched += got
        self.on_bytes(self.done)
        return got

    def left(self, n):
        """How many of n bytes this wake may still fetch. Raises Transient when there are none."""
        n = min(n, self.budget - self.fetched)
        if n <= 0:
            raise Transient(_REASON, "the budget of this wake is spent")
        return n

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
            got = self.pull(buffer, n)
        except Exception as error:
            raise _verdict(error)
        self.fetched += got
        return got

    def fetch(self, error=None):
        """Ask for the bytes from `done` up to `stop`; error: why the last answer ended early."""
        wire = None
        response = self.response
        try:
            if not error and response and response.stays and response.left == 0:
                wire = response.wire
            elif not (error or self.open_stream):
                self.close()  # TLS twice would not fit
                from .trust import secured

                wire = secured(self.config, self.limits)
                del secured
                drop("dial", "trust")
            from .fetch import fetch

            fetch(self, error, wire)
            del fetch
        except BaseException:
            if wire:
                wire.close()
            self.close()
            raise
        finally:
            drop("fetch")


def _verdict(error):
    """The Transient that an exception of the body comes to; others are raised as they are."""
    if isinstance(error, (Refused, MemoryError)):
        raise error
    if isinstance(error, Transient):
        return error
    # Of a foreign transport it may be any.
    return Transient(_REASON, "the body stopped, " + name_of(error))


class Response:
    """An answer, as https.get() fills it in.

    status_code: int; length: bytes of the body, None when the server does not say; etag: bytes, a
    strong entity tag, b"" without one; content_range: bytes or None; raw: an object with
    `readinto(buffer, n)`, 0 at the end of the body. wire: the Wire it comes on, which takes
    another request if `stays` and its `left` is 0.
    """

    def __init__(self, wire):
        self.status_code = 0
        self.length = None
        self.etag = b""
        self.content_range = None
        self.stays = False  # the connection, behind the body
        self.raw = self
        self.wire = wire
        self.left = None  # bytes of the body, or of a chunk; None: until the server closes

    def readinto(self, buffer, n):
        """Read at most n bytes of the body into buffer; 0 at its end.

        Raises Transient when the connection ends before the body does, OSError when it fails.
        """
        if self.left is not None and n > self.left:
            n = self.left
        if not n:
            return 0
        got = self.wire.receive(buffer if n == len(buffer) else memoryview(buffer)[:n])
        if self.left is not None:
            if not got:
                raise Transient(_REASON, "the body ended early")
            self.left -= got
        return got

    def close(self):
        """End the connection."""
        self.wire.close()
