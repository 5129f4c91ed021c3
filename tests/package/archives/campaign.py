"""Many archives, by seed and number: generated, read by both readers, judged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import ctrl_c
from tests.package.archives.generate import make
from tests.package.archives.judge import Verdict, judge
from tests.package.archives.readers import DeviceReading, Reading, read_here, read_on_device

#: Archives that one interpreter reads.
CHUNK = 250
FIRMWARE = Path(__file__).parents[3] / "firmware"


@dataclass
class Tally:
    """What a number of comparisons came to."""

    archives: int = 0
    members: int = 0
    found: Counter[str] = field(default_factory=Counter)
    wrappings: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str]] = field(default_factory=list)  # identity, what is wrong

    def add(self, other: Tally) -> None:
        """Count `other` in."""
        self.archives += other.archives
        self.members += other.members
        self.found += other.found
        self.wrappings += other.wrappings
        self.wrong += other.wrong


def compare(identities: Iterable[str], agent: Path = FIRMWARE) -> Tally:
    """Compare these archives, in one interpreter. agent: the folder to import `ota` from."""
    archives = [make(identity) for identity in identities]
    readings = read_on_device(
        agent, [a.wrapped.data for a in archives], [a.noise for a in archives]
    )
    tally = Tally(len(archives))
    for archive, device in zip(archives, readings, strict=True):
        verdict = judge(archive.wrapped, read_here(archive.wrapped), device)
        tally.members += len(device.members)
        tally.found.update(verdict.found)
        tally.wrappings[archive.wrapped.kind] += 1
        if verdict.wrong:
            tally.wrong.append((archive.identity, verdict.wrong))
    return tally


def examine(identity: str) -> tuple[list[str], Reading, DeviceReading, Verdict]:
    """(what is odd in it, CPython's reading, the device's, the verdict) of one archive."""
    archive = make(identity)
    here = read_here(archive.wrapped)
    (device,) = read_on_device(FIRMWARE, [archive.wrapped.data], [archive.noise])
    return (
        [archive.wrapped.kind, *archive.quirks],
        here,
        device,
        judge(archive.wrapped, here, device),
    )


def run(count: int, seed: int, jobs: int | None, progress: Callable[[int], object]) -> Tally:
    """Compare `count` archives on all cores; progress is called with how many are done."""
    total = Tally()
    numbers = range(count)
    with ProcessPoolExecutor(jobs or os.cpu_count(), initializer=ctrl_c.ignore) as pool:
        chunks = [
            pool.submit(compare, [f"{seed}/{n}" for n in numbers[at : at + CHUNK]])
            for at in range(0, count, CHUNK)
        ]
        for chunk in as_completed(chunks):
            total.add(chunk.result())
            progress(total.archives)
    total.wrong.sort(key=lambda case: int(case[0].rpartition("/")[2]))
    return total
