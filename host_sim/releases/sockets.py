"""Sockets and TLS for interpreters that have none; an answer is a number and some bytes."""

from __future__ import annotations

import errno
import select
import socket
import ssl

Answer = tuple[int, bytes]

_CONNECT_S = 5
_POLLOUT = 4


class Sockets:
    """Those of one instance; end it with `close`."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def close(self) -> None:
        """Close all that is open."""
        while self._sockets:
            self._sockets.popitem()[1].close()

    def connect(self, host: str, port: int) -> Answer:
        """A number for a new connection."""
        number = max(self._sockets, default=0) + 1
        # Servers of the simulated console listen at one address only.
        address = ("127.0.0.1" if host == "localhost" else host, port)
        self._sockets[number] = made = socket.create_connection(address, _CONNECT_S)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return number, b""

    def send(self, number: int, data: bytes) -> Answer:
        """How many bytes have gone."""
        return self._sockets[number].send(data), b""

    def receive(self, number: int, size: int) -> Answer:
        """What has come; nothing at the end of the stream."""
        data = self._sockets[number].recv(size)
        return len(data), data

    def poll(self, number: int, flag: int, wait_ms: int) -> Answer:
        """1 when it is readable, or writable, within the time; else 0."""
        sock = [self._sockets[number]]
        reading, writing = ([], sock) if flag == _POLLOUT else (sock, [])
        found = select.select(reading, writing, [], max(0, wait_ms) / 1000)
        return int(any(found)), b""

    def shut(self, number: int) -> Answer:
        """Close a connection."""
        self._sockets.pop(number).close()
        return 0, b""


class Tls:
    """TLS over streams that are the instance's: it moves all bytes. Verifies chain and name."""

    def __init__(self) -> None:
        self._contexts: list[ssl.SSLContext] = []
        self._streams: list[tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]] = []

    def context(self) -> Answer:
        """A number for a new context, which trusts nobody."""
        self._contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return len(self._contexts) - 1, b""

    def anchor(self, number: int, certificate: bytes) -> Answer:
        """Trust a certificate, in DER, too."""
        self._contexts[number].load_verify_locations(cadata=certificate)
        return 0, b""

    def wrap(self, number: int, name: str) -> Answer:
        """A number for a new stream to a server of this name."""
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        made = self._contexts[number].wrap_bio(coming, going, server_hostname=name)
        self._streams.append((made, coming, going))
        return len(self._streams) - 1, b""

    def shake(self, number: int) -> Answer:
        """Shake hands."""
        self._streams[number][0].do_handshake()
        return 0, b""

    def read(self, number: int, size: int) -> Answer:
        """What has come, in clear; nothing at the end."""
        try:
            data = self._streams[number][0].read(size)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            data = b""
        return len(data), data

    def write(self, number: int, data: bytes) -> Answer:
        """How many bytes it has taken."""
        return self._streams[number][0].write(data), b""

    def came(self, number: int, data: bytes) -> Answer:
        """What the peer has sent; nothing when it has ended."""
        coming = self._streams[number][1]
        if data:
            coming.write(data)
        else:
            coming.write_eof()
        return 0, b""

    def goes(self, number: int) -> Answer:
        """What the peer is to be sent."""
        return 0, self._streams[number][2].read()


def number_of(error: OSError) -> int:
    """The errno that an instance is told."""
    if isinstance(error, (BlockingIOError, ssl.SSLWantReadError)):
        return errno.EAGAIN
    if isinstance(error, ssl.SSLError):
        return errno.EIO  # Mbed TLS has numbers, and texts, of its own
    return error.errno or errno.ECONNREFUSED
