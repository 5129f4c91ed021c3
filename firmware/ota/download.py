"""The platform's package download, over the built-in HTTPS or an integrator's transport.

Whatever the transport, exactly the announced number of bytes is given out. A connection that is
lost is taken up again where it ended, below everything that unpacks: what is above never notices.
"""

import gc
import time

from micropython import const

from . import drop
from .errors import Refused, Transient, name_of

_REASON = const("can not download")
# How often a new connection may bring nothing before this wake gives up.
_MOST_FRUITLESS = const(3)
_PAUSE_MS = const(500)


class Download:
    """The body of the requested package.

    config: a complete configuration; limits: Limits; open_stream: called with the URL in place of
    the built-in verified HTTPS, or None; on_bytes: called with the number of bytes so far. Raises
    Refused or Transient; neither quotes the URL: it holds the device key.
    """

    def __init__(self, config, request, limits, open_stream, on_bytes):
        self._config = config
        self._request = request
        self._limits = limits
        self._open_stream = open_stream
        self._on_bytes = on_bytes
        self._done = 0
        self._fruitless = 0
        self._etag = b""
        self._response = self._ask()
        self._judge()

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 when all that was announced has come."""
        n = min(n, self._request.size - self._done)
        if not n:
            return 0
        while True:
            try:
                got = self._read(buffer, n)
                if not got:
                    raise Transient(_REASON, "the body ended early")
                break
            except Transient as error:
                self._resume(error)
        self._fruitless = 0
        self._done += got
        self._on_bytes(self._done)
        return got

    def end(self):
        """Raise Refused unless all that was announced came, and no more."""
        if self._done < self._request.size:
            raise Refused(_REASON, "the archive is shorter than announced")
        if self._read(bytearray(1), 1):
            raise Refused(_REASON, "the body is longer than announced")

    def close(self):
        """End the connection."""
        response, self._response = self._response, None
        if response:
            try:
                response.close()
            except Exception:
                pass  # an integrator's; everything that matters has been read

    def _ask(self, start=0):
        config = self._config
        url = "https://%s/mf-rproxy/packages/download?fuid=%s&did=%s&dk=%s&cid=%s" % (
            config["server"],
            self._request.file_id,
            _quote(config["device_id"]),
            _quote(config["device_key"]),
            _quote(config["control_channel"]),
        )
        try:
            if self._open_stream:
                return self._open_stream(url)
            from .https import get

            limits = self._limits
            least = config["min_rate"] * limits.wait_ms // 1000
            try:
                return get(url, config["ca"], limits, least, start, self._etag)
            finally:
                del get
                drop("https", "trust")  # the body needs neither
        except (Refused, Transient, MemoryError):
            raise
        except Exception as error:  # a foreign transport's; its text may quote the URL
            raise Transient(_REASON, name_of(error))

    def _judge(self):
        """Raise unless the answer is 200 and, as far as it says, of the announced size."""
        try:
            self._check_status(200)
            length = getattr(self._response, "length", None)
            size = self._request.size
            if length is not None and length != size:
                raise Refused(_REASON, "%d bytes announced, the server has %d" % (size, length))
            self._etag = getattr(self._response, "etag", b"")
        except BaseException:
            self.close()
            raise

    def _check_status(self, expected):
        status = self._response.status_code
        if status != expected:
            known = {
                401: "id or key refused",
                403: "not this node's channel",
                404: "no such package",
            }
            detail = "%d %s" % (status, known.get(status, "from the server"))
            if status >= 500 or status in (408, 416, 429):
                raise Transient(_REASON, detail)
            raise Refused(_REASON, detail)

    def _read(self, buffer, n):
        try:
            return self._response.raw.readinto(buffer, n)
        except (Refused, Transient, MemoryError):
            raise
        except Exception as error:  # of a foreign transport it may be any
            raise Transient(_REASON, "the body stopped, " + name_of(error))

    def _resume(self, error):
        """Go on in a new connection, or raise error, for which the old one has ended."""
        self.close()
        # Without a strong entity tag nobody can tell whether the rest belongs to what has come.
        while self._etag and self._fruitless < _MOST_FRUITLESS and self._limits.left_ms():
            self._limits.step()
            time.sleep_ms(min(_PAUSE_MS * self._fruitless, self._limits.next_ms()))
            self._fruitless += 1
            gc.collect()
            try:
                self._response = self._ask(self._done)
                self._join()
                return
            except Transient as again:
                self.close()
                error = again
        raise error

    def _join(self):
        """See to it that the next byte read is the one after the last that came."""
        response = self._response
        status, size = response.status_code, self._request.size
        if status != 200:
            # A server in trouble sends no entity tag: that says nothing about the package.
            self._check_status(206)
        if response.etag != self._etag:
            self._etag = b""
            raise Transient(_REASON, "the server has changed the package meanwhile")
        if status == 200 and response.length in (None, size):
            # The same bytes from the beginning: it does not know Range.
            self._skip()
            return
        self._check_status(206)
        if response.content_range != b"bytes %d-%d/%d" % (self._done, size - 1, size):
            self._etag = b""
            raise Transient(_REASON, "Content-Range makes no sense")

    def _skip(self):
        scratch = bytearray(512)
        left = self._done
        while left:
            got = self._read(scratch, min(left, 512))
            if not got:
                raise Transient(_REASON, "the body ended early")
            left -= got


def _quote(text):
    """Percent-encode for a URL's query (RFC 3986)."""
    quoted = ""
    for byte in text.encode():
        c = chr(byte)
        unreserved = "a" <= c <= "z" or "A" <= c <= "Z" or "0" <= c <= "9" or c in "-._~"
        quoted += c if unreserved else "%%%02X" % byte
    return quoted
