"""The campaign: every operation, every torn kind, every scenario, on all cores."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host_sim import ctrl_c
from host_sim.campaigns.powercut.bench import (
    MESSAGE_KINDS,
    Bench,
    Cut,
    Result,
    Snapshot,
    distinct_reports,
)
from host_sim.campaigns.powercut.dimensions import Dimensions, Outcome
from host_sim.campaigns.powercut.scenarios import Scenario
from host_sim.errors import SimError
from host_sim.node import flash_rules
from host_sim.node.flash_rules import TORN_KINDS

#: Operations that one task of a worker covers.
CHUNK = 8
#: So many power cuts in one trial may undo a good update.
TRIAL_CUTS = 3
#: How flash fails without a cut; "ESP" is raised through littlefs, not returned to it.
ERRORS = ("EIO", "ENOSPC", "ESP")
#: What all cuts at one operation cost, and one random cut, in uncut cycles (measured).
_CYCLES_PER_OPERATION = 10.0
_CYCLES_PER_CUT = 2.5
#: How many numbers of operations above the least are tried in a storm.
STORM_MARGIN = 12


@dataclass
class Failure:
    """A cut that the node did not survive as promised."""

    replay: str
    wrong: list[str]

    def __str__(self) -> str:
        return f"{self.replay}: {'; '.join(self.wrong)}"


@dataclass
class Tally:
    """What a part of the campaign came to."""

    cuts: int = 0
    distinct: int = 0
    failures: list[Failure] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)  # the replay id of each
    not_whole: int = 0  # of the cases without a failure, those that say so themselves

    def add(self, other: Tally) -> None:
        """Count `other` in."""
        self.cuts += other.cuts
        self.distinct += other.distinct
        self.failures += other.failures
        self.cases += other.cases
        self.not_whole += other.not_whole


def replay_id(scenario: Scenario | str, cuts: Iterable[Cut]) -> str:
    """What `--replay` takes: the scenario and its cuts."""
    name = scenario if isinstance(scenario, str) else scenario.name
    return "/".join([name, *map(str, cuts)])


class Examiner:
    """Cuts on one bench. Results of equal flash and platform are remembered."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.dimensions = Dimensions(bench)
        self._known: dict[tuple, list[str]] = {}

    def operations(self, scenario: Scenario, start: Snapshot, wakes: int) -> Result:
        """The uncut run from a snapshot, to know how many operations there are to cut."""
        return self.bench.boot(scenario, start, wakes)

    def cut_states(
        self, scenario: Scenario, start: Snapshot, wakes: int, op: int, kinds: Iterable[str]
    ) -> Iterator[tuple[Cut, Snapshot, list[str]]]:
        """What each kind of failure at operation `op` leaves: (cut, snapshot, wrong so far)."""
        probe = Cut(op, "none")
        result = self.bench.boot(scenario, start, wakes, cut=probe, keep_log=True)
        severed = result.run.severed
        if severed is None:
            return
        last, before = severed
        for kind in kinds:
            cut = Cut(op, kind, op if kind in ("bits", "scatter") else 0)
            image = bytearray(result.after.image)
            # As Node.run does it, so that a replay meets the same bits.
            chance = random.Random(f"{cut.seed}:{op}")
            flash_rules.cut_state(image, last, before, kind, chance)
            yield cut, Snapshot(bytes(image), result.after.state), list(result.wrong)

    def finish(self, scenario: Scenario, snapshot: Snapshot) -> tuple[list[str], bool]:
        """What is wrong after the node has had its time; and whether this was a new situation."""
        state = snapshot.state
        key = (
            scenario.name,
            hashlib.sha256(snapshot.image).digest(),
            state.retained,
            tuple(state.reports),
        )
        new = key not in self._known
        if new:
            self._known[key] = self.bench.finish(scenario, snapshot).wrong
        return self._known[key], new

    def sweep(self, name: str, ops: Iterable[int], kinds: Iterable[str]) -> Tally:
        """Cut a scenario's complete cycle at these operations, in each of these ways."""
        tally = Tally()
        scenario = self.bench.scenarios[name]
        start, _ = self.bench.flashed(scenario)
        for op in ops:
            for cut, snapshot, wrong in self.cut_states(
                scenario, start, scenario.wakes, op, kinds
            ):
                after, new = self.finish(scenario, snapshot)
                self._count(tally, [cut], name, wrong + after, new)
        return tally

    def sweep_messages(self, name: str) -> Tally:
        """Cut the power at every message of the node, before and after the platform takes it."""
        tally = Tally()
        scenario = self.bench.scenarios[name]
        start, _ = self.bench.flashed(scenario)
        for kind in MESSAGE_KINDS:
            for number in range(1, 100):
                cut = Cut(number, kind)
                result = self.bench.boot(scenario, start, scenario.wakes, cut=cut)
                if not result.was_cut:
                    break
                after, new = self.finish(scenario, result.after)
                self._count(tally, [cut], name, result.wrong + after, new)
        return tally

    def sweep_pairs(self, name: str, first_op: int, kinds: Iterable[str]) -> Tally:
        """Cut at `first_op` in each way, then at every operation of the recovery, likewise."""
        tally = Tally()
        scenario = self.bench.scenarios[name]
        start, _ = self.bench.flashed(scenario)
        seen: set[bytes] = set()
        for first, snapshot, wrong in self.cut_states(
            scenario, start, scenario.wakes, first_op, kinds
        ):
            if snapshot.image in seen:
                continue
            seen.add(snapshot.image)
            ops = self.operations(scenario, snapshot, scenario.after_cut).run.ops
            for op in range(1, ops + 1):
                for second, after_both, more in self.cut_states(
                    scenario, snapshot, scenario.after_cut, op, kinds
                ):
                    after, new = self.finish(scenario, after_both)
                    self._count(tally, [first, second], name, wrong + more + after, new)
        return tally

    def sample(self, name: str, depth: int, count: int, seed: int) -> Tally:
        """`count` random cases of `depth` cuts in a row."""
        tally = Tally()
        chance = random.Random(f"{name}:{depth}:{seed}")
        scenario = self.bench.scenarios[name]
        begin, _ = self.bench.flashed(scenario)
        total = self.operations(scenario, begin, scenario.wakes).run.ops
        while tally.cuts < count:
            snapshot, wakes, wrong, cuts = begin, scenario.wakes, [], []
            ops = total
            in_trial = 0
            while len(cuts) < depth and ops:
                op, kind = chance.randint(1, ops), chance.choice(TORN_KINDS)
                cut, snapshot, more = next(self.cut_states(scenario, snapshot, wakes, op, [kind]))
                cuts.append(cut)
                in_trial += self.bench.in_trial(scenario, snapshot)
                wrong += more
                wakes = scenario.after_cut
                if len(cuts) < depth:
                    ops = self.operations(scenario, snapshot, wakes).run.ops
            if len(cuts) < depth:
                continue  # everything was done already: there is nothing left to cut
            after, new = self.finish(scenario, snapshot)
            if after and in_trial >= TRIAL_CUTS:
                # As promised: three boots of a trial that no sleep explains end it.
                after = self.bench.finish(scenario.rolled_back(), snapshot).wrong
            self._count(tally, cuts, name, wrong + after, new)
        return tally

    def sweep_errors(
        self, name: str, ops: Iterable[int], persistent: bool, errors: Iterable[str] = ERRORS
    ) -> Tally:
        """Let flash fail in each way at these operations, once or for the rest of the run.

        The power stays on; flash works again at the next power-up.
        """
        tally = Tally()
        scenario = self.bench.scenarios[name]
        start, _ = self.bench.flashed(scenario)
        for op in ops:
            for error in errors:
                result = self.bench.boot(
                    scenario, start, scenario.wakes, fail=(op, error), persistent=persistent
                )
                wrong = [text for text in result.wrong if not text.startswith("traceback")]
                if persistent:
                    # Flash that takes nothing can not be put in order either: the end counts.
                    wrong = [text for text in wrong if not text.startswith("after a boot: mixed")]
                if result.run.error and "ZeroDivisionError" not in result.run.error:
                    wrong.append(f"the application ended: {result.run.error}")
                after = self.bench.boot(scenario, result.after, scenario.after_cut)
                wrong += after.wrong + self.bench.judge_error_end(scenario, after)
                kind = error + ("+" if persistent else "")
                self._count(tally, [Cut(op, kind)], name, wrong, True)
        return tally

    def suffer(self, cases: Iterable[str]) -> Tally:
        """Mishaps, and mishaps with cuts, by their replay ids."""
        tally = Tally()
        for identity in cases:
            try:
                outcome = self.dimensions.examine(identity)
            except SimError as error:  # an image that does not mount, say
                outcome = Outcome([f"can not be judged: {error}"])
            tally.cuts += 1
            tally.distinct += 1
            tally.cases.append(identity)
            tally.not_whole += outcome.not_whole and not outcome.wrong
            if outcome.wrong:
                tally.failures.append(Failure(identity, outcome.wrong))
        return tally

    def mix(self, name: str, dimensions: list[str], count: int, seed: int) -> Tally:
        """`count` random mishaps with a power cut before or after each."""
        return self.suffer(self.dimensions.mix(name, dimensions, count, seed))

    def storm(self, name: str, k: int, most_boots: int = 400) -> tuple[bool, int, list[str]]:
        """Power fails after every k operations: (did the update complete, boots, wrong)."""
        scenario = self.bench.scenarios[name]
        start, judge = self.bench.flashed(scenario)
        result = self.bench.boot(scenario, start, 1, storm=k, max_boots=most_boots, may_go_on=True)
        wrong = list(result.wrong)
        done = judge.which(result.after.image) == "new" and not result.after.state.retained
        if not done and distinct_reports(result.after.state) not in ([], ["2"]):
            wrong.append(f"reports {result.after.state.reports!r} without an update")
        if not done and result.connects < result.run.boots // 2:
            wrong.append(f"main.py spoke in {result.connects} of {result.run.boots} boots only")
        if not done and judge.which(result.after.image) != "old":
            # Power is gone in the middle of a move: the next boot has to put that right.
            after = self.bench.boot(scenario, result.after, 1)
            wrong += after.wrong
        return done, result.run.boots, wrong

    def replay(self, identity: str) -> list[str]:
        """Run one case again by its id, with real cuts all the way; what is wrong with it."""
        name, *texts = identity.split("/")
        if any(text.startswith("@") for text in texts):
            return self.dimensions.examine(identity).wrong
        scenario = self.bench.scenarios.get(name)
        if scenario is None or not texts:
            raise SimError(f"{identity!r} is no replay id: write SCENARIO/OP.KIND[.SEED][/…]")
        snapshot, _ = self.bench.flashed(scenario)
        wakes, wrong, in_trial = scenario.wakes, [], 0
        first = Cut.parse(texts[0])
        if first.kind.rstrip("+") in ERRORS:
            lasts = first.kind.endswith("+")
            tally = self.sweep_errors(name, [first.op], lasts, [first.kind.rstrip("+")])
            return [text for failure in tally.failures for text in failure.wrong]
        for text in texts:
            result = self.bench.boot(scenario, snapshot, wakes, cut=Cut.parse(text))
            if not result.was_cut:
                raise SimError(f"{identity}: there is no operation {text.split('.')[0]} to cut")
            wrong += result.wrong
            snapshot, wakes = result.after, scenario.after_cut
            in_trial += self.bench.in_trial(scenario, snapshot)
        after = self.bench.finish(scenario, snapshot).wrong
        if after and in_trial >= TRIAL_CUTS:
            after = self.bench.finish(scenario.rolled_back(), snapshot).wrong
        return wrong + after

    @staticmethod
    def _count(tally: Tally, cuts: list[Cut], name: str, wrong: list[str], new: bool) -> None:
        tally.cuts += 1
        tally.distinct += new
        identity = replay_id(name, cuts)
        tally.cases.append(identity)
        if wrong:
            tally.failures.append(Failure(identity, wrong))


