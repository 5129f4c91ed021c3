"""The table: each attack is a function that builds its archive, with the reason it must meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One hostile archive.

    `reason`: what the node's reason begins with. `announced`: the request's size as bytes more (or
    less) than the body has. `length`: whether the server tells the body's own length. `protected`:
    what the node's configuration protects beside itself.
    """

    build: Callable[[], bytes]
    reason: str
    announced: int
    length: bool
    protected: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.build.__name__

    @property
    def about(self) -> str:
        return (self.build.__doc__ or "").strip()


ATTACKS: list[Attack] = []
BAD = "can not apply: bad archive, "


def hostile(
    reason: str, *, announced: int = 0, length: bool = False, protected: tuple[str, ...] = ()
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Put a builder into the table."""

    def register(build: Callable[[], bytes]) -> Callable[[], bytes]:
        ATTACKS.append(Attack(build, reason, announced, length, protected))
        return build

    return register
