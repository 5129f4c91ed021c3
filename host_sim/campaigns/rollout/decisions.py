"""The decisions of a rollout alone, without broker or clock: hundreds of seeds in minutes."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from host_sim.campaigns import campaign
from host_sim.campaigns.rollout.cases import ABSENT, GOOD, GRAVE, LOST, SLIGHT, Case, Course
from insigh_ota.rollout.gates import Rules, Tally, decide

_AT_A_TIME = 100


def simulate(case: Case, size: int, seed: int, rules: Rules) -> Course:
    """One rollout. Every request that is out counts, also where a stop would withdraw it in time.

    Ends come in random order; those of silent nodes when nothing else happens.
    """
    nodes = case.fleet(size, seed)
    chance = random.Random(seed)
    waiting: dict[str, list[str]] = {}
    for board, end in nodes:
        waiting.setdefault(board, []).append(end)
    tallies = {board: Tally(len(ends)) for board, ends in sorted(waiting.items())}
    for ends in waiting.values():
        chance.shuffle(ends)
    soon: list[tuple[str, str]] = []
    late: list[tuple[str, str]] = []
    course = Course(0, size, "")
    while True:
        decision = decide(tallies, rules)
        if decision.stop or decision.over:
            course.stop = decision.stop
            course.asked = sum(tally.asked for tally in tallies.values())
            return course
        if decision.ask:
            course.steps += 1
            for board, count in decision.ask.items():
                chosen = [(board, waiting[board].pop()) for _ in range(count)]
                tallies[board].asked += count
                soon += [pair for pair in chosen if pair[1] not in (ABSENT, LOST)]
                late += [pair for pair in chosen if pair[1] in (ABSENT, LOST)]
            chance.shuffle(soon)
            continue
        # In a large step many ends are heard before the next decision.
        for _ in range(1 + len(soon) // _AT_A_TIME):
            board, end = soon.pop() if soon else late.pop(0)
            _count(tallies[board], end)


def _count(tally: Tally, end: str) -> None:
    tally.done += 1
    tally.good += end == GOOD
    tally.grave += end == GRAVE
    tally.slight += end == SLIGHT
    tally.lost += end == LOST
    tally.absent += end == ABSENT


def row(case: Case, courses: Sequence[Course]) -> list[object]:
    """A line of the table."""
    shares = sorted(course.percent for course in courses)
    kept = sum(course.asked <= course.size // 100 for course in courses) / len(courses)
    stopped = sum(bool(course.stop) for course in courses)
    return [
        case.words,
        f"{stopped} of {len(courses)}",
        f"{100 * kept:.1f} %" if case.stops else "",
        f"{statistics.median(shares):.2f} %",
        f"{shares[int(0.95 * len(shares))]:.2f} %",
        f"{shares[-1]:.2f} %",
        f"{statistics.mean(course.steps for course in courses):.0f}",
    ]


def table(cases: Sequence[Case], size: int, seeds: int, rules: Rules) -> str:
    """All cases, each with so many seeds."""
    head = "the package, stopped, at most 1 % asked, median asked, 95 % of runs, worst, steps"
    rows = [
        row(case, [simulate(case, size, seed, rules) for seed in range(seeds)]) for case in cases
    ]
    return campaign.table(head, rows)