# -- on all cores --------------------------------------------------------------------------------

_examiner: Examiner | None = None
_bench: Bench | None = None


def _begin_worker(*bench: Any) -> None:
    global _examiner, _bench
    ctrl_c.ignore()
    _bench = Bench(*bench).__enter__()
    _examiner = Examiner(_bench)


def _work(method: str, *arguments: object) -> Any:
    assert _examiner is not None
    return getattr(_examiner, method)(*arguments)


@dataclass
class Row:
    """One line of the result table. `what` says what was done: how many cuts in a row, errors."""

    scenario: str
    title: str
    what: str
    operations: int
    kinds: int
    tally: Tally
    seconds: float


class Campaign:
    """A context manager that owns the worker processes.

    `progress` is called with the share of the work that is done, 0 to 1. `tally` is what the last
    part came to, or has come to so far.
    """

    def __init__(
        self,
        jobs: int | None = None,
        firmware: Path | None = None,
        frozen: bool = False,
        layouts: bool = False,
    ) -> None:
        self.jobs = jobs or os.cpu_count() or 1
        self.tally = Tally()
        self._options = firmware, frozen, layouts
        self._cycles: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> Campaign:
        self._bench = Bench(*self._options).__enter__()
        self._dimensions = Dimensions(self._bench)
        self._pool = ProcessPoolExecutor(
            self.jobs, initializer=_begin_worker, initargs=self._options
        )
        self.scenarios = self._bench.scenarios
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._bench.__exit__()

    def cycle(self, name: str) -> int:
        """How many operations a scenario's complete cycle has. Raises when it fails uncut."""
        if name not in self._cycles:
            scenario = self.scenarios[name]
            start, _ = self._bench.flashed(scenario)
            begin = time.monotonic()
            result = self._bench.boot(scenario, start, scenario.wakes)
            seconds = time.monotonic() - begin
            wrong = result.wrong + self._bench.judge_end(scenario, result, uncut=True)
            if wrong:
                raise SimError(f"{name} fails without a cut: {'; '.join(wrong)}")
            self._cycles[name] = result.run.ops, seconds
        return self._cycles[name][0]

    def estimate(self, name: str, sample: int | None = None) -> tuple[int, float]:
        """About how many single cuts of a scenario there are to try, and seconds that takes."""
        operations = self.cycle(name)
        seconds = self._cycles[name][1] / min(self.jobs, os.cpu_count() or 1)
        if sample:
            return sample, sample * _CYCLES_PER_CUT * seconds
        cuts = operations * len(TORN_KINDS)
        return cuts, operations * _CYCLES_PER_OPERATION * seconds

    def single(
        self,
        name: str,
        kinds: Iterable[str] = TORN_KINDS,
        ops: Iterable[int] | None = None,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """Cut at every operation (or at `ops`), in every way, and at every message."""
        kinds = list(kinds)
        total = self.cycle(name)
        places = list(range(1, total + 1) if ops is None else ops)
        tasks: list[tuple] = [
            ("sweep", name, places[at : at + CHUNK], kinds) for at in range(0, len(places), CHUNK)
        ]
        if ops is None:
            tasks.append(("sweep_messages", name))
        return self._row(name, "1", total, len(kinds), tasks, progress)

    def errors(
        self,
        name: str,
        persistent: bool = False,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """Each of ERRORS at every operation, without a cut."""
        total = self.cycle(name)
        places = list(range(1, total + 1))
        tasks: list[tuple] = [
            ("sweep_errors", name, places[at : at + CHUNK], persistent)
            for at in range(0, total, CHUNK)
        ]
        what = "error, lasting" if persistent else "error"
        return self._row(name, what, total, len(ERRORS), tasks, progress)

    def storm(
        self, name: str, progress: Callable[[float], None] = lambda _share: None
    ) -> tuple[int, int, int]:
        """The smallest number of operations between two cuts at which an update completes.

        Every number below it, and `STORM_MARGIN` from it on, are tried too: it is a border, not a
        lucky place. Returns (that number, the boots it takes, the most boots below it).
        """
        low, high = 1, self.cycle(name) + 1
        seen: dict[int, tuple[bool, int]] = {}

        def judge(k: int, outcome: tuple[bool, int, list[str]]) -> bool:
            done, boots, wrong = outcome
            if wrong:
                raise SimError(f"storm of {k}: {'; '.join(wrong)}")
            seen[k] = done, boots
            return done

        while low < high:
            middle = (low + high) // 2
            if judge(middle, self._pool.submit(_work, "storm", name, middle).result()):
                high = middle
            else:
                low = middle + 1
        rest = {
            self._pool.submit(_work, "storm", name, k): k
            for k in range(1, high + STORM_MARGIN)
            if k not in seen
        }
        for done, future in enumerate(as_completed(rest), 1):
            k = rest[future]
            if judge(k, future.result()) != (k >= high):
                raise SimError(f"storm of {k}: does not fit the border found, {high}")
            progress(done / len(rest))
        return high, seen[high][1], max(boots for k, (_, boots) in seen.items() if k < high)

    def pairs(
        self,
        name: str,
        kinds: Iterable[str] = TORN_KINDS,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """Every pair of a cut in the cycle and a cut in the recovery from it."""
        kinds = list(kinds)
        total = self.cycle(name)
        tasks: list[tuple] = [("sweep_pairs", name, op, kinds) for op in range(1, total + 1)]
        return self._row(name, "2, all pairs", total, len(kinds), tasks, progress)

    def sample(
        self,
        name: str,
        depth: int,
        count: int,
        seed: int = 0,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """`count` random cases of `depth` cuts in a row."""
        total = self.cycle(name)
        portion = 25
        tasks: list[tuple] = [
            ("sample", name, depth, min(portion, count - at), seed * 10**6 + at)
            for at in range(0, count, portion)
        ]
        what = f"{depth}, seed {seed}"
        return self._row(name, what, total, len(TORN_KINDS), tasks, progress)

    def mishaps(
        self,
        name: str,
        dimension: str,
        count: int | None = None,
        seed: int = 0,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """Every mishap of a dimension, or `count` random ones of them."""
        scenario = self.scenarios[name]
        cases = [f"{name}/{mishap}" for mishap in self._dimensions.cases(scenario, dimension)]
        if count and count < len(cases):
            cases = random.Random(f"{name}:{dimension}:{seed}").sample(cases, count)
            dimension += f", seed {seed}"
        tasks: list[tuple] = [
            ("suffer", cases[at : at + CHUNK]) for at in range(0, len(cases), CHUNK)
        ]
        return self._row(name, dimension, self.cycle(name), 0, tasks, progress)

    def mix(
        self,
        name: str,
        dimensions: list[str],
        count: int,
        seed: int = 0,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """`count` random mishaps of these dimensions, each with a power cut before or after it."""
        tasks: list[tuple] = [
            ("mix", name, dimensions, min(CHUNK, count - at), seed * 10**6 + at)
            for at in range(0, count, CHUNK)
        ]
        what = f"{'/'.join(dimensions)} and a cut, seed {seed}"
        total = self.cycle(name)
        return self._row(name, what, total, len(TORN_KINDS), tasks, progress)

    def _row(
        self,
        name: str,
        what: str,
        total: int,
        kinds: int,
        tasks: list[tuple],
        progress: Callable[[float], None],
    ) -> Row:
        begin = time.monotonic()
        futures: list[Future] = [self._pool.submit(_work, *task) for task in tasks]
        tally = self.tally = Tally()
        for done, future in enumerate(as_completed(futures), 1):
            tally.add(future.result())
            progress(done / len(futures))
        title = self.scenarios[name].what
        return Row(name, title, what, total, kinds, tally, time.monotonic() - begin)
