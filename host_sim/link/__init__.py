"""A bad link between a node and the console, to be put before any TCP endpoint.

    with Link("127.0.0.1", port, "rtt=200ms,down=20k,cut=4096") as link:
        ...  # connect to link.port

TLS goes through from end to end. `profile.HELP` describes the text; `segments` and `connections`
tell what passed.
"""

from host_sim.link.profile import HELP, Corrupt, Cut, Hold, Profile, parse
from host_sim.link.proxy import Link
from host_sim.link.record import Connection, Segment, count_round_trips

__all__ = [
    "HELP",
    "Connection",
    "Corrupt",
    "Cut",
    "Hold",
    "Link",
    "Profile",
    "Segment",
    "count_round_trips",
    "parse",
]
