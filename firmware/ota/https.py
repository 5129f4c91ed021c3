"""Verified, bounded HTTPS GET, up to the end of the answer's head; what follows is body.py's.

The URL holds the device key: it appears in the request line and nowhere else.
"""

from micropython import const

from .body import Response
from .errors import Refused, Transient, name_of
from .wire import Wire

_LONGEST_LINE = const(1024)
_MOST_HEADERS = const(64)
_MOST_REDIRECTS = const(3)
_REDIRECTS = const((301, 302, 303, 307, 308))
_MOST_INTERIM = const(4)
_HOST_CHARACTERS = const("abcdefghijklmnopqrstuvwxyz0123456789.-")
_REASON = const("can not download")


def get(url, ca, limits, least=0, start=0, etag=b""):
    """GET url and return its Response, after up to three redirects, each of them HTTPS as well.

    url: str, `https://host[:port]/…`; ca: path of the trust anchor; limits: Limits; least: bytes
    that have to come in each limits.wait_ms; start, etag: where not 0, ask for the bytes from
    start on, if the entity tag (bytes) still is this one (RFC 9110, Range and If-Range). Chain and
    host name are verified before a byte of the URL leaves the node. Raises Transient when the
    server can not be reached, trusted or understood; Refused when it sends the node to plain HTTP
    or round in circles.
    """
    from .trust import trust

    context = trust(ca, _REASON)
    for _ in range(_MOST_REDIRECTS + 1):
        host, port, path = _split(url)
        wire = Wire(limits, _REASON, least)
        wire.open(host, port, context)
        try:
            wire.send(memoryview(_head(host, port, path, start, etag)))
            response = Response(wire)
            _read_head(response)
        except OSError as error:
            wire.close()
            raise Transient(_REASON, name_of(error))
        except BaseException:
            wire.close()
            raise
        if response.status_code not in _REDIRECTS:
            return response
        response.close()
        url = _next_url(response.location, host, port)
    raise Refused(_REASON, "redirected more than %d times" % _MOST_REDIRECTS)


def _head(host, port, path, start, etag):
    """A whole request, as one segment."""
    address = host if port == 443 else "%s:%d" % (host, port)
    head = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: insigh-ota\r\nConnection: close\r\n"
    head = (head % (path, address)).encode()
    if start:
        head += b"Range: bytes=%d-\r\nIf-Range: %s\r\n" % (start, etag)
    return head + b"\r\n"


def _read_head(response):
    for _ in range(_MOST_INTERIM):
        _read_status(response)
        _read_headers(response)
        if response.status_code // 100 != 1:
            break
    else:
        raise Transient(_REASON, "only interim answers")
    if response.chunked:
        response.length = None
        response.left = 0
    else:
        response.left = response.length


def _read_status(response):
    # Not split(None, 2): an empty reason phrase is allowed.
    words = response.line().split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Transient(_REASON, "the server does not speak HTTP")
    response.status_code = int(words[1])


def _read_headers(response):
    for _ in range(_MOST_HEADERS):
        line = response.line()
        if not line:
            return
        name, _, value = line.partition(b":")
        name = name.lower()
        if len(line) > _LONGEST_LINE and name in (b"location", b"etag", b"content-range"):
            raise Transient(_REASON, "a header line is too long")
        value = value.strip()
        if name == b"content-length":
            if not value.isdigit() or len(value) > 9 or response.length not in (None, int(value)):
                raise Transient(_REASON, "Content-Length makes no sense")
            response.length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise Transient(_REASON, "unknown Transfer-Encoding")
            response.chunked = True
        elif name == b"content-encoding":
            if value.lower() != b"identity":
                raise Transient(_REASON, "unknown Content-Encoding")
        elif name == b"etag":
            # A weak one (W/"…") says "as good as", which is not "the same bytes". It is sent back:
            # only what RFC 9110 (8.8.3) has in a tag, a CR could pass for the end of our line.
            inner = value[1:-1]
            strong = value == b'"' + inner + b'"' and not any(
                c < 33 or c in (34, 127) for c in inner
            )
            response.etag = value if strong else b""
        elif name == b"content-range":
            response.content_range = value
        elif name == b"location":
            response.location = value
    raise Transient(_REASON, "more than %d headers" % _MOST_HEADERS)


def _split(url):
    """(host, port, path) of an https URL. The host may be quoted in an error, so it is checked."""
    if not url.startswith("https://"):
        raise Refused(_REASON, "redirected to something other than HTTPS")
    end = 8
    while end < len(url) and url[end] not in "/?#":
        end += 1
    host, _, port = url[8:end].partition(":")
    if (
        not host
        or not all(c in _HOST_CHARACTERS for c in host.lower())
        or (port and not (port.isdigit() and 0 < int(port[:6]) < 65536))
    ):
        raise Refused(_REASON, "redirected to an unusable address")
    path = url[end:].split("#")[0]
    return host, int(port or 443), path if path.startswith("/") else "/" + path


def _next_url(location, host, port):
    if not location or any(not 32 < c < 127 for c in location):
        raise Transient(_REASON, "redirected to nowhere")
    location = location.decode()
    if location.startswith("/") and not location.startswith("//"):
        return "https://%s:%d%s" % (host, port, location)
    return location
