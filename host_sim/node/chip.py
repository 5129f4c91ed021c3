"""What a chip and a release of MicroPython make of timers, the scheduler and the resolver.

Read in the sources of MicroPython 1.22 to 1.29 and of ESP-IDF 5.0 to 5.5; not run on a chip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from host_sim.errors import SimError

#: Timers that each chip has.
TIMERS = {"esp32": 4, "s3": 4, "c3": 2, "c6": 2}
#: Calls that wait for the main thread; one more is lost.
QUEUE = 8


@dataclass(frozen=True)
class Chip:
    """One kind of node. `release` is MicroPython's, such as ``"1.28"``.

    `no_interrupts`: none is left for a timer. `full_queue`: in each boot, the first so many
    callbacks of timers find the scheduler's queue full (of the network's, say). `dns_block_s`:
    ``getaddrinfo`` of a name blocks for so long, in virtual time, and fails then, as without a
    server; with `dns_answers` it goes well then.
    """

    name: str = "esp32"
    release: str = "1.28"
    no_interrupts: bool = False
    full_queue: int = 0
    dns_block_s: float = 0
    dns_answers: bool = False

    def check(self) -> None:
        """Raise a clear error for a node that there is not."""
        if self.name not in TIMERS:
            raise SimError(f"no chip {self.name!r}: choose from {', '.join(TIMERS)}")
        if not re.fullmatch(r"1\.\d+(\.\d+)?", self.release):
            raise SimError(f"release {self.release!r}: write it as 1.28")
        if self.name == "c6" and self._minor < 24:
            raise SimError("MicroPython knows the C6 from 1.24 on")

    @property
    def _minor(self) -> int:
        return int(self.release.split(".")[1])

    def settings(self) -> list[int]:
        """What the node itself has to know (see ``inside/late/_timer.py`` and ``_dns.py``)."""
        checked = TIMERS[self.name] if self._minor >= 25 else 0
        crash = int(self.name == "c3" and self._minor < 25)
        refused = (2 if self._minor >= 29 else 1) if self.no_interrupts else 0
        return [checked, crash, refused, int(self.dns_block_s * 1000), int(self.dns_answers)]

    def fires(self, number: int) -> bool:
        """Whether an armed timer of this number ever fires."""
        return not (self.name == "c6" and self._minor == 24 and number % 2)

    def period(self, asked: float) -> float:
        """How long a period really is."""
        return asked / 2 if self.name == "c6" and self._minor in (24, 25) else asked
