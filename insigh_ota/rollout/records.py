"""What is known of each device that was asked, and what each sign of it changes: one table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from insigh_ota.rollout.gates import Tally, is_grave

_LONGEST_TEXT = 200


class Phase(str, Enum):
    """Where a device is. The value is what the state file has."""

    DUE = "due"
    """Chosen; nothing was sent."""
    SENDING = "sending"
    """The request may have been sent."""
    ASKED = "asked"
    """The request is retained."""
    TAKEN = "taken"
    """The node has begun with it, or the request is gone: an end is due."""
    INSTALLED = "installed"
    """Reported as applied, and not yet proven."""
    SILENT = "silent"
    """No word for too long; the request is still there."""
    LOST = "lost"
    """No word for too long; the node took the request."""
    GOOD = "good"
    FAILED = "failed"
    OTHER = "other"
    """Somebody else's request is in the place of ours: it is left alone."""
    WITHDRAWING = "withdrawing"
    """Its request is to be taken back, where the node has not taken it."""
    WITHDRAWN = "withdrawn"
    """As if never asked, and first to be asked when the rollout goes on."""


class Sign(str, Enum):
    """What was seen or heard of a device."""

    RETAINED = "retained"
    """Our request is on the topic."""
    SENT = "sent"
    """It was published: the broker said so, or gave it back to us."""
    GONE = "gone"
    """It was cleared, by the node or somebody else."""
    BEGUN = "begun"
    APPLIED = "applied"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    OTHER = "other"
    OVERDUE = "overdue"
    """It is time, and the topic was just looked at: our request is there."""
    OVERDUE_GONE = "overdue and gone"
    """The same, and it is not there."""
    SETTLED = "settled"
    """Reported as applied, and nothing was heard against it for long enough."""
    UNHEARD = "unheard"
    """Reported as applied, and the broker does not let us hear whether anything is against it."""
    CLEARED = "cleared"
    """We have taken it back."""
    KEPT = "kept"
    """It could not be taken back: the node has it."""


#: The request is somewhere: with the broker, or with the node.
OUT = frozenset(
    {Phase.SENDING, Phase.ASKED, Phase.TAKEN, Phase.INSTALLED, Phase.SILENT, Phase.LOST}
)
FINAL = frozenset({Phase.GOOD, Phase.FAILED, Phase.OTHER})
_OPEN = (OUT - {Phase.INSTALLED}) | {Phase.DUE, Phase.WITHDRAWING, Phase.WITHDRAWN}
_WAITING = (Phase.SENDING, Phase.ASKED)

#: Signs and phases that are not here change nothing: signs may come late, twice or not at all.
_TABLE: dict[tuple[Phase, Sign], Phase] = {
    **{(p, Sign.FAILED): Phase.FAILED for p in (*_OPEN, Phase.INSTALLED)},
    **{(p, Sign.CONFIRMED): Phase.GOOD for p in (*_OPEN, Phase.INSTALLED)},
    **{(p, Sign.APPLIED): Phase.INSTALLED for p in _OPEN},
    **{(p, Sign.OTHER): Phase.OTHER for p in _OPEN},
    **{(p, Sign.BEGUN): Phase.TAKEN for p in (*_WAITING, Phase.SILENT, Phase.LOST)},
    **{(p, Sign.GONE): Phase.TAKEN for p in (*_WAITING, Phase.SILENT)},
    **{(p, Sign.OVERDUE): Phase.SILENT for p in _WAITING},
    **{(p, Sign.OVERDUE_GONE): Phase.LOST for p in _WAITING},
    (Phase.TAKEN, Sign.OVERDUE): Phase.LOST,
    (Phase.TAKEN, Sign.OVERDUE_GONE): Phase.LOST,
    (Phase.SENDING, Sign.SENT): Phase.ASKED,
    (Phase.SENDING, Sign.RETAINED): Phase.ASKED,
    (Phase.INSTALLED, Sign.SETTLED): Phase.GOOD,
    (Phase.INSTALLED, Sign.UNHEARD): Phase.LOST,
    (Phase.WITHDRAWING, Sign.CLEARED): Phase.WITHDRAWN,
    (Phase.WITHDRAWING, Sign.KEPT): Phase.TAKEN,
}


