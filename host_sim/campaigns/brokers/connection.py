"""A node's connection to a broker, packet by packet; nothing is done by itself."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from host_sim.link.wiretap import Decoder, Packet


class Closed(ConnectionError):
    """The broker has ended the connection."""


class Connection:
    """Connected as this user, whose name is the client id as well; plain.

    Raises Closed when the broker does not let it in.
    """

    def __init__(self, port: int, user: str, key: str, *, clean: bool = True) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = Decoder(direction="down")
        self._packets: list[Packet] = []
        flags = 0xC0 | clean << 1
        ids = text(user) + text(user) + text(key)
        self.send(packet(0x10, b"\0\4MQTT\4" + bytes([flags]) + b"\0\x3c" + ids))
        if self.next().codes != (0,):
            raise Closed

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        """With a goodbye."""
        with contextlib.suppress(OSError):
            self.send(b"\xe0\0")
        self._socket.close()

    def lose(self) -> None:
        """End it without a goodbye."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Packets, as they are."""
        self._socket.sendall(data)

    def next(self, timeout_s: float = 5) -> Packet:
        """The next packet. Raises TimeoutError, Closed."""
        deadline = time.monotonic() + timeout_s
        while not self._packets:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed
            self._packets += self._decoder.feed(data)
        return self._packets.pop(0)

    def until(self, kind: str, timeout_s: float = 5) -> list[Packet]:
        """All packets up to one of this kind. Raises TimeoutError, Closed."""
        deadline = time.monotonic() + timeout_s
        heard = [self.next(timeout_s)]
        while heard[-1].type != kind:
            heard.append(self.next(max(0.001, deadline - time.monotonic())))
        return heard

    def rest(self, timeout_s: float) -> list[Packet]:
        """All packets until nothing has come for so long."""
        heard = []
        with contextlib.suppress(TimeoutError, Closed):
            while True:
                heard.append(self.next(timeout_s))
        return heard

    def acknowledge_all(self, timeout_s: float = 1) -> list[bytes]:
        """Hear until nothing comes any more, and acknowledge each; their payloads."""
        heard = []
        with contextlib.suppress(TimeoutError):
            while True:
                publish = self.next(timeout_s)
                self.send(puback(publish.pid))
                heard.append(publish.payload or b"")
        return heard


def text(value: str) -> bytes:
    """A length-prefixed field."""
    return struct.pack(">H", len(value.encode())) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    """A packet of up to 16,383 bytes."""
    size = [len(body)] if len(body) < 128 else [len(body) & 127 | 128, len(body) >> 7]
    return bytes([first, *size]) + body


def subscribe(topic: str, pid: int = 1) -> bytes:
    """SUBSCRIBE at QoS 1."""
    return packet(0x82, struct.pack(">H", pid) + text(topic) + b"\x01")


def publish(topic: str, payload: bytes, pid: int = 2, *, retain: bool = False) -> bytes:
    """PUBLISH at QoS 1."""
    return packet(0x32 | retain, text(topic) + struct.pack(">H", pid) + payload)


def puback(pid: int | None) -> bytes:
    """PUBACK."""
    return b"\x40\2" + struct.pack(">H", pid)


PING = b"\xc0\0"
