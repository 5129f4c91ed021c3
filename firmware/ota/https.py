"""Verified, bounded HTTPS GET, up to the end of the answer's head; download.py has the rest.

The URL holds the device key: it appears in the request line and nowhere else.
"""

from micropython import const

from .errors import Refused, Transient, name_of
from .wire import Wire

_LONGEST_LINE = const(1024)
# Presigned addresses have 1.7 KB and more. "Location: " stands in front, and CR behind.
_LONGEST_LOCATION = const(4107)
_MOST_BYTES = const(65536)  # read past of a line that is longer
_LONGEST_HOST = const(300)  # with its port
_MOST_HEADERS = const(64)
_MOST_REDIRECTS = const(3)
_REDIRECTS = const((301, 302, 303, 307, 308))
_MOST_INTERIM = const(4)
_REASON = const("can not download")


def get(answer, url, ca, limits, least=0, start=0, stop=0, etag=b"", wire=None):
    """GET url and return its answer, after up to three redirects, each of them HTTPS as well.

    answer: makes what is returned from a Wire, as download.Response does;
    url: str, `https://host[:port]/…`; ca: path of the trust anchor; limits: Limits; least: bytes
    that have to come in each limits.wait_ms; start, stop: where one is not 0, ask for the bytes
    from start on, up to stop if that is not 0, if the entity tag etag (bytes) still is this one
    (RFC 9110, Range and If-Range); wire: one to the URL's host, as trust.secured() makes it, or
    the one that an answer has come on whole, or None. Chain and host name are verified
    before a byte of the URL leaves the node. Raises Transient when the server can not be reached,
    trusted or understood; Refused when it sends the node to plain HTTP or round in circles.
    """
    # All lines are read into it, and an address is sent from it: a second copy of one might not
    # fit. First of all, while there are large pieces of memory.
    try:
        buffer = bytearray(_LONGEST_LOCATION)
    except MemoryError:
        buffer = bytearray(_LONGEST_LINE)  # while staging: most servers do not redirect
    context = None
    end = len(url)
    buffer[:end] = url.encode()
    host, port, path, query = _target(buffer, 0, end, "", 0, b"/")
    for hop in range(_MOST_REDIRECTS + 1):
        if not wire:
            from .dial import dial
            from .trust import trust

            context = context or trust(ca, _REASON)
            wire = Wire(limits, least)
            dial(wire, _REASON, host, port, context)
        try:
            head = _head(host, port, start, stop, etag)
            if len(query) < _LONGEST_LINE:
                head = bytes(query) + head  # one segment
                query = b""
            for part in (b"GET " + path, query, head) if query else (b"GET " + path + head,):
                wire.send(memoryview(part))
            response = answer(wire)
            at, end = _read_head(response, buffer)
        except OSError as error:
            wire.close()
            raise Transient(_REASON, name_of(error))
        except BaseException:
            wire.close()
            raise
        if response.status_code not in _REDIRECTS:
            # The next request begins at the first host again.
            response.stays = response.stays and not hop
            return response
        response.close()
        wire = None
        host, port, path, query = _target(buffer, at, end, host, port, path)
    raise Refused(_REASON, "redirected more than %d times" % _MOST_REDIRECTS)


def _head(host, port, start, stop, etag):
    """What stands behind the path of a request."""
    place = "[%s]" % host if ":" in host else host
    if port != 443:
        place += ":%d" % port
    head = " HTTP/1.1\r\nHost: %s\r\nUser-Agent: insigh-ota\r\nAccept-Encoding: identity\r\n"
    head = (head % place).encode()
    if not stop:
        head += b"Connection: close\r\n"
    if start or stop:
        head += b"Range: bytes=%d-%s\r\n" % (start, b"%d" % (stop - 1) if stop else b"")
        if etag:
            head += b"If-Range: %s\r\n" % etag
    return head + b"\r\n"


def _read_head(response, buffer):
    """Fill in response. Returns where in buffer a Location is, (0, 0) without one."""
    for _ in range(_MOST_INTERIM):
        _read_status(response, buffer)
        place = _read_headers(response, buffer)
        if response.status_code // 100 != 1:
            break
    else:
        raise Transient(_REASON, "only interim answers")
    if not response.raw:
        from .chunks import Chunks

        response.length = None
        response.raw = Chunks(response)
        response.stays = False  # whoever has all that was asked for has not read its end
    response.left = response.length
    return place


