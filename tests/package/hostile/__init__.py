"""Hostile archives, one function each, in a table with the reason that each must meet."""

from __future__ import annotations

# Imported for what they put into the table.
from tests.package.hostile import (  # noqa: F401
    bodies,
    bombs,
    conflicts,
    contents,
    extensions,
    headers,
    kinds,
    names,
    protected,
    streams,
)
from tests.package.hostile.lookalikes import LOOKALIKES
from tests.package.hostile.registry import ATTACKS, Attack

__all__ = ["ATTACKS", "LOOKALIKES", "Attack"]
