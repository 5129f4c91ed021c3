"""How many may be asked next, and when to stop: pure decisions on counts, without a clock.

Each board is judged by itself and the fleet as a whole. docs/rollout.md has the rules in words and
what they were measured to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: Reasons of a node that say nothing against the package. What the project's docs/reasons.md
#: lists besides, and whatever no agent of ours says, is held against it.
OF_THE_NODE = ("not enough space", "can not download", "can not connect", "refused")
#: How many of a board are asked first, where the guard leaves room for that.
_CANARIES = 3
#: So many bad ends never stop by their share alone: 1 of 3 is no share.
_GRACE = 3
#: So many stop where not a single one has ended well.
_NONE_GOOD = 2
#: The first percents in which one failure of the package stops.
_STRICT = 5
_STRICT_GROWTH, _GROWTH = 1.5, 2.0


@dataclass(frozen=True)
class Rules:
    """What a person may set. Shares in percent."""

    waves: tuple[float, ...] = (5, 25, 50, 100)
    max_failed: float = 2
    max_silent: float = 10
    guard: float = 1
    """No more than this share is asked before all of these have ended."""


@dataclass
class Tally:
    """What became of a board's devices."""

    size: int
    asked: int = 0
    """Also those that are just being asked; not those whose request was withdrawn."""
    good: int = 0
    done: int = 0
    """Ended in any way or silent: asked - done are out."""
    # Of the bad ends those that no person has passed with --go-on:
    grave: int = 0
    """The package failed."""
    slight: int = 0
    """The node could not take it."""
    lost: int = 0
    """It took the request and fell silent."""
    absent: int = 0
    """Silent, and the request is still there."""

    @property
    def out(self) -> int:
        """Asked, without an end so far."""
        return self.asked - self.done

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


@dataclass(frozen=True)
class Decision:
    """`stop`: why; else `ask`: so many more of each board; neither: wait, or `over`."""

    wave: int = 0
    """From 0."""
    ask: Mapping[str, int] = field(default_factory=dict)
    stop: str = ""
    over: bool = False


def is_grave(reason: str) -> bool:
    """Whether a failure's reason speaks against the package."""
    return not reason.startswith(OF_THE_NODE)


def decide(boards: Mapping[str, Tally], rules: Rules) -> Decision:
    """What to do now."""
    fleet = sum(boards.values(), Tally(0))
    if stop := _stop(boards, fleet, rules):
        return Decision(stop=stop)
    if fleet.asked == fleet.size:
        return Decision(len(rules.waves) - 1, over=fleet.out == 0)
    guard = _guard(boards, fleet, rules)
    canaries = _canaries(boards, guard)
    room = fleet.size
    if fleet.asked <= guard:
        if fleet.out:
            return Decision()
        # Full: all of the first percent have ended, and none of them was a reason to stop.
        room = guard - fleet.asked or room
    growth = _STRICT_GROWTH if _is_strict(boards, fleet, guard, rules) else _GROWTH
    for number, share in enumerate(rules.waves):
        wanted: dict[str, int] = {}
        settled = True
        for name, board in boards.items():
            calm = board.out <= board.asked * rules.max_silent / 100
            settled &= calm
            target = _target(board, share, canaries)
            if calm and board.asked < target:
                step = max(canaries, math.ceil(board.good * (growth - 1)))
                wanted[name] = min(step, target - board.asked)
            settled &= board.asked >= target
        if wanted:
            return Decision(number, _share_out(wanted, boards, room))
        if not settled:
            return Decision(number)
    return Decision(len(rules.waves) - 1)


def _stop(boards: Mapping[str, Tally], fleet: Tally, rules: Rules) -> str:
    guard = _guard(boards, fleet, rules)
    if _is_strict(boards, fleet, guard, rules):
        for name, board in boards.items():
            if board.grave or board.lost:
                what = "failed with this package" if board.grave else "took it and fell silent"
                count = board.grave or board.lost
                return (
                    f"{count} of {board.asked} asked{_of(name)} {what}: among the first "
                    f"{_STRICT} % one is enough"
                )
    for name, board in [*boards.items(), ("", fleet)]:
        failed = board.grave + board.slight
        if _too_many(failed, board, rules.max_failed):
            return f"{failed} of {board.asked} asked{_of(name)} failed: {_limit(rules.max_failed)}"
        silent = board.lost + board.absent
        if _too_many(silent, board, rules.max_silent):
            return (
                f"{silent} of {board.asked} asked{_of(name)} fell silent: "
                f"{_limit(rules.max_silent)}"
            )
        if failed + silent >= _NONE_GOOD and not board.good and not board.out:
            return f"{failed + silent} of {board.asked} asked{_of(name)}, and none has ended well"
    return ""


def _too_many(bad: int, board: Tally, percent: float) -> bool:
    return bad > _GRACE and bad > board.asked * percent / 100


def _guard(boards: Mapping[str, Tally], fleet: Tally, rules: Rules) -> int:
    """How many may be asked before all of these have ended: one of each board in any case."""
    return max(len(boards), int(fleet.size * rules.guard / 100))


def _is_strict(boards: Mapping[str, Tally], fleet: Tally, guard: int, rules: Rules) -> bool:
    share, canaries = min(_STRICT, rules.waves[0]), _canaries(boards, guard)
    first = sum(_target(board, share, canaries) for board in boards.values())
    return fleet.asked <= max(guard, first)


def _canaries(boards: Mapping[str, Tally], guard: int) -> int:
    return _CANARIES if guard >= _CANARIES * len(boards) else 1


def _target(board: Tally, percent: float, canaries: int) -> int:
    """How many of a board a wave asks: in any case enough to speak for it."""
    return max(math.ceil(board.size * percent / 100), min(canaries, board.size))


def _share_out(wanted: dict[str, int], boards: Mapping[str, Tally], room: int) -> dict[str, int]:
    """What of it fits the room: the boards of which least has been asked first."""
    if sum(wanted.values()) <= room:
        return wanted
    given = dict.fromkeys(wanted, 0)
    for _ in range(room):
        open_ = [name for name in wanted if given[name] < wanted[name]]
        given[min(open_, key=lambda name: boards[name].asked + given[name])] += 1
    return {name: count for name, count in given.items() if count}


def _of(name: str) -> str:
    return f" of board {name}" if name else ""


def _limit(percent: float) -> str:
    return f"more than {percent:g} %"


def _values(tally: Tally) -> Iterable[int]:
    return vars(tally).values()
