"""Wear: many updates on one flash, erases counted by block."""

from __future__ import annotations

import random
from dataclasses import dataclass

from host_sim import sample
from host_sim.bench.laboratory import Laboratory, on_flash
from host_sim.sample import Tree

BLOCKS = 512
UPDATES = 1000
#: Ten years of monthly updates.
LIFE = 120


@dataclass
class Wear:
    """Erases by block after `updates` updates; `idle`: flash operations of as many idle wakes."""

    updates: int
    erased: list[int]
    idle: int

    @property
    def most(self) -> int:
        """Of the block that was erased most."""
        return max(self.erased)

    @property
    def mean(self) -> float:
        """Over all blocks."""
        return sum(self.erased) / len(self.erased)


def versions() -> tuple[Tree, Tree, Tree]:
    """(what stays, two packages that take turns): a third of 2 MB, of which 100 KB change."""
    rng = random.Random(5)
    stays = {f"lib/part_{n}.bin": rng.randbytes(20_000) for n in range(25)}
    odd, even = (
        {f"apps/app_{n % 5}/module_{n}.py": rng.randbytes(5_000) for n in range(20)}
        for _ in range(2)
    )
    return stays, odd, even


def wear(laboratory: Laboratory, updates: int = UPDATES) -> Wear:
    """Update a node so often, each with boot and confirm, then let it wake idly as often."""
    stays, odd, even = versions()
    folder = laboratory.bundle(
        "wear",
        agent=laboratory.agent_tree(),
        live=on_flash(stays | even),
        odd=sample.tar(odd),
        even=sample.tar(even),
    )
    result = laboratory.measure("wear", folder, BLOCKS, updates, timeout_s=1800)
    if result["ends"] != {"confirmed": updates}:
        raise AssertionError(f"not every update was confirmed: {result['ends']}")
    return Wear(updates, result["erased"], result["idle"])
