"""The fleet's day: all connect, all are asked at once, and then all lose their broker at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import sample
from host_sim.campaigns.badlink.lane import NOT_CLEARED
from host_sim.campaigns.fleet.crew import Crew, End
from host_sim.campaigns.fleet.member import Member, digest, main_py
from host_sim.campaigns.fleet.memory import MemoryWatch, Peak
from host_sim.node import flash

_BLOCKS = 128

#: What the package brings beside `main.py`.
_FILES = {"data/table.bin": 12_000, "lib/new/driver.bin": 3_000, "data/small.txt": 40}


@dataclass(frozen=True)
class Plan:
    """A fleet of `nodes`, a `cut_share` of them on links that break; `retry_s` is the first
    window for their pauses; the broker is away for `down_s`.
    """

    nodes: int
    cut_share: float
    retry_s: int
    down_s: float


@dataclass
class Result:
    """What was seen. `wrong` is empty when all was as it has to be; times in seconds."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    connect_s: float = 0.0
    """From the start of the first node until all were connected at a time."""
    ask_s: float = 0.0
    """How long it took the platform to ask all of them."""
    reported_s: list[float] = field(default_factory=list)
    """When each node on a good link had reported its end, counted from the first request."""
    reported_cut_s: list[float] = field(default_factory=list)
    """The same, of those on links that break."""
    confirmed_s: float = 0.0
    """When the last one had confirmed the new version."""
    downloads: int = 0
    """Downloads begun, those that were taken up again included."""
    laters: int = 0
    """How often a node left it for later before the broker was lost."""
    down_s: float = 0.0
    """How long the broker was away, from the loss until it answered again."""
    back_s: list[float] = field(default_factory=list)
    """When each node was in touch again, counted from the loss of the broker."""
    memory: Peak = field(default_factory=Peak)


class Fleet(Crew):
    """One package and one flash for all; `run` is the whole story."""

    def __init__(self, plan: Plan, tell: Callable[[str], object] = lambda _text: None) -> None:
        self._plan = plan
        chance = random.Random(plan.nodes)
        cut = set(chance.sample(range(plan.nodes), round(plan.nodes * plan.cut_share)))
        super().__init__([Member(n, n in cut) for n in range(plan.nodes)], tell)

    def run(self) -> Result:
        """Connect, ask, lose the broker, and look at what has become of them."""
        result = Result(self._plan)
        with MemoryWatch() as watch:
            result.connect_s = self._connect()
            watch.measure_shared()
            self._bring(result)
            self._lose_broker(result)
            result.memory = watch.peak
        result.wrong += self._wrong()
        return result

    def _build(self) -> tuple[bytes, str, list[tuple[Path, list[Member]]]]:
        chance = random.Random("fleet")
        old = {"main.py": main_py(1), "data/table.bin": chance.randbytes(12_000)}
        package = {"main.py": main_py(2)}
        package |= {name: chance.randbytes(size) for name, size in _FILES.items()}
        image = self._image("fleet", old, blocks=_BLOCKS, retry_s=self._plan.retry_s)
        files, folders = flash.read_all(image)
        files |= {"/" + name: content for name, content in package.items()}
        expected = digest(files, [*folders, "/lib", "/lib/new"])
        return sample.tar_gz(package), expected, [(image, self._members)]

    def _bring(self, result: Result) -> None:
        began, result.ask_s = self._ask()
        reported = self._all("report", began, "reported")
        confirmed = self._all("confirm", began, "confirmed")
        for member in self._members:
            times = result.reported_cut_s if member.cut else result.reported_s
            times.append(reported[member.number] - began)
        result.confirmed_s = max(confirmed.values()) - began
        result.downloads = len(self._console.downloads)
        result.laters = self._counts["later"]
        self._tell(f"all have confirmed the new version, {result.confirmed_s:.1f} s")

    def _lose_broker(self, result: Result) -> None:
        # Those that confirmed last are to be in the middle of their listening.
        time.sleep(1.5)
        began = time.monotonic()
        with self._console.broker_down():
            self._tell("the broker is gone")
            time.sleep(max(0.0, self._plan.down_s - (time.monotonic() - began)))
        result.down_s = time.monotonic() - began
        self._tell(f"the broker is back after {result.down_s:.1f} s")
        back = self._all("contact", began, "come back", value="idle")
        result.back_s = sorted(t - began for t in back.values())
        self._tell(f"the last node is back after {result.back_s[-1]:.1f} s")

    def _is_end(self, ends: list[End]) -> bool:
        # A link that is cut at the clear looks like a broker that keeps the request, and one that
        # is cut at a report has it sent again.
        once = list(dict.fromkeys(ends))
        return super()._is_end(once) or once == [(1, self._fuid, NOT_CLEARED)]
