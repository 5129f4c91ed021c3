"""The least platform a node can live with: one retained message, its reports, one package.

The campaign starts a node tens of thousands of times, so this does within microseconds what the
simulated console does with a real broker and TLS; the agent is the same at both. It speaks just
the MQTT 3.1.1 that `umqtt.simple` uses.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12


@dataclass
class State:
    """What the platform remembers; a cut of the node's power does not touch it."""

    retained: bytes = b""
    reports: list[bytes] = field(default_factory=list)

    def copy(self) -> State:
        """An independent copy."""
        return State(self.retained, list(self.reports))


class Platform:
    """A context manager; `mqtt_port` and `package_port` are where the node finds it.

    `on_connect` is called whenever a node connects, before it is answered: at that moment its
    boot.py has done its work, and the application has written nothing yet. `on_publish` is called
    with the number of the node's message since `begin`, before it is dealt with; a true answer
    means that the message got lost with its sender. `after_publish` is called when the message has
    been dealt with and is not acknowledged yet.
    """

    def __init__(self) -> None:
        self.state = State()
        self.package = b""
        self.on_connect: Callable[[], None] = lambda: None
        self.on_publish: Callable[[int], bool] = lambda _number: False
        self.after_publish: Callable[[int], None] = lambda _number: None
        self.on_packet: Callable[[], bool] = lambda: True
        self.after_packet: Callable[[], bool] = lambda: True
        self._subscriber: tuple[socket.socket, bytes] | None = None
        self._published = 0
        self._listeners: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Platform:
        self.mqtt_port = self.listen(self._serve_mqtt)
        self.package_port = self.listen(self.serve_package)
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()

    def retain(self, payload: bytes) -> None:
        """What the platform wants from now on; a node that listens hears it at once."""
        self.state.retained = payload
        if self._subscriber:
            connection, topic = self._subscriber
            with contextlib.suppress(OSError):
                connection.sendall(_publish(topic, payload, False))

    def begin(self, state: State, package: bytes) -> None:
        """Stand as if this had been all that happened so far."""
        self.state = state.copy()
        self.package = package
        self._published = 0

    def listen(self, serve: Callable[[socket.socket], None]) -> int:
        """Call `serve` with each connection, in a thread of its own; returns the port."""
        listener = socket.create_server(("127.0.0.1", 0))
        self._listeners.append(listener)

        def one(connection: socket.socket) -> None:
            # A node whose power fails leaves its connections in any state.
            with connection, contextlib.suppress(OSError, EOFError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        self._threads.append(thread)
        return listener.getsockname()[1]

    def serve_package(self, connection: socket.socket) -> None:
        """Send the package."""
        connection.sendall(self.package)

    def _serve_mqtt(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            while True:
                first, body = _read_packet(stream)
                kind = first >> 4
                waits = kind in (CONNECT, SUBSCRIBE, PINGREQ, PUBLISH)
                if waits and not self.on_packet():
                    return
                if kind == CONNECT:
                    self.on_connect()
                    connection.sendall(b"\x20\x02\x00\x00")
                elif kind == SUBSCRIBE:
                    answer = b"\x90\x03" + body[:2] + b"\x01"
                    topic = _topic_of(body[2:])
                    if self.state.retained:
                        answer += _publish(topic, self.state.retained, True)
                    connection.sendall(answer)
                    self._subscriber = connection, topic
                elif kind == PINGREQ:
                    connection.sendall(b"\xd0\x00")
                elif kind == PUBLISH:
                    self._take(connection, first, body)
                if waits and not self.after_packet():
                    return

    def _take(self, connection: socket.socket, first: int, body: bytes) -> None:
        topic = _topic_of(body)
        at = 2 + len(topic)
        pid, payload = body[at : at + 2], body[at + 2 :]
        self._published += 1
        if self.on_publish(self._published):
            return
        if topic.endswith(b"/stat"):  # at QoS 0, and nobody is subscribed to it
            self.after_publish(self._published)
            return
        if first & 1:
            self.state.retained = payload
        else:
            self.state.reports.append(payload)
        self.after_publish(self._published)
        # The node is subscribed to what it publishes on, so it hears itself.
        connection.sendall(_publish(topic, payload, False) + b"\x40\x02" + pid)


def _read_packet(stream) -> tuple[int, bytes]:
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


def _topic_of(body: bytes) -> bytes:
    (size,) = struct.unpack_from(">H", body)
    return body[2 : 2 + size]


def _publish(topic: bytes, payload: bytes, retain: bool) -> bytes:
    body = struct.pack(">H", len(topic)) + topic + b"\x00\x01" + payload
    length, rest = b"", len(body)
    while True:
        length += bytes([rest & 127 | (128 if rest > 127 else 0)])
        rest >>= 7
        if not rest:
            return bytes([0x32 | retain]) + length + body
