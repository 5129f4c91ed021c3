"""The platform's package download, over the built-in HTTPS or an integrator's transport.

Whatever the transport, exactly the announced number of bytes is accepted.
"""

from .errors import Refused, Transient, name_of

_REASON = "can not download"


def open_package(config, request, open_stream=None):
    """Ask for the requested package and return the response, whose body is still to be read.

    config: a complete configuration; open_stream: called with the URL in place of the built-in
    verified HTTPS. Raises Refused or Transient; neither quotes the URL: it holds the device key.
    """
    url = "https://%s/mf-rproxy/packages/download?fuid=%s&did=%s&dk=%s&cid=%s" % (
        config["server"],
        request.file_id,
        _quote(config["device_id"]),
        _quote(config["device_key"]),
        _quote(config["control_channel"]),
    )
    try:
        if open_stream:
            response = open_stream(url)
        else:
            from .https import get

            response = get(url, config["ca"], config["timeout_s"] * 1000)
    except (Refused, Transient, MemoryError):
        raise
    except Exception as error:  # a foreign transport's; its text may quote the URL
        raise Transient(_REASON, name_of(error))
    try:
        _judge(response, request.size)
    except BaseException:
        response.close()
        raise
    return response


class Body:
    """Exactly the announced number of bytes, whatever the transport does.

    raw: an object with `readinto(buffer, n)`; size: bytes; on_bytes: called with the count so far.
    """

    def __init__(self, raw, size, on_bytes):
        self._raw = raw
        self._size = size
        self._left = size
        self._on_bytes = on_bytes

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 when all that was announced has come."""
        if n > self._left:
            n = self._left
        if not n:
            return 0
        got = self._read(buffer, n)
        if not got:
            raise Transient(_REASON, "the body ended early")
        self._left -= got
        self._on_bytes(self._size - self._left)
        return got

    def end(self):
        """Raise Refused unless all that was announced came, and no more."""
        if self._left:
            raise Refused(_REASON, "the archive is shorter than announced")
        if self._read(bytearray(1), 1):
            raise Refused(_REASON, "the body is longer than announced")

    def _read(self, buffer, n):
        try:
            return self._raw.readinto(buffer, n)
        except (Refused, Transient, MemoryError):
            raise
        except Exception as error:  # of a foreign transport it may be any
            raise Transient(_REASON, "the body stopped, " + name_of(error))


def _judge(response, size):
    """Raise unless the response is 200 and, as far as it says, of the announced size."""
    status = response.status_code
    if status != 200:
        detail = {401: "id or key refused", 403: "not this node's channel", 404: "no such package"}
        detail = "%d %s" % (status, detail.get(status, "from the server"))
        if status >= 500 or status in (408, 429):
            raise Transient(_REASON, detail)
        raise Refused(_REASON, detail)
    length = getattr(response, "length", None)
    if length is not None and length != size:
        raise Refused(_REASON, "%d bytes announced, the server has %d" % (size, length))


def _quote(text):
    """Percent-encode for a URL's query (RFC 3986)."""
    quoted = ""
    for byte in text.encode():
        c = chr(byte)
        unreserved = "a" <= c <= "z" or "A" <= c <= "Z" or "0" <= c <= "9" or c in "-._~"
        quoted += c if unreserved else "%%%02X" % byte
    return quoted
