"""A broker for one node that sends what is retained when the test wants: before, after, late.

Real brokers differ in it, and the same broker differs with where its retained store is.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

CONNACK, PINGRESP = b"\x20\2\0\0", b"\xd0\0"
REQUEST = b'[{"n":"e","v":0},{"n":"i","vs":"fa8884d2"},{"n":"t","vs":".tar"},{"n":"s","v":10240}]'

#: When a retained message comes, beside `late_ms` after the rest.
ORDERS = ("retained suback pong", "suback retained pong", "suback pong", "pong suback")


def publish(topic: bytes, payload: bytes, *, retained: bool) -> bytes:
    """A PUBLISH at QoS 0."""
    body = struct.pack(">H", len(topic)) + topic + payload
    return bytes([0x30 | retained, len(body) & 127 | 128, len(body) >> 7]) + body


class LateBroker:
    """A context manager; `port` is where the node finds it, `retained` what stands for it.

    `order` is one of ORDERS; where it has no "retained", the message comes `late_ms` after what
    it has. `heard` are the types of the node's packets by connection, `published` its messages.
    `on_ping` is called with each PINGREQ, before it is answered.
    """

    def __init__(self, order: str = "suback retained pong", late_ms: float = 0) -> None:
        self.order, self.late_ms = order, late_ms
        self.retained = b""
        self.heard: list[list[int]] = []
        self.published: list[bytes] = []
        self.on_ping: Callable[[], object] = lambda: None
        self._subscriber: tuple[socket.socket, bytes] | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> LateBroker:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def say(self, payload: bytes, leaf: bytes = b"ota") -> None:
        """The platform says something now, to whoever has subscribed."""
        connection, topic = self._subscriber
        topic = topic.rpartition(b"/")[0] + b"/" + leaf
        connection.sendall(publish(topic, payload, retained=False))

    def _start(self, call: Callable, *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.heard.append([])
            self._start(self._serve, connection, self.heard[-1])

    def _serve(self, connection: socket.socket, heard: list[int]) -> None:
        held = b""
        with (
            connection,
            connection.makefile("rb") as stream,
            contextlib.suppress(OSError, IndexError),
        ):
            while True:
                first, body = _read_packet(stream)
                heard.append(first >> 4)
                if first >> 4 == 1:
                    connection.sendall(CONNACK)
                elif first >> 4 == 8:
                    suback = b"\x90\3" + body[:2] + b"\1"
                    topic = _text(body[2:])
                    self._subscriber = connection, topic
                    message = publish(topic, self.retained, retained=True)
                    message = message if self.retained else b""
                    if self.order.startswith("retained"):
                        connection.sendall(message + suback)
                    elif "retained" in self.order:
                        connection.sendall(suback + message)
                    else:
                        if self.order.startswith("suback"):
                            connection.sendall(suback)
                        else:
                            held = suback
                        self._start(self._send_late, connection, message)
                elif first >> 4 == 12:
                    self.on_ping()
                    connection.sendall(PINGRESP + held)
                    held = b""
                elif first >> 4 == 3:
                    topic = _text(body)
                    rest = body[2 + len(topic) :]
                    self.published.append(rest[2:] if first & 6 else rest)
                    if first & 1:
                        self.retained = self.published[-1]
                    if first & 6:
                        connection.sendall(b"\x40\2" + rest[:2])

    def _send_late(self, connection: socket.socket, message: bytes) -> None:
        time.sleep(self.late_ms / 1000)
        with contextlib.suppress(OSError):
            connection.sendall(message)


def _read_packet(stream) -> tuple[int, bytes]:
    first = stream.read(1)[0]
    length = shift = 0
    while True:
        (byte,) = stream.read(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return first, stream.read(length)


def _text(body: bytes) -> bytes:
    (size,) = struct.unpack_from(">H", body)
    return body[2 : 2 + size]
