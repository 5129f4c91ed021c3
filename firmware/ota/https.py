"""Verified, bounded HTTPS GET with a response shaped as urequests makes it.

The URL holds the device key: it appears in the request line and nowhere else.
"""

from micropython import const

from .errors import Refused, Transient, name_of
from .link import Link, trust

_LONGEST_LINE = const(1024)
_MOST_HEADERS = const(64)
_MOST_REDIRECTS = const(3)
_REDIRECTS = (301, 302, 303, 307, 308)
_REASON = "can not download"


def get(url, ca, timeout_ms):
    """GET url and return its Response, after up to three redirects, each of them HTTPS as well.

    url: str, `https://host[:port]/…`; ca: path of the trust anchor; timeout_ms: limit of each
    wait. Chain and host name are verified before a byte of the URL leaves the node. Raises
    Transient when the server can not be reached, trusted or understood; Refused when it sends the
    node to plain HTTP or round in circles.
    """
    context = trust(ca, _REASON)
    for _ in range(_MOST_REDIRECTS + 1):
        host, port, path = _split(url)
        link = Link(timeout_ms, _REASON)
        link.open(host, port, context)
        try:
            link.write(b"GET ")
            link.write(path.encode())
            link.write(b" HTTP/1.1\r\nHost: ")
            link.write((host if port == 443 else "%s:%d" % (host, port)).encode())
            link.write(b"\r\nUser-Agent: insigh-ota\r\nConnection: close\r\n\r\n")
            response = Response(link)
        except OSError as error:
            link.abort()
            raise Transient(_REASON, name_of(error))
        except BaseException:
            link.abort()
            raise
        if response.status_code not in _REDIRECTS:
            return response
        response.close()
        url = _next_url(response.location, host, port)
    raise Refused(_REASON, "redirected more than %d times" % _MOST_REDIRECTS)


class Response:
    """An answer whose headers have been read.

    status_code: int; length: bytes of the body, None when the server does not say; location: str
    or None; raw: an object with `readinto(buffer, n)`, 0 at the end of the body.
    """

    def __init__(self, link):
        self.status_code = 0
        self.length = None
        self.location = None
        self.raw = self
        self._link = link
        self._chunked = False
        self._left = None  # bytes of the body, or of this chunk; None: until the server closes
        self._read_head()

    def readinto(self, buffer, n):
        """Read at most n bytes of the body into buffer; 0 at its end.

        Raises Transient when the connection ends before the body does, OSError when it fails.
        """
        if self._chunked and not self._left:
            self._next_chunk()
        if self._left is not None and n > self._left:
            n = self._left
        if not n:
            return 0
        got = self._link.readinto(buffer, n)
        if self._left is not None:
            if not got:
                raise Transient(_REASON, "the body ended early")
            self._left -= got
            if self._chunked and not self._left:
                self._line()  # the line end behind a chunk's data
        return got or 0

    def close(self):
        """End the connection."""
        self._link.abort()

    def _line(self):
        line = self._link.readline(_LONGEST_LINE)
        if not line or line[-1] != 10:
            raise Transient(_REASON, "a header line is too long or cut off")
        return line[:-1].rstrip(b"\r")

    def _read_head(self):
        # Not split(None, 2): an empty reason phrase is allowed.
        words = self._line().split(b" ")
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise Transient(_REASON, "the server does not speak HTTP")
        self.status_code = int(words[1])
        for _ in range(_MOST_HEADERS):
            line = self._line()
            if not line:
                break
            name, _, value = line.partition(b":")
            name = name.lower()
            value = value.strip()
            if name == b"content-length":
                if not value.isdigit() or len(value) > 9 or self.length not in (None, int(value)):
                    raise Transient(_REASON, "Content-Length makes no sense")
                self.length = int(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise Transient(_REASON, "unknown Transfer-Encoding")
                self._chunked = True
            elif name == b"content-encoding":
                if value.lower() != b"identity":
                    raise Transient(_REASON, "unknown Content-Encoding")
            elif name == b"location":
                self.location = value.decode()
        else:
            raise Transient(_REASON, "more than %d headers" % _MOST_HEADERS)
        if self._chunked:
            self.length = None
            self._left = 0
        else:
            self._left = self.length

    def _next_chunk(self):
        text = self._line().split(b";")[0].strip()
        try:
            self._left = int(text, 16)
        except ValueError:
            raise Transient(_REASON, "a chunk's size makes no sense")
        if self._left < 0 or self._left > 0x3FFFFFFF:
            raise Transient(_REASON, "a chunk's size makes no sense")
        if not self._left:
            while self._line():
                pass  # trailers
            self._chunked = False


def _split(url):
    """(host, port, path) of an https URL."""
    if not url.startswith("https://"):
        raise Refused(_REASON, "redirected to something other than HTTPS")
    host, _, path = url[8:].partition("/")
    host, _, port = host.partition(":")
    if not host or "@" in host or (port and not port.isdigit()):
        raise Refused(_REASON, "redirected to an unusable address")
    return host, int(port or 443), "/" + path


def _next_url(location, host, port):
    if not location or any(ord(c) < 33 for c in location):
        raise Transient(_REASON, "redirected to nowhere")
    if location.startswith("/") and not location.startswith("//"):
        return "https://%s:%d%s" % (host, port, location)
    return location
