"""The time that bytes take: bandwidth, latency, and the pauses that lost segments make."""

from __future__ import annotations

import asyncio
import random

from host_sim.link.profile import Profile

SEGMENT = 1460
_READ_AHEAD_S = 0.1
_LONGEST_PAUSE_MS = 60_000


class Lane:
    """One direction of a link, which all its connections share. Times are the loop's, in s."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free = 0.0

    async def room(self) -> None:
        """Wait until more may be sent: what does not leave soon is to wait in the sender."""
        loop = asyncio.get_running_loop()
        while (ahead := self._free - loop.time() - _READ_AHEAD_S) > 0:
            await asyncio.sleep(ahead)

    def send(self, length: int, now: float) -> float:
        """When a segment that is sent now has left."""
        if not self._bytes_per_s:
            return now
        self._free = max(self._free, now) + length / self._bytes_per_s
        return self._free


class Wire:
    """One direction of one connection: when what it is given comes out, in the same order."""

    def __init__(self, lane: Lane, profile: Profile, connection: int, direction: str) -> None:
        self._lane = lane
        self._profile = profile
        # Of its own: what happens on one connection must not depend on what others do.
        self._chance = random.Random(f"{profile.seed} {connection} {direction}")
        self._last = 0.0

    async def room(self) -> None:
        """Wait until more may be sent."""
        await self._lane.room()

    def arrival(self, length: int, now: float) -> float:
        """When a segment that is sent now arrives; never before an earlier one."""
        t = self._lane.send(length, now) + self._profile.rtt_ms / 2000 + self._pause_ms() / 1000
        self._last = max(self._last, t)
        return self._last

    def _pause_ms(self) -> float:
        total, pause = 0.0, self._profile.retransmission_ms
        while self._profile.loss and self._chance.random() < self._profile.loss:
            total += pause
            pause = min(2 * pause, _LONGEST_PAUSE_MS)
        return total
