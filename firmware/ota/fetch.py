"""Asking the platform for a package, or for the rest of one, and what its answers mean.

Only loaded for that: while the bytes come, download.py is all that they need.
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


def fetch(download, error, wire=None):
    """Give the Download a response, at the byte behind the last that came. Raises as it does.

    error: the Transient for which the one before has ended, or None at the first time. It is
    raised where there is nothing to go on by. wire: for https.get().
    """
    if not error:
        first = not download.fetched
        try:
            return _fetch(download, wire)
        except Transient as caught:
            if first:
                raise
            error = caught  # a server may close a connection at any time
    limits = download.limits
    # Without a strong entity tag nobody can tell whether the rest belongs to what has come.
    while download.etag != b"" and download.fruitless < _MOST_FRUITLESS and limits.left_ms():
        download.close()
        limits.step()
        time.sleep_ms(min(_PAUSE_MS * download.fruitless, limits.next_ms()))
        download.fruitless += 1
        gc.collect()
        try:
            return _fetch(download)
        except Transient as again:
            error = again
    raise error


def _fetch(download, wire=None):
    download.response = response = _ask(download, wire)
    download.pull = _pull(download)
    size = download.request.size
    first = download.etag is None
    status = response.status_code
    if first and status == 206 and download.stop < size:
        # Asked for its beginning only (begin.py): it knows Range.
        download.length = size
        download.etag = response.etag if _is_rest(download, response) else b""
        return
    if download.resumed:
        download.resumed = False
        if status in (200, 206, 416) and not _goes_on(download, response):
            download.close()
            download.done = 0
            return
    if first and status == 200:
        download.stop = size
    if first or status != 200:
        # A server in trouble sends no entity tag: that says nothing about the package.
        _check_status(status, 200 if first else 206)
    length = getattr(response, "length", None)
    rest = download.stop - download.done
    if getattr(response, "packed", False) and length not in (size, rest):
        # Packed on its way: nobody knows how, and the bytes that are stored are counted.
        raise Transient(_REASON, "Content-Encoding, and not the announced length")
    if first:
        if length is not None and length != size:
            raise Refused(_REASON, "%d bytes announced, the server has %d" % (size, length))
        download.length = length
        download.etag = getattr(response, "etag", b"")
        return
    if response.etag != download.etag and download.etag:
        if download.done or status != 200:
            download.etag = b""
            raise Transient(_REASON, "the server has changed the package meanwhile")
        download.etag = response.etag  # of all of it, and nothing is kept of what came
    if status == 200 and length in (None, size):
        # The same bytes from the beginning: it does not know Range, or nothing has come yet.
        if download.done:
            print("ota: the server does not know Range, all that has come is sent once more")
            _skip(download)
        return
    _check_status(status, 206)
    if not _is_rest(download, response):
        download.etag = b""
        raise Transient(_REASON, "Content-Range makes no sense")


def _ask(download, wire):
    config = download.config
    url = "https://%s/mf-rproxy/packages/download?fuid=%s&did=%s&dk=%s&cid=%s" % (
        config["server"],
        download.request.file_id,
        _quote(config["device_id"]),
        _quote(config["device_key"]),
        _quote(config["control_channel"]),
    )
    try:
        if download.open_stream:
            return download.open_stream(url)
        from .https import get

        limits = download.limits
        least = config["min_rate"] * limits.wait_ms // 1000
        try:
            ca, start, stop, etag = config["ca"], download.done, download.stop, download.etag
            stop = stop if stop < download.request.size else 0
            return get(download.answer, url, ca, limits, least, start, stop, etag, wire)
        finally:
            del get
            drop("https", "dial", "trust")  # the body needs neither
    except (Refused, Transient, MemoryError):
        raise
    except Exception as error:  # a foreign transport's; its text may quote the URL
        raise Transient(_REASON, name_of(error))


def _goes_on(download, response):
    """Whether an answer is of the package that an earlier wake has begun."""
    if download.etag and response.etag != download.etag:
        return False
    if response.status_code == 200:
        return download.etag and response.length in (None, download.request.size)
    return response.status_code == 206 and _is_rest(download, response)


def _is_rest(download, response):
    size = download.request.size
    return response.content_range == b"bytes %d-%d/%d" % (download.done, download.stop - 1, size)


def _pull(download):
    """What gives the body, called with a buffer and how many bytes may go into it."""
    raw = download.response.raw

    def readinto(buffer, n):  # MicroPython 1.29's requests
        return raw.readinto(memoryview(buffer)[:n])

    def read(buffer, n):  # versions of it before
        data = raw.read(n)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def pull(buffer, n):
        try:
            got = raw.readinto(buffer, n)
            download.pull = raw.readinto
        except TypeError:
            # It takes one argument, or else raises this once more.
            download.pull = readinto
            got = readinto(buffer, n)
        return got

    if not download.open_stream:
        return raw.readinto
    return pull if hasattr(raw, "readinto") else read


def _check_status(status, expected):
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


def _skip(download):
    """Pass over what has come already."""
    scratch = bytearray(512)
    left = download.done
    while left:
        n = min(left, 512)
        got = download.read(scratch, download.left(n) if download.budget else n)
        if not got:
            raise Transient(_REASON, "the body ended early")
        left -= got
        download.on_bytes(download.done - left)


def _quote(text):
    """Percent-encode for a URL's query (RFC 3986)."""
    quoted = b""
    for byte in text.encode():  # no characters: a node keeps each that it has looked at alone
        unreserved = 48 <= byte <= 57 or 97 <= byte | 32 <= 122 or byte in b"-._~"
        quoted += bytes((byte,)) if unreserved else b"%%%02X" % byte
    return quoted.decode()
