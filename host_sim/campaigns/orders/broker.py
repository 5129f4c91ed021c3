"""A broker for one node, at which something can be done between any two of its packets.

It speaks the MQTT 3.1.1 that `umqtt.simple` uses, keeps what is retained on the node's topic, and
treats a node that wants to retain something as one of the brokers of `REFUSALS` would.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 12, 14

#: What brokers do with a retained message that they do not allow: acknowledge and drop it
#: (Mosquitto, EMQX), close the connection (RabbitMQ, VerneMQ, mProxy, aedes), or nothing at all
#: (Moquette).
REFUSALS = ("drops", "closes", "silent")


@dataclass(frozen=True)
class Change:
    """Something that happened. `what` is "retained", "report", "ping", or what others note."""

    number: int
    what: str
    payload: bytes = b""
    by_node: bool = False

    def __str__(self) -> str:
        return f"{self.number} {self.what} {'by the node ' * self.by_node}{self.payload!r}"


class Broker:
    """A context manager; `port` is where the node finds it.

    `before` and `after` are called with the number of the node's packet since `begin`, around
    what is done about it; a false answer ends the connection. Everything that happens has a number
    in `story`: what comes before something else has the smaller one.
    """

    def __init__(self) -> None:
        self.refusal = ""
        self.before: Callable[[int, int], bool] = lambda _number, _kind: True
        self.after: Callable[[int, int], bool] = lambda _number, _kind: True
        self.up = True
        self.lock = threading.RLock()
        self.begin()

    def __enter__(self) -> Broker:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def begin(self) -> None:
        """Stand as if nothing had happened so far."""
        with self.lock:
            self.retained = b""
            self.reports: list[bytes] = []
            self.story: list[Change] = []
            self.packets = 0
            self._subscriber: tuple[socket.socket, bytes] | None = None

    def retain(self, payload: bytes) -> None:
        """What the operator wants from now on, b"" for nothing; who listens hears it."""
        with self.lock:
            self.retained = payload
            self.note("retained", payload)
            self._pass_on(payload)

    def now(self) -> int:
        """The number of what happens next."""
        return len(self.story)

    def note(self, what: str, payload: bytes = b"", by_node: bool = False) -> None:
        """Something has happened; who calls this holds the lock."""
        self.story.append(Change(len(self.story), what, payload, by_node))

    def _pass_on(self, payload: bytes) -> None:
        if self._subscriber:
            connection, topic = self._subscriber
            with contextlib.suppress(OSError):
                connection.sendall(publish(topic, payload, False))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not self.up:
                connection.close()
                continue
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        # A node whose power fails leaves its connections in any state.
        with connection, contextlib.suppress(OSError, EOFError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as stream:
                while self.up and self._serve(connection, *read_packet(stream)):
                    pass
        with self.lock:
            if self._subscriber and self._subscriber[0] is connection:
                self._subscriber = None

    def _serve(self, connection: socket.socket, first: int, body: bytes) -> bool:
        kind = first >> 4
        with self.lock:
            self.packets += 1
            number = self.packets
        if not self.before(number, kind):
            return False
        with self.lock:
            goes_on = self._deal_with(connection, kind, first, body)
        return goes_on and self.after(number, kind)

    def _deal_with(self, connection: socket.socket, kind: int, first: int, body: bytes) -> bool:
        if kind == CONNECT:
            connection.sendall(b"\x20\x02\x00\x00")
        elif kind == SUBSCRIBE:
            topic = _topic_of(body[2:])
            connection.sendall(b"\x90\x03" + body[:2] + b"\x01")
            if self.retained:
                connection.sendall(publish(topic, self.retained, True))
            self._subscriber = connection, topic
        elif kind == PINGREQ:
            self.note("ping")
            connection.sendall(b"\xd0\x00")
        elif kind == PUBLISH:
            return self._take(connection, first, body)
        return kind != DISCONNECT

    def _take(self, connection: socket.socket, first: int, body: bytes) -> bool:
        at = 2 + len(_topic_of(body))
        acknowledgement = b""
        if first & 6:
            acknowledgement = b"\x40\x02" + body[at : at + 2]
            at += 2
        payload = body[at:]
        if first & 1:
            if self.refusal:
                if self.refusal == "drops":
                    connection.sendall(acknowledgement)
                return self.refusal != "closes"
            self.retained = payload
            self.note("retained", payload, True)
        else:
            self.reports.append(payload)
            self.note("report", payload, True)
        # The node is subscribed to what it publishes on, so it hears itself.
        self._pass_on(payload)
        connection.sendall(acknowledgement)
        return True


def read_packet(stream) -> tuple[int, bytes]:
    """(first byte, body). Raises EOFError."""
    header = stream.read(1)
    if not header:
        raise EOFError
    length = shift = 0
    while True:
        (byte,) = stream.read(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return header[0], stream.read(length)


def publish(topic: bytes, payload: bytes, retain: bool) -> bytes:
    """A PUBLISH at QoS 1."""
    body = struct.pack(">H", len(topic)) + topic + b"\x00\x01" + payload
    length, rest = b"", len(body)
    while True:
        length += bytes([rest & 127 | (128 if rest > 127 else 0)])
        rest >>= 7
        if not rest:
            return bytes([0x32 | retain]) + length + body


def _topic_of(body: bytes) -> bytes:
    (size,) = struct.unpack_from(">H", body)
    return body[2 : 2 + size]
