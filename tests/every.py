"""Which of many cases that are alike a test tries: a sample as a rule, all of them by hand."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def sample(cases: Sequence[T], part: int) -> list[T]:
    """One case of `part`, the same ones each time; all where EVERY is in the environment."""
    if "EVERY" in os.environ:
        return list(cases)
    chosen = random.Random(part).sample(range(len(cases)), -(-len(cases) // part))
    return [cases[n] for n in sorted(chosen)]
