# ruff: noqa: UP031 - MicroPython, as on the node
"""HTTP answers, mutated, sound and broken off, given to the agent by a connection of our own."""

import ota.dial as dial
import ota.download as download
import ota.fetch as fetch
import ota.https as https
import ota.trust as trust
from ota.request import Request
from ota.wire import Limits
from rules import Hang, Violation

_URL = "https://console.example:8443/mf-rproxy/packages/download?fuid=fa8884d2&dk=secret"
_CONFIG = {
    "server": "console.example",
    "device_id": "id",
    "device_key": "key",
    "control_channel": "channel",
    "ca": "/ca.der",
    "min_rate": 1,
}
_HOST = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-.:"
_LINES = (b"GET /", b"Host: ", b"User-Agent: ", b"Accept-Encoding: identity", b"Connection: ")
_LINES += (b"Range: bytes=", b'If-Range: "')
_buffer = bytearray(300)
_limits = Limits(1000, 1 << 30)


class _Time:
    """Time that nobody waits for."""

    def sleep_ms(self, ms):
        pass


class _Wire:
    """Stands in for the agent's connection: gives an answer in pieces, and may break off.

    Now and then the server never stops to send headers, or one header. answer: bytes, or None for
    the sound one to what is asked.
    """

    def __init__(self, answer, chance, body):
        self.sent = b""
        self.error = None
        self.closed = False
        self._answer = answer
        self._body = body
        self._at = 0
        self._chance = chance
        self._most = chance.pick((1, 20, 2000))
        self._breaks_at = chance.below(500) if chance.one_in(4) else -1
        self._endless = chance.pick((b"X: y\r\n", b"X")) if chance.one_in(200) else b""
        self._reads = 0

    def send(self, data):
        self.sent += data

    def receive(self, buffer):
        if not len(buffer):
            raise Violation("a read into an empty buffer")
        if self._answer is None:
            self._answer = _sound(self.sent, self._body)
        self._reads += 1
        if self._reads > len(self._answer) + (100_000 if self._endless else 32):
            raise Hang("reads without end")
        n = min(len(buffer), self._most)
        if self._at >= len(self._answer) and self._endless and len(buffer) == 1:
            part = self._endless[self._at % len(self._endless) :][:1]
        else:
            part = self._answer[self._at : self._at + n]
        self._at += len(part)
        if 0 <= self._breaks_at < self._at:
            self.error = OSError(104)
            raise self.error
        buffer[: len(part)] = part
        return len(part)

    def close(self):
        self.closed = True


def _sound(sent, body):
    """What a good server answers to this request."""
    start = sent.find(b"Range: bytes=")
    start = int(sent[start + 13 :].split(b"-")[0]) if start >= 0 else 0
    head = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\n'
    if start:
        head = b'HTTP/1.1 206 Partial Content\r\nETag: "v1"\r\n'
        head += b"Content-Range: bytes %d-%d/%d\r\n" % (start, len(body) - 1, len(body))
    return head + b"Content-Length: %d\r\n\r\n" % (len(body) - start) + body[start:]


class _Wires:
    """Stands in for the class: the case's answer first, then others of the corpus or sound ones.

    sound: whether all of them have been.
    """

    def __init__(self, answer, chance, corpus):
        self.opened = []
        # Every so often also the first one, so that the whole body is known.
        self.sound = chance.one_in(8)
        self._answer = None if self.sound else answer
        self._chance = chance
        self._corpus = corpus

    def secured(self, config, limits):
        wire = self(limits)
        _dial(wire, "", *trust.address(config["server"]))
        return wire

    def __call__(self, limits, least=0):
        answer = self._answer
        if self.opened:
            answer = self._chance.pick(self._corpus["item"]) if self._chance.one_in(4) else None
        if answer is not None:
            self.sound = False
        self.opened.append(_Wire(answer, self._chance, self._corpus["body"][0]))
        return self.opened[-1]


def answer_reader(corpus):
    """The reader of answers: it has them come through the agent's own `get` and `Download`."""
    trust.trust, dial.dial = _trust, _dial
    download.time = _Time()
    download.drop = fetch.drop = (
        _keep  # or these modules would be loaded anew, as they were written
    )

    def read_answer(data, chance):
        wires = https.Wire = _Wires(data, chance, corpus)
        trust.secured = wires.secured
        try:
            if chance.one_in(2):
                return _get(wires, chance)
            return _download(wires, chance, corpus["body"][0])
        finally:
            https.Wire = None
            for wire in wires.opened:
                _check_request(wire)

    return read_answer


def _keep(*names):
    pass


def _dial(wire, reason, host, port, context=None):
    if not host or not all(c in _HOST for c in host) or not 0 < port < 65536:
        raise Violation("connects to %r:%r" % (host, port))


def _trust(ca, reason):
    return None


def _get(wires, chance):
    response = https.get(download.Response, _URL, "/ca.der", _limits)
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
        if error is not wires.opened[-1].error:
            raise
        return "broken off"
    finally:
        response.close()
    if length is not None and total != length:
        raise Violation("%d bytes of %d, and no error" % (total, length))
    return "read" if response.status_code == 200 else "another status"


def _download(wires, chance, body):
    size = len(body) if chance.below(8) else 1 + chance.below(2 * len(body))
    package = download.Download(_CONFIG, Request("a", ".tar", size), _limits, None, _ignore)
    total = 0
    try:
        while True:
            n = package.readinto(_buffer, 1 + chance.below(300))
            if not n:
                break
            if wires.sound and _buffer[:n] != body[total : total + n]:
                raise Violation("not the bytes from %d on" % total)
            total += n
            if total > size:
                raise Violation("more than announced")
        if total != size:
            raise Violation("%d bytes of %d, and no error" % (total, size))
        package.end()
    finally:
        package.close()
    return "read" if len(wires.opened) == 1 else "read in parts"


def _ignore(count):
    pass


def _check_request(wire):
    if not wire.closed:
        raise Violation("a connection is left open")
    if not wire.sent.endswith(b"\r\n\r\n"):
        raise Violation("the request reads %r" % wire.sent)
    lines = wire.sent[:-4].split(b"\r\n")
    if len(lines) not in (5, 7) or len(lines[0].split(b" ")) != 3:
        raise Violation("the request reads %r" % wire.sent)
    for i in range(len(lines)):
        if not lines[i].startswith(_LINES[i]) or min(lines[i]) < 32 or max(lines[i]) > 126:
            raise Violation("the request reads %r" % wire.sent)
