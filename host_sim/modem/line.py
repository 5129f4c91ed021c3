"""The wire from the modem to the node's UART: bytes take their time."""

from __future__ import annotations

import math
from collections import deque


class Line:
    """What the modem has said and the node has not got yet. Times are in ms.

    Bytes that come to a full receive buffer are lost, and counted in `lost`.
    """

    def __init__(self) -> None:
        self.bytes_per_s = 11520.0
        self.lost = 0
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._arrived = bytearray()
        self._free_at = 0.0

    def send(self, data: bytes, at_ms: float) -> None:
        """Put data on the wire, at that time or when it is free."""
        begin = max(at_ms, self._free_at)
        self._free_at = begin + 1000 * len(data) / self.bytes_per_s
        self._pieces.append((begin, data))

    def cut(self, now_ms: float) -> None:
        """Forget what has not arrived by now, as when the modem loses its power."""
        self._settle(now_ms)
        self._pieces.clear()
        self._free_at = 0.0

    def take(self, now_ms: float, room: int) -> bytes:
        """What has arrived by now, as far as there is room for it."""
        self._settle(now_ms)
        arrived, self._arrived = self._arrived, bytearray()
        self.lost += max(0, len(arrived) - room)
        return bytes(arrived[:room])

    def skip(self, now_ms: float) -> None:
        """Nobody was there to take what has arrived by now."""
        self._settle(now_ms)
        self._arrived.clear()

    def due(self) -> float | None:
        """When the next byte is there; None: nothing is on the wire."""
        return self._pieces[0][0] + 1000 / self.bytes_per_s if self._pieces else None

    def _settle(self, now_ms: float) -> None:
        while self._pieces:
            begin, data = self._pieces[0]
            # A little more: what is due at a whole millisecond is there then.
            count = math.floor((now_ms - begin) * self.bytes_per_s / 1000 + 1e-6)
            if count <= 0:
                break
            self._arrived += data[:count]
            if count < len(data):
                self._pieces[0] = (begin + 1000 * count / self.bytes_per_s, data[count:])
                break
            self._pieces.popleft()
