"""Which fault strikes at which byte."""

from __future__ import annotations

from host_sim.link.profile import DIRECTIONS, Corrupt, Cut, Hold, Profile, Strike


class Life:
    """What the connections of a link count together."""

    def __init__(self) -> None:
        self.delivered = dict.fromkeys(DIRECTIONS, 0)
        self.done: set[Strike] = set()


class Strikes:
    """The faults of one connection. Everything is decided when bytes are about to be delivered."""

    def __init__(self, profile: Profile, life: Life) -> None:
        self._strikes = profile.strikes
        self._life = life
        self._delivered = dict.fromkeys(DIRECTIONS, 0)

    def at_start(self) -> list[Cut | Hold]:
        """What strikes before the first byte."""
        return [strike for strike in map(self._due, DIRECTIONS) if strike]

    def take(self, direction: str, data: bytes) -> tuple[bytes, Cut | Hold | None]:
        """What to deliver of data now, and what strikes behind that. It counts as delivered."""
        left = [self._left(s) for s in self._pending(direction) if not isinstance(s, Corrupt)]
        piece = data[: min((n for n in left if n > 0), default=len(data))]
        for strike in self._pending(direction):
            if isinstance(strike, Corrupt) and 0 <= self._left(strike) < len(piece):
                damaged = bytearray(piece)
                damaged[self._left(strike)] ^= 0xFF
                piece = bytes(damaged)
                self._mark(strike)
        self._delivered[direction] += len(piece)
        self._life.delivered[direction] += len(piece)
        return piece, self._due(direction)

    def _pending(self, direction: str) -> list[Strike]:
        return [
            strike
            for strike in self._strikes
            if strike.direction == direction and strike not in self._life.done
        ]

    def _left(self, strike: Strike) -> int:
        """Bytes until it strikes; negative when the place is behind us."""
        counts = self._delivered if strike.each else self._life.delivered
        return strike.at - counts[strike.direction]

    def _due(self, direction: str) -> Cut | Hold | None:
        for strike in self._pending(direction):
            if isinstance(strike, Cut | Hold) and not self._left(strike):
                self._mark(strike)
                return strike
        return None

    def _mark(self, strike: Strike) -> None:
        if not strike.each:
            self._life.done.add(strike)