def _read_line(response, buffer):
    """Read a line into buffer. Returns its length without its end; len(buffer) + 1: too long."""
    most = len(buffer)
    byte = bytearray(1)
    n = 0
    for _ in range(_MOST_BYTES):
        if not response.wire.receive(byte):
            raise Transient(_REASON, "the answer ended early")
        if byte[0] == 10:
            if 0 < n <= most and buffer[n - 1] == 13:
                n -= 1
            return n
        if n < most:
            buffer[n] = byte[0]
        n = min(n, most) + 1
    raise Transient(_REASON, "a header line is too long")


def _read_status(response, buffer):
    n = min(_read_line(response, buffer), _LONGEST_LINE)
    # Not split(None, 2): an empty reason phrase is allowed.
    words = bytes(memoryview(buffer)[:n]).split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Transient(_REASON, "the server does not speak HTTP")
    response.status_code = int(words[1])
    response.stays = words[0] != b"HTTP/1.0"


def _read_headers(response, buffer):
    for _ in range(_MOST_HEADERS):
        n = _read_line(response, buffer)
        if not n:
            return 0, 0
        name, _, value = bytes(memoryview(buffer)[: min(n, _LONGEST_LINE)]).partition(b":")
        name = name.lower()
        most = len(buffer) if name == b"location" else _LONGEST_LINE
        if n > most and name in (b"location", b"etag", b"content-range"):
            raise Transient(_REASON, "a header line is too long")
        value = value.strip()
        if name == b"location":
            if response.status_code in _REDIRECTS:
                return 9, n  # it stays in buffer, and what follows does not matter
        elif name == b"content-length":
            if not value.isdigit() or len(value) > 9 or response.length not in (None, int(value)):
                raise Transient(_REASON, "Content-Length makes no sense")
            response.length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise Transient(_REASON, "unknown Transfer-Encoding")
            response.raw = None
        elif name == b"content-encoding":
            # Some servers label a stored .tar.gz so; fetch() looks whether it is that.
            response.packed = value.lower() in (b"gzip", b"x-gzip")
            if not response.packed and value.lower() != b"identity":
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
        elif name == b"connection":
            response.stays = value.lower() != b"close"
    raise Transient(_REASON, "more than %d headers" % _MOST_HEADERS)


def _target(buffer, at, end, host, port, base):
    """(host, port, path, query) of the reference in buffer[at:end], as seen from there (RFC 3986).

    base: the path of there, bytes; query: with its mark, a memoryview of buffer.
    """
    while at < end and buffer[at] in b" \t":
        at += 1
    while at < end and buffer[end - 1] in b" \t":
        end -= 1
    # It becomes a line: a space or a CR could end it.
    for i in range(at, end):
        if not 32 < buffer[i] < 127:
            end = 0
    if at >= end:
        raise Transient(_REASON, "redirected to nowhere")
    i = _find(buffer, b":/?#", at, end)
    if i < end and buffer[i] == 58:
        if i - at != 5 or bytes(buffer[at:i]).lower() != b"https":
            raise Refused(_REASON, "redirected to something other than HTTPS")
        at = i + 1
        if _find(buffer, b"?#", at, end) < at + 2 or buffer[at : at + 2] != b"//":
            raise Refused(_REASON, "redirected to an unusable address")
    if end - at > 1 and buffer[at : at + 2] == b"//":
        at += 2
        i = _find(buffer, b"/?#", at, end)
        if i - at > _LONGEST_HOST:
            raise Refused(_REASON, "redirected to an unusable address")
        from .trust import address

        host, port = address(bytes(buffer[at:i]).decode())
        base = b"/"
        at = i
    end = _find(buffer, b"#", at, end)
    i = _find(buffer, b"?", at, end)
    path = bytes(memoryview(buffer)[at:i])
    if not path:
        path = base
    elif not path.startswith(b"/"):
        path = base[: base.rfind(b"/") + 1] + path
    if b"/." in path:
        path = _without_dots(path)
    return host, port, path, memoryview(buffer)[i:end]


def _find(buffer, bytes_, at, end):
    while at < end and buffer[at] not in bytes_:
        at += 1
    return at


def _without_dots(path):
    kept = []
    parts = path.split(b"/")
    for part in parts:
        if part == b"..":
            if len(kept) > 1:
                kept.pop()
        elif part != b".":
            kept.append(part)
    if parts[-1] in (b".", b".."):
        kept.append(b"")
    return b"/".join(kept)