@dataclass
class Record:
    """One device that was chosen. Times are those of the rollout's clock, in seconds."""

    phase: Phase
    asked: float
    since: float
    text: str = ""
    """Why it failed."""
    seen: bool = False
    """A person has passed its bad end with --go-on."""
    session: bool = False
    """The broker may still keep a session for us as this device."""
    begun: bool = False
    """It was seen to have begun."""
    cleared: bool = False
    """It is lost, and its request, if it still was there, is not any more."""

    def hear(self, sign: Sign, now: float, text: str = "") -> bool:
        """Take one sign in. Returns whether anything is new."""
        after = _TABLE.get((self.phase, sign))
        # Not in WITHDRAWING: there it may be the echo of our own clear.
        if sign in (Sign.BEGUN, Sign.GONE) and self.phase in OUT:
            self.begun = True
        if sign is Sign.BEGUN and self.phase is Phase.TAKEN:
            self.since = now  # it tries again: not silent
            return True
        if after is None or after is self.phase:
            return False
        if sign is Sign.OVERDUE and self.begun:
            after = Phase.LOST
        self.phase, self.since = after, now
        self.text = text[:_LONGEST_TEXT]
        self.seen = False
        return True

    def as_json(self) -> list[Any]:
        """One line of the state file."""
        flags = self.seen | self.session << 1 | self.begun << 2 | self.cleared << 3
        return [self.phase.value, round(self.asked, 2), round(self.since, 2), flags, self.text]

    @classmethod
    def from_json(cls, value: list[Any]) -> Record:
        """The other way. Raises ValueError, TypeError."""
        phase, asked, since, flags, text = value
        bits = (bool(flags & bit) for bit in (1, 2, 4, 8))
        return cls(Phase(phase), float(asked), float(since), str(text), *bits)


def count(tally: Tally, record: Record) -> None:
    """Count a record into its board's tally."""
    phase = record.phase
    if phase is Phase.WITHDRAWN:
        return
    tally.asked += 1
    tally.good += phase is Phase.GOOD
    tally.done += phase in FINAL or phase in (Phase.SILENT, Phase.LOST)
    if record.seen:
        return
    grave = phase is Phase.FAILED and is_grave(record.text)
    tally.grave += grave
    tally.slight += phase is Phase.FAILED and not grave
    tally.lost += phase is Phase.LOST
    tally.absent += phase is Phase.SILENT


def signs(leaf: str, payload: bytes, fuid: str, *, retained: bool) -> list[tuple[Sign, str]]:
    """What a message on a device's topic says about our request; nothing: it is not about it.

    leaf: "ota" or "stat".
    """
    if not payload:
        return [(Sign.GONE, "")] if leaf == "ota" else []
    fields = _fields(payload)
    event, ours = fields.get("e"), fields.get("i") == fuid
    if leaf == "ota":
        if event == 0:
            if not ours:
                return [(Sign.OTHER, f"it was asked for {str(fields.get('i'))[:64]!r}")]
            return [(Sign.RETAINED if retained else Sign.SENT, "")]
        if ours and not retained and event == 1:
            return [(Sign.APPLIED, "")]
        if ours and not retained and event == 2:
            return [(Sign.FAILED, str(fields.get("m") or "no reason was given"))]
    elif ours and event == 0:
        return [(Sign.BEGUN, "")]
    elif ours and event == 1:
        return [(Sign.CONFIRMED if fields.get("c") is True else Sign.BEGUN, "")]
    return []


def _fields(payload: bytes) -> dict[str, Any]:
    """A SenML pack by its names; empty when it is none. A number may be text."""
    try:
        pack = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, Any] = {}
    for element in pack if isinstance(pack, list) else ():
        if isinstance(element, dict) and isinstance(element.get("n"), str):
            values = (element[key] for key in ("v", "vs", "vb") if key in element)
            found[element["n"]] = next(values, None)
    event = found.get("e")
    # Not int(): a node that sends thousands of digits would end the whole rollout with them.
    if event in ("0", "1", "2"):
        found["e"] = int(event)
    return found
