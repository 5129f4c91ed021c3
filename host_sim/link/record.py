"""What has passed through a link."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Segment:
    """One piece as it was delivered. Times are those of time.monotonic()."""

    connection: int
    direction: str
    length: int
    entered: float
    """When it came to the link."""
    t: float
    """When the link passed it on."""

    @property
    def at_node(self) -> float:
        """When it left the node, or reached it."""
        return self.entered if self.direction == "up" else self.t


@dataclass
class Connection:
    """One connection through the link, from 0."""

    number: int
    opened: float = field(default_factory=time.monotonic)
    up: int = 0
    """Bytes delivered to the console."""
    down: int = 0
    """Bytes delivered to the node."""
    ended: str | None = None
    """How: "closed" or "reset" by its ends, "cut", "unreachable" (nobody at the other end),
    "tls fault", "held" (never passed on) or "stopped" (with the link). None: it goes on."""


class Record:
    """Thread-safe: the link writes it, tests read it and wait for more."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._segments: list[Segment] = []
        self._connections: list[Connection] = []

    def open(self) -> Connection:
        """A new connection."""
        with self._condition:
            connection = Connection(len(self._connections))
            self._connections.append(connection)
            self._condition.notify_all()
        return connection

    def deliver(self, connection: Connection, direction: str, length: int, entered: float) -> None:
        """A piece that is passed on now."""
        segment = Segment(connection.number, direction, length, entered, time.monotonic())
        with self._condition:
            self._segments.append(segment)
            if direction == "up":
                connection.up += length
            else:
                connection.down += length
            self._condition.notify_all()

    def end(self, connection: Connection, how: str) -> None:
        """The end of a connection."""
        with self._condition:
            connection.ended = how
            self._condition.notify_all()

    def segments(self) -> list[Segment]:
        """All pieces so far, in the order in which they were passed on."""
        with self._condition:
            return list(self._segments)

    def connections(self) -> list[Connection]:
        """All connections so far, as they are now."""
        with self._condition:
            return [dataclasses.replace(each) for each in self._connections]

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until the predicate holds: asked again after everything that happens."""
        with self._condition:
            return self._condition.wait_for(predicate, timeout)


def count_round_trips(segments: list[Segment]) -> int:
    """How often the node sent something and then got something, in this part of the record."""
    seen = [s.direction for s in sorted(segments, key=lambda s: s.at_node)]
    return sum(pair == ("up", "down") for pair in itertools.pairwise(seen))
