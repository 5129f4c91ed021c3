"""What an idle check costs on the wire, as seen from outside, with TLS as well as without."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from host_sim.link.wiretap import Segment


@dataclass(frozen=True)
class Idle:
    """One idle check."""

    turns: int
    """How often the node spoke and was answered, TLS handshake and CONNECT included."""
    waited_ms: float
    """From the broker's answer to SUBSCRIBE and PINGREQ to the node's goodbye: how long it
    listened on, pings in between included.
    """


#: CONNECT, then SUBSCRIBE and PINGREQ together. TLS has two before them: in the second one the
#: server ends its handshake, or sends what a client may resume it with.
LEAST_TURNS = {False: 2, True: 4}


def idle(segments: Iterable[Segment], tls: bool) -> Idle:
    """What the connection of an idle check cost. Raises ValueError when it is no single one."""
    spoken = sorted((each for each in segments if each.length), key=lambda each: each.t)
    if len({segment.connection for segment in spoken}) != 1:
        raise ValueError("an idle check is one connection")
    # Under TLS a broker answers even the goodbye.
    while spoken[-1].direction == "down":
        spoken.pop()
    turns, answered, last = 0, spoken[-1].t, "down"
    for segment in spoken:
        if segment.direction == "down":
            turns += last == "up"
            if turns <= LEAST_TURNS[tls]:
                answered = segment.t
        last = segment.direction
    return Idle(turns, (spoken[-1].t - answered) * 1000)
