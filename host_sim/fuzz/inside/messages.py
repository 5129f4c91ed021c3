# ruff: noqa: B904, UP031 - MicroPython, as on the node
"""What comes from broker and server: request payloads, HTTP answers; and names of members."""

import ota.https as https
from chance import mangle, overwrite, resize
from ota.control import BadRequest, Request, parse
from rules import Hang, Violation, vetted

_URL = "https://console.example:8443/mf-rproxy/packages/download?fuid=fa8884d2&dk=secret"
_SAFE = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._"
_HOST = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-."
_buffer = bytearray(300)


def message_case(chance, corpus):
    """A message of the corpus with tokens of its language and blind bytes put into it."""
    data = bytearray(chance.pick(corpus["item"]))
    for _ in range(1 + chance.below(chance.pick((1, 2, 4)))):
        kind = chance.below(6)
        if kind < 4:
            _put_token(data, chance, corpus, kind < 3)
        elif kind == 4 and data:
            overwrite(data, chance, 0, len(data))
        else:
            resize(data, chance, corpus["token"])
    return data


def _put_token(data, chance, corpus, fitting):
    """A token put where one may stand, in place of another; or else anywhere."""
    start = chance.below(len(data) + 1)
    end = min(len(data), start + chance.pick((0, 0, 1, 3, 9)))
    if fitting:
        text = bytes(data)
        start = max(text.find(corpus["before"][0], start), text.find(corpus["before"][0])) + 1
        end = start
        while end < len(text) and text[end] not in corpus["behind"][0]:
            end += 1
    data[start:end] = chance.pick(corpus["token"])


def name_case(chance, corpus):
    """Hostile parts of names, strung together."""
    data = bytearray()
    for _ in range(1 + chance.below(6)):
        data += chance.pick(corpus["name"])
        if chance.below(3):
            data += b"/"
    if chance.one_in(3):
        mangle(data, chance, corpus["name"])
    return data


# -- names and requests --------------------------------------------------------------------------


def read_name(data, chance):
    """What the reader and the agent make of a name."""
    try:
        name = str(data, "utf-8")
    except UnicodeError:
        return "not UTF-8"
    vetted(name)
    return "read"


def read_request(data, chance):
    """What the agent makes of a payload."""
    try:
        request = parse(bytes(data))
    except BadRequest as error:
        if error.file_id and not _is_safe(error.file_id):
            raise Violation("file id %r" % error.file_id)
        raise
    if request is None:
        return "no request"
    if (
        type(request) is not Request
        or not _is_safe(request.file_id)
        or request.kind not in (".tar", ".tar.gz")
        or type(request.size) is not int
        or request.size < 1
    ):
        raise Violation("%r %r %r" % (request.file_id, request.kind, request.size))
    return "read"


def _is_safe(text):
    return type(text) is str and 0 < len(text) <= 64 and all(c in _SAFE for c in text)


# -- answers -------------------------------------------------------------------------------------


class _Link:
    """Stands in for the agent's connection: gives `data` in pieces, and may break off.

    Now and then the server never stops to send headers, or one header.
    """

    def __init__(self, data, chance):
        self.sent = b""
        self.error = None
        self.aborted = False
        self._data = data
        self._at = 0
        self._chance = chance
        self._most = chance.pick((1, 20, 2000))
        self._breaks_at = chance.below(len(data) + 1) if chance.one_in(12) else -1
        self._endless = chance.pick((b"X: y\r\n", b"X")) if chance.one_in(60) else b""
        self._reads_left = len(data) + (20_000 if self._endless else 32)

    def open(self, host, port, context=None):
        if not host or not all(c in _HOST for c in host) or not 0 < port < 65536:
            raise Violation("connects to %r:%r" % (host, port))

    def write(self, data):
        self.sent += data

    def readline(self, limit):
        part = self._data[self._at : self._at + limit]
        if self._endless and not part:
            self._give(0)
            return self._endless if len(self._endless) > 1 else self._endless * limit
        end = part.find(b"\n")
        return bytes(self._give(end + 1 if end >= 0 else len(part)))

    def readinto(self, buffer, n):
        if n < 1 or n > len(buffer):
            raise Violation("a read of %d bytes into a buffer of %d" % (n, len(buffer)))
        part = self._give(min(n, 1 + self._chance.below(self._most)))
        buffer[: len(part)] = part
        return len(part)

    def abort(self):
        self.aborted = True

    def _give(self, n):
        self._reads_left -= 1
        if self._reads_left < 0:
            raise Hang("reads without end")
        part = self._data[self._at : self._at + n]
        self._at += len(part)
        if 0 <= self._breaks_at < self._at:
            self.error = OSError(104)
            raise self.error
        return part


class _Links:
    """Stands in for the class: the case's data first, then sound answers of the corpus."""

    def __init__(self, data, chance, corpus):
        self.opened = []
        self._data = data
        self._chance = chance
        self._corpus = corpus

    def __call__(self, timeout_ms, reason):
        data = self._chance.pick(self._corpus["item"]) if self.opened else self._data
        self.opened.append(_Link(data, self._chance))
        return self.opened[-1]


def answer_reader(corpus):
    """The check for answers: they have to come through the agent's own `get`."""
    https.trust = _trust

    def read_answer(data, chance):
        links = https.Link = _Links(data, chance, corpus)
        try:
            outcome = _get(links, chance)
        finally:
            https.Link = None
            for link in links.opened:
                _check_request(link)
        return outcome

    return read_answer


def _trust(ca, reason):
    return None


def _get(links, chance):
    response = https.get(_URL, "/ca.der", 1000)
    length = response.length  # the agent looks at it now, before any trailers
    total = 0
    try:
        while True:
            n = response.raw.readinto(_buffer, 1 + chance.below(300))
            if not n:
                break
            total += n
            if length is not None and total > length:
                raise Violation("a body longer than its Content-Length")
    except OSError as error:
        if error is not links.opened[-1].error:
            raise
        return "broken off"
    finally:
        response.close()
    if length is not None and total != length:
        raise Violation("%d bytes of %d, and no error" % (total, length))
    return "read" if response.status_code == 200 else "another status"


def _check_request(link):
    if not link.aborted:
        raise Violation("a connection is left open")
    lines = link.sent.split(b"\r\n")
    if len(lines) != 6 or len(lines[0].split(b" ")) != 3 or lines[4:] != [b"", b""]:
        raise Violation("the request reads %r" % link.sent)
    if any(c < 32 or c > 126 for line in lines for c in line):
        raise Violation("the request reads %r" % link.sent)
