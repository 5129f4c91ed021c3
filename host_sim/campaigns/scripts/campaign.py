"""Many scripts, on all cores."""

from __future__ import annotations

import multiprocessing
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Any

from host_sim import ctrl_c
from host_sim.campaigns.scripts.bench import Outcome
from host_sim.errors import SimError


@dataclass
class Tally:
    """What a number of scripts came to."""

    scripts: int = 0
    wakes: int = 0
    boots: int = 0
    power_cuts: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    longest_boot_s: float = 0.0
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one in."""
        self.scripts += 1
        self.wakes += outcome.wakes
        self.boots += outcome.boots
        self.power_cuts += outcome.power_cuts
        self.ends.update(end.name for end in outcome.ends)
        self.longest_boot_s = max(self.longest_boot_s, outcome.longest_boot_s)
        if outcome.wrong:
            self.failures.append(outcome)

    def __str__(self) -> str:
        ends = ", ".join(f"{n} {name}" for name, n in sorted(self.ends.items()))
        # Nobody measures it in `orders`.
        longest = f"; longest boot {self.longest_boot_s:.1f} s" if self.longest_boot_s else ""
        return (
            f"{self.scripts} scripts, {len(self.failures)} failures: {self.wakes} wakes, "
            f"{self.boots} boots, {self.power_cuts} power cuts; "
            f"{self.ends.total()} requests: {ends}{longest}"
        )


def run_all(
    seeds: list[int], jobs: int, bench: Callable[[], AbstractContextManager[Any]]
) -> Iterator[Any]:
    """The outcome of each seed on a bench of each of so many processes, as they come."""
    # Not forked: that would take along half of what the threads here are doing.
    context = multiprocessing.get_context("spawn")
    queue: SimpleQueue[Any] = context.SimpleQueue()
    stop = context.Event()
    shares = [share for n in range(jobs) if (share := seeds[n::jobs])]
    workers = [context.Process(target=_work, args=(share, bench, queue, stop)) for share in shares]
    with ctrl_c.shielded():
        for worker in workers:
            worker.start()
    try:
        for _ in seeds:
            outcome = queue.get()
            if isinstance(outcome, str):
                raise SimError(f"the bench itself failed:\n{outcome}")
            yield outcome
    finally:
        stop.set()  # each has a broker to end
        for worker in workers:
            worker.join()


def _work(seeds: list[int], bench: Callable, queue: SimpleQueue, stop: Event) -> None:
    try:
        with bench() as ready:
            for seed in seeds:
                if stop.is_set():
                    return
                queue.put(ready.run(seed))
    except SimError as error:
        queue.put(str(error))
    except Exception:
        queue.put(traceback.format_exc())
