"""A forwarder in front of a broker that writes down every MQTT 3.1.1 packet as it passes.

It shows what a client really put on the wire, and in which order: things that brokers hide from
subscribers, such as the QoS and the retain flag of a PUBLISH.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# fmt: off
_TYPES = (
    "RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)
# fmt: on
_WITH_PID = frozenset(_TYPES[4:12])
_BLOCK = 65536


@dataclass(frozen=True)
class Packet:
    """One packet. A field that its type does not have is None, or empty."""

    connection: int
    """Which connection through the wiretap, from 0."""
    direction: str
    """"up": from the client to the broker; "down": the other way."""
    type: str
    """"CONNECT" to "DISCONNECT", or "MALFORMED": from there on the stream is not decoded."""
    flags: int
    length: int
    """The whole packet, header included."""
    pid: int | None = None
    topic: str | None = None
    payload: bytes | None = None
    qos: int | None = None
    retain: bool | None = None
    dup: bool | None = None
    client_id: str | None = None
    clean_session: bool | None = None
    keepalive: int | None = None
    filters: tuple[tuple[str, int], ...] = ()
    """SUBSCRIBE: filter and QoS asked for. UNSUBSCRIBE: filter and 0."""
    codes: tuple[int, ...] = ()
    """Return codes of CONNACK and SUBACK."""
    t: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True)
class Segment:
    """One piece as it was read from a connection; 0 bytes: that side has ended its half."""

    connection: int
    direction: str
    length: int
    t: float = field(default_factory=time.monotonic, compare=False)


class Decoder:
    """Packets of one direction of one connection, from pieces cut anywhere."""

    def __init__(self, connection: int = 0, direction: str = "up") -> None:
        self._connection = connection
        self._direction = direction
        self._buffer = bytearray()
        self._lost = False

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are whole now."""
        if self._lost:
            return []
        self._buffer += data
        packets = []
        try:
            while (extent := self._extent()) is not None:
                start, end = extent
                body = bytes(self._buffer[start:end])
                first = self._buffer[0]
                del self._buffer[:end]
                packets.append(self._decode(first, body, end))
        except (ValueError, IndexError, struct.error):
            self._lost = True
            self._buffer.clear()
            packets.append(Packet(self._connection, self._direction, "MALFORMED", 0, len(data)))
        return packets

    def _extent(self) -> tuple[int, int] | None:
        """Where the first packet's body starts and ends, once all of it is there."""
        length = 0
        for index in range(1, 5):
            if index >= len(self._buffer):
                return None
            byte = self._buffer[index]
            length |= (byte & 0x7F) << 7 * (index - 1)
            if not byte & 0x80:
                end = index + 1 + length
                return (index + 1, end) if end <= len(self._buffer) else None
        raise ValueError("length of more than four bytes")

    def _decode(self, first: int, body: bytes, length: int) -> Packet:
        name, flags = _TYPES[first >> 4], first & 0x0F
        if name in ("RESERVED", "AUTH"):
            raise ValueError(f"packet type {first >> 4}")
        details = {
            "CONNECT": _connect,
            "CONNACK": lambda body: {"flags": body[0], "codes": (body[1],)},
            "PUBLISH": lambda body: _publish(flags, body),
            "SUBSCRIBE": lambda body: {"filters": tuple(_filters(body[2:], with_qos=True))},
            "UNSUBSCRIBE": lambda body: {"filters": tuple(_filters(body[2:], with_qos=False))},
            "SUBACK": lambda body: {"codes": tuple(body[2:])},
        }.get(name, lambda _body: {})(body)
        if name in _WITH_PID:
            (details["pid"],) = struct.unpack_from(">H", body)
        return Packet(
            self._connection, self._direction, name, details.pop("flags", flags), length, **details
        )


def _text(body: bytes, at: int) -> tuple[bytes, int]:
    """A length-prefixed field, and where the next thing starts."""
    (length,) = struct.unpack_from(">H", body, at)
    end = at + 2 + length
    if end > len(body):
        raise ValueError("field beyond the packet")
    return body[at + 2 : end], end


