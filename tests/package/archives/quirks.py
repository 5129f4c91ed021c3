"""What can be odd or forbidden in an archive, by name: a table that two modules fill."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.package.archives.wrapping import Wrapped


@dataclass
class Parts:
    """An archive in the making. `end`, `wrap` and `cut` stay as they are for a sound one."""

    members: list[bytes]
    end: bytes | None = None
    wrap: Callable[[random.Random, bytes], Wrapped] | None = None
    cut: bool = False


MakeBytes = Callable[[random.Random], bytes]
QUIRKS: dict[str, Callable[[random.Random, Parts], None]] = {}


def anywhere(name: str, make: MakeBytes) -> None:
    """A quirk that is a member, or several, among the others."""

    def quirk(rng: random.Random, parts: Parts) -> None:
        parts.members.insert(rng.randrange(len(parts.members) + 1), make(rng))

    QUIRKS[name] = quirk


def last(name: str, make: MakeBytes) -> None:
    """A quirk that comes behind all members."""

    def quirk(rng: random.Random, parts: Parts) -> None:
        parts.members.append(make(rng))

    QUIRKS[name] = quirk


def end(name: str, make: MakeBytes) -> None:
    """A quirk in place of a sound end."""

    def quirk(rng: random.Random, parts: Parts) -> None:
        parts.end = make(rng)

    QUIRKS[name] = quirk


def wrap(name: str, make: Callable[[random.Random, bytes], Wrapped]) -> None:
    """A quirk of what the archive is wrapped in."""

    def quirk(rng: random.Random, parts: Parts) -> None:
        parts.wrap = make

    QUIRKS[name] = quirk
