"""The rule: what was withdrawn before the commit is not installed, all else has one end.

Some orders of messages and cuts nobody can tell from others (docs/mishaps.md, "Nothing wiped"). Of
a request that met one of them two ends are right; they are counted, so that nobody can hide there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from host_sim.campaigns.orders.broker import Change
from host_sim.campaigns.orders.script import Package


@dataclass
class Order:
    """A request. `asked` and `gone` are numbers of the story; `gone` is None while it stands."""

    fuid: str
    package: Package
    payload: bytes = field(repr=False)
    asked: int
    gone: int | None = None


@dataclass(frozen=True)
class End:
    """What became of a request: the events the platform heard of it, without duplicates."""

    events: tuple[int, ...]
    withdrawn: bool
    excused: bool

    @property
    def name(self) -> str:
        """In one or two words."""
        end = {(): "no end", (1,): "applied", (2,): "failed", (1, 2): "rolled back"}
        name = end.get(self.events, "several ends")
        return ("withdrawn, " if self.withdrawn else "") + name + ", excused" * self.excused


def judge(orders: list[Order], story: list[Change], report: str) -> tuple[list[End], list[str]]:
    """How each request ended, and what is wrong with that."""
    ends, wrong = [], []
    for number, order in enumerate(orders, 2):
        end, faults = _judge(order, story, report)
        ends.append(end)
        wrong += [f"version {number} ({order.fuid}): {fault}" for fault in faults]
    known = {order.fuid for order in orders}
    for _, fuid, _ in map(_report, _of(story, "report")):
        if fuid not in known:
            wrong.append(f"a report of {fuid}, which nobody asked for")
    return ends, wrong


def _judge(order: Order, story: list[Change], report: str) -> tuple[End, list[str]]:
    reports = [c for c in _of(story, "report") if _report(c)[1] == order.fuid]
    # What m says of an `e:1` may have changed when it is sent once more after a cut.
    told = dict.fromkeys((e, m if e == 2 else None) for e, _, m in map(_report, reports))
    events = tuple(e for e, _ in told)
    downloads = [c.number for c in _of(story, "download") if c.payload.decode() == order.fuid]
    taken, told = _taken(order, story, downloads)
    gone = order.gone
    before = gone is not None and (taken is None or gone < taken)
    ran = any(c.payload == b"boot %d" % order.package.version for c in _of(story, "step"))
    excused = _excused(order, story)
    wrong = []
    if before and not excused:
        # It may have failed by itself before anybody withdrew it.
        if ran or 1 in events:
            wrong.append("installed, though it was withdrawn before the commit")
        if events not in ((), (2,)):
            wrong.append(f"withdrawn, and reported: {events}")
    elif not (events == () and (excused or (gone is not None and not told))):
        wrong += _wrong_end(order, events, report)
    if reports and any(number > reports[0].number for number in downloads):
        wrong.append("fetched again after its end")
    return End(events, before, excused), wrong


def _wrong_end(order: Order, events: tuple[int, ...], report: str) -> list[str]:
    right: dict[str, tuple[tuple[int, ...], ...]] = {
        "good": ((1,),),
        "unchanged": ((1,),),
        "damaged": ((2,),),
        "crashes": ((2,),) if report == "confirmed" else ((1, 2), (2,)),
    }
    if events in right[order.package.manner]:
        return []
    # A node that lost its power too often, or could not ask before the commit, says so.
    if events in ((2,), (1, 2)) and order.package.manner != "damaged":
        return [f"ended as {events}, though it is {order.package.manner}"]
    return [f"ended as {events}" if events else "no end was heard"]


def _taken(order: Order, story: list[Change], downloads: list[int]) -> tuple[int | None, bool]:
    """(From which moment on it is too late to withdraw: the last answer before the commit; whether
    the node has told that it came so far). After a cut without that, two ends are right.
    """
    looked = first = None
    cut = False
    last = downloads[-1] if downloads else None
    for change in story:
        if last is None or change.number < last:
            continue
        cut |= change.what == "power"
        if change.what == "ping":
            looked = change.number
            first = first or looked
        elif change.what in ("step", "report"):
            text = change.payload.decode()
            if text.startswith("commit "):
                return looked, True
            if change.what == "report":
                return first, True  # nothing has changed, so there was no commit
            if text.startswith("boot "):
                break
    # Where nothing has changed the end is on flash after the first answer; what follows is for
    # the clear.
    return (first if order.package.manner == "unchanged" else looked), not cut


def _excused(order: Order, story: list[Change]) -> bool:
    """Whether it came between a fence and the end of a clear that nobody could hear to its end."""
    at = next(c.number for c in story if c.number >= order.asked and c.payload == order.payload)
    pings = [c.number for c in _of(story, "ping")]
    since = max((n for n in pings if n < at), default=-1)
    until = min((n for n in pings if n > at), default=len(story))
    between = story[since + 1 : until]
    cut = any(c.what in ("end", "power") and c.number > at for c in between)
    cleared = any(c.what == "retained" and c.by_node and not c.payload for c in between)
    withdrawn = order.gone is not None and order.gone < until
    clearing = cleared or any(c.what == "clearing" for c in between)
    return (clearing and cut) or (cleared and withdrawn)


def _of(story: list[Change], what: str) -> list[Change]:
    return [change for change in story if change.what == what]


def _report(change: Change) -> tuple[int, str, str | None]:
    pack = {entry["n"]: entry.get("v", entry.get("vs")) for entry in json.loads(change.payload)}
    return pack["e"], pack["i"], pack.get("m")