def _connect(body: bytes) -> dict:
    """What is said openly; will, user name and password stay unread."""
    _protocol, at = _text(body, 0)
    _level, flags, keepalive = struct.unpack_from(">BBH", body, at)
    client_id, _ = _text(body, at + 4)
    return {
        "flags": flags,
        "client_id": client_id.decode(),
        "clean_session": bool(flags & 0x02),
        "keepalive": keepalive,
    }


def _publish(flags: int, body: bytes) -> dict:
    topic, at = _text(body, 0)
    qos = flags >> 1 & 3
    pid = None
    if qos:
        (pid,) = struct.unpack_from(">H", body, at)
        at += 2
    return {
        "topic": topic.decode(),
        "payload": body[at:],
        "qos": qos,
        "retain": bool(flags & 1),
        "dup": bool(flags & 8),
        "pid": pid,
    }


def _filters(body: bytes, *, with_qos: bool) -> list[tuple[str, int]]:
    found, at = [], 0
    while at < len(body):
        topic_filter, at = _text(body, at)
        qos = body[at] if with_qos else 0
        at += with_qos
        found.append((topic_filter.decode(), qos))
    return found


class Wiretap:
    """A context manager: clients connect to `port` and talk to the target through it.

    A packet is written down before it is passed on, so whoever sees its effect finds it here.
    Secrets are not kept: of CONNECT only client id, flags and keepalive.
    """

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self._target = (target_host, target_port)
        self._condition = threading.Condition()
        self._packets: list[Packet] = []
        self._segments: list[Segment] = []
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._stopping = False
        self.port = 0

    def __enter__(self) -> Wiretap:
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Not every system ends a waiting accept() when the socket is shut down.
        self._listener.settimeout(0.1)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._stopping = True
            sockets = [self._listener, *self._sockets]
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        self._listener.close()

    @property
    def packets(self) -> list[Packet]:
        """All packets so far, in the order in which they passed."""
        with self._condition:
            return list(self._packets)

    @property
    def segments(self) -> list[Segment]:
        """All pieces so far."""
        with self._condition:
            return list(self._segments)

    def sent(self, type_name: str, direction: str = "up") -> list[Packet]:
        """The packets of one type that went one way."""
        return [p for p in self.packets if p.type == type_name and p.direction == direction]

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 5.0) -> bool:
        """Wait until the predicate holds: asked again after everything that passes."""
        with self._condition:
            return self._condition.wait_for(predicate, timeout)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="wiretap", daemon=True)
        # In this order: whoever ends here may join it at once, and only one that has begun.
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                if self._stopping:
                    return
                continue
            except OSError:
                return
            self._spawn(self._serve, number, client)
            number += 1

    def _serve(self, number: int, client: socket.socket) -> None:
        """One connection: this thread carries one direction, a second one the other."""
        with contextlib.ExitStack() as stack:
            self._keep(stack, client)
            try:
                broker = socket.create_connection(self._target, timeout=10)
            except OSError:
                return
            broker.settimeout(None)
            self._keep(stack, broker)
            for each in (client, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(
                target=self._carry, args=(number, "down", broker, client), name="wiretap"
            )
            back.start()
            self._carry(number, "up", client, broker)
            back.join()

    def _keep(self, stack: contextlib.ExitStack, connection: socket.socket) -> None:
        """Close it at the end, and let `__exit__` reach it until then."""
        stack.enter_context(connection)
        with self._condition:
            self._sockets.add(connection)
            stopping = self._stopping
        stack.callback(self._forget, connection)
        if stopping:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, connection: socket.socket) -> None:
        with self._condition:
            self._sockets.discard(connection)

    def _carry(
        self, number: int, direction: str, source: socket.socket, target: socket.socket
    ) -> None:
        decoder = Decoder(number, direction)
        try:
            while True:
                data = source.recv(_BLOCK)
                packets = decoder.feed(data)
                with self._condition:
                    self._segments.append(Segment(number, direction, len(data)))
                    self._packets += packets
                    self._condition.notify_all()
                if not data:
                    # Only this half has ended: the other may still have something to say.
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
        except OSError:
            # Lost, not ended: neither side can go on.
            for each in (source, target):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
