"""What a package may do to a fleet: who fails, who is off, and what a rollout has to do then."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: Ends of a node: as `gates` tells them apart.
GOOD, GRAVE, SLIGHT, LOST, ABSENT = "good", "grave", "slight", "lost", "absent"
_ABSENT_SHARE, _SLIGHT_SHARE = 0.01, 0.002


@dataclass(frozen=True)
class Case:
    """Shares are of 1. What is not said to be bad takes the package, but for the usual noise."""

    name: str
    words: str
    boards: dict[str, float]
    bad_board: str = ""
    bad_share: float = 0.0
    bad_end: str = GRAVE
    stops: bool = True
    """A person wants it stopped."""

    def fleet(self, size: int, seed: int) -> list[tuple[str, str]]:
        """Board and end of each node, at random."""
        chance = random.Random(f"{self.name}-{seed}")
        nodes = []
        rest = size
        for number, (board, share) in enumerate(self.boards.items()):
            last = number == len(self.boards) - 1
            count = rest if last else round(size * share)
            rest -= count
            bad = round(count * self.bad_share) if board == self.bad_board else 0
            ends = [self.bad_end] * bad + [GOOD] * (count - bad)
            chance.shuffle(ends)
            nodes += [(board, self._with_noise(end, chance)) for end in ends]
        return nodes

    def _with_noise(self, end: str, chance: random.Random) -> str:
        drawn = chance.random()
        if drawn < _ABSENT_SHARE:
            return ABSENT  # off for weeks, whatever the package
        if drawn < _ABSENT_SHARE + _SLIGHT_SHARE and end == GOOD:
            return SLIGHT
        return end


_THREE = {"esp32": 0.34, "esp32s3": 0.33, "pico": 0.33}
_SMALL = {"esp32": 0.57, "esp32s3": 0.4, "pico": 0.03}
_ONE = {"esp32": 1.0}

CASES = (
    Case("small", "a board of 3 % of the fleet, all of it fails", _SMALL, "pico", 1.0),
    Case("brick", "the same, but it falls silent; stat was heard", _SMALL, "pico", 1.0, LOST),
    Case("dark", "the same, and no stat was heard", _SMALL, "pico", 1.0, ABSENT),
    Case("full", "a board of 3 %: `not enough space`", _SMALL, "pico", 1.0, SLIGHT),
    Case("third", "3 % of the nodes of a board of a third", _THREE, "pico", 0.03),
    Case("whole", "3 % of all nodes, one board", _ONE, "esp32", 0.03),
    Case("tenth", "10 % of the nodes of a board of a third", _THREE, "pico", 0.1),
    Case("good", "nothing but the noise", _THREE, stops=False),
    Case("good-small", "nothing but the noise, a board of 3 %", _SMALL, stops=False),
)
BY_NAME = {case.name: case for case in CASES}


@dataclass
class Course:
    """How one rollout went."""

    asked: int
    """Nodes whose request was ever out."""
    size: int
    stop: str
    steps: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """Of the fleet that was asked."""
        return 100 * self.asked / self.size
