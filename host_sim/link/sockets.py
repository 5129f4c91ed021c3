"""Ends of connections, done so that what was sent before still arrives; and closed ports."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios

from host_sim.errors import SimError

_HOST = "127.0.0.1"
_BACKLOG = 128
_MOST_FILLERS = 16
_PATIENCE_S = 2


def finish(connection: socket.socket) -> None:
    """Close with FIN, after what was sent."""
    with contextlib.suppress(OSError):
        # Both ways: then nothing more comes in, and reading ends.
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        # Unread bytes would make the close a RST, and take away what has not arrived yet.
        while connection.recv(1 << 16):
            pass
    connection.close()


async def reset(connection: socket.socket) -> None:
    """Close with RST, once the peer's system has got what was sent."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE_S
    while _unacknowledged(connection) and loop.time() < end:
        await asyncio.sleep(0.001)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _unacknowledged(connection: socket.socket) -> int:
    try:
        answer = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return struct.unpack("i", answer)[0]


class Door:
    """The port on which a link is reached, open or closed in one of several ways."""

    def __init__(self) -> None:
        self._socket = self._listen(0)
        self._fillers: list[socket.socket] = []
        self.port = self._socket.getsockname()[1]

    def open(self) -> socket.socket:
        """Let peers in: the listening socket."""
        self.close()
        self._socket = self._listen(self.port)
        return self._socket

    def refuse(self) -> None:
        """Peers are told that nobody listens. The port stays ours."""
        self.close()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((_HOST, self.port))

    def drop(self) -> None:
        """Peers are told nothing: Linux drops a SYN when the queue behind the door is full."""
        self.open().listen(0)
        for _ in range(_MOST_FILLERS):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((_HOST, self.port))
            if not select.select([], [filler], [], 0.1)[1]:
                filler.close()
                return
            self._fillers.append(filler)
        raise SimError("link: connect=drop does not work on this system: use connect=hold")

    def close(self) -> None:
        """Leave no socket."""
        for each in (*self._fillers, self._socket):
            each.close()
        self._fillers.clear()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.create_server((_HOST, port), backlog=_BACKLOG)
        listener.setblocking(False)
        return listener
