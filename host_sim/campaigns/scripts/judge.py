"""The one rule: old or new, one end for each request, nothing left behind."""

from __future__ import annotations

from dataclasses import dataclass

from host_sim.campaigns.scripts.script import Package
from host_sim.console.journal import Message, parse_report
from host_sim.sample import Tree

Flash = tuple[Tree, list[str]]


@dataclass(frozen=True)
class Order:
    """A request as the platform made it."""

    fuid: str
    package: Package


@dataclass(frozen=True)
class End:
    """How a request ended: the events the platform heard of it, without duplicates."""

    events: tuple[int, ...]
    reason: str | None

    @property
    def applied(self) -> bool:
        """Whether its package is to be found on the node."""
        return self.events[-1:] == (1,)

    @property
    def name(self) -> str:
        """In one or two words."""
        if not self.events:
            return "superseded"
        if self.applied:
            return "applied"
        return "rolled back" if (self.reason or "").startswith("rolled back") else "refused"


def judge(
    old: Flash, now: Flash, orders: list[Order], messages: list[Message], retained: bytes | None
) -> tuple[list[End], list[str]]:
    """How each request ended, and what is wrong with the end of them all."""
    reports = [r for r in map(parse_report, messages) if r]
    wrong = []
    unknown = {r.i for r in reports} - {order.fuid for order in orders}
    if unknown:
        wrong.append(f"reports of {sorted(map(str, unknown))}, which nobody asked for")
    ends = []
    for number, order in enumerate(orders, 1):
        heard = list(dict.fromkeys((r.e, r.m) for r in reports if r.i == order.fuid))
        end = End(tuple(e for e, _ in heard), heard[-1][1] if heard else None)
        ends.append(end)
        fault = _fault_of(end, order.package.manner, superseded=number < len(orders))
        if fault:
            wrong.append(f"request {number} ({order.fuid}): {fault}")
    if retained:
        wrong.append(f"still retained: {retained!r}")
    wrong += _fault_of_flash(old, now, orders, ends)
    return ends, wrong


def _fault_of(end: End, manner: str, *, superseded: bool) -> str | None:
    """What is wrong with an end."""
    if not end.events:
        return None if superseded else "no end was heard"
    if end.events == (1,):
        return None if manner == "good" else f"applied, though it is {manner}"
    # What was applied may have to be undone; then that is the end.
    if end.events == (2,) or (
        end.events == (1, 2) and (end.reason or "").startswith("rolled back: ")
    ):
        return None if end.reason else "no reason"
    return f"more than one end: {end.events}, {end.reason}"


def _fault_of_flash(old: Flash, now: Flash, orders: list[Order], ends: list[End]) -> list[str]:
    """What differs from the tree that the platform believes in."""
    files, folders = dict(old[0]), set(old[1])
    for order, end in zip(orders, ends, strict=True):
        if end.applied:
            for name, content in order.package.tree.items():
                files["/" + name] = content
                parts = name.split("/")[:-1]
                folders |= {"/" + "/".join(parts[: n + 1]) for n in range(len(parts))}
    left = [p for p in (*now[0], *now[1]) if p == "/.ota" or p.startswith("/.ota/")]
    there = {p: c for p, c in now[0].items() if p not in left}
    wrong = []
    if left:
        wrong.append("left behind: " + ", ".join(left[:6]))
    different = sorted(p for p in {*files, *there} if files.get(p) != there.get(p))
    if different:
        wrong.append("not the tree that was reported: " + ", ".join(different[:6]))
    odd = folders ^ {p for p in now[1] if p not in left}
    if odd:
        wrong.append("not the folders that were reported: " + ", ".join(sorted(odd)[:6]))
    return wrong
