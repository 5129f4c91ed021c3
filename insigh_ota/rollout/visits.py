"""What a rollout does with a device, and what can go wrong with that: for every transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from insigh_ota.rollout.records import Sign

Heard = Sequence[tuple[Sign, str]]


class Task(Enum):
    """What a visit is for."""

    ASK = 1
    LOOK = 2
    LOOK_WELL = 3
    """As LOOK, and whether the request is still there has to be sure."""
    WITHDRAW = 4
    FORGET = 5
    """Nothing but the end of the session that the broker keeps for us."""


class Away(Exception):
    """The broker can not be reached; the text says how that shows."""


class Refused(Exception):
    """The broker does not let this device in."""


class Book(Protocol):
    """What visits tell, from any thread. Ids are those of devices."""

    def heard(self, device_id: str, heard: Heard) -> None:
        """Signs, in their order."""

    def looked(self, device_id: str, task: Task, retained: bool) -> None:
        """All that there was has been heard; whether our request is on the topic."""

    def may_send(self, device_ids: Sequence[str], known: bool) -> list[str]:
        """Which of them get the request now; it is written down that they may have it.

        known: had it been sent before, that would have shown.
        """

    def commit(self) -> None:
        """Return when all that was told is on disk."""

    def is_over(self, device_id: str) -> bool:
        """Whether nothing more is to be heard of it: its session can go."""

    def forgotten(self, device_id: str) -> None:
        """The session is gone."""

    def done(self, device_id: str, error: Exception | None) -> None:
        """The visit is over."""


class Transport(Protocol):
    """Carries out visits."""

    def start(self, tasks: Mapping[str, Task], book: Book) -> None:
        """Begin with these; `book.done` is called for each, perhaps before this returns."""

    def close(self) -> None:
        """Wait for what was begun."""
