"""What many lives came to, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from host_sim.campaigns.lives.bench import Outcome, kind_of


@dataclass
class Tally:
    """What a number of lives came to."""

    lives: int = 0
    wakes: int = 0
    boots: int = 0
    power_cuts: int = 0
    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    manners: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one in."""
        self.lives += 1
        self.wakes += outcome.wakes
        self.boots += outcome.boots
        self.power_cuts += outcome.power_cuts
        self.seconds += outcome.seconds
        self.ends += outcome.ends
        self.manners += outcome.manners
        if outcome.wrong:
            self.failures.append(outcome)

    def kinds(self) -> dict[str, list[int]]:
        """The seeds of the failures, by what is wrong, the most frequent first."""
        found: dict[str, list[int]] = {}
        for outcome in self.failures:
            found.setdefault(kind_of(outcome.wrong), []).append(outcome.seed)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def rows(self) -> list[tuple[str, str]]:
        """What was lived, and how often, as the page has it."""
        ends = ", ".join(f"{n:,} {name}" for name, n in self.ends.most_common())
        manners = ", ".join(f"{n:,} {name}" for name, n in self.manners.most_common())
        return [
            ("lives", f"{self.lives:,}"),
            ("failures", f"{len(self.failures):,}"),
            ("wakes", f"{self.wakes:,}"),
            ("boots", f"{self.boots:,}"),
            ("power cuts", f"{self.power_cuts:,}"),
            ("requests", f"{self.ends.total():,}: {ends}"),
            ("packages", manners),
        ]

    def table(self) -> str:
        """The rows in Markdown."""
        lines = ["| what | how often |", "|---|---|"]
        return "\n".join([*lines, *(f"| {what} | {often} |" for what, often in self.rows())])
