"""Ctrl-C and soft resets instead of power cuts: at each statement of the boot path, and staging.

The node runs sources with a hook before every statement (:mod:`host_sim.node.keys`). Whoever has
pressed Ctrl-C presses Ctrl-D at the REPL. What comes after is judged as after a power cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from host_sim import ctrl_c
from host_sim.campaigns import campaign
from host_sim.campaigns.powercut.bench import Bench, Cut, Result
from host_sim.campaigns.powercut.campaign import CHUNK, Failure, Row, Tally
from host_sim.campaigns.powercut.scenarios import Scenario
from host_sim.errors import SimError
from host_sim.node import flash
from host_sim.node.flash_rules import TORN_KINDS
from host_sim.node.keys import BOOT_PATH, KINDS, SOFT_RESET, instrument, instrument_agent
from host_sim.node.node import Event

_HEAD = "scenario, tried, places, cases, with a cut or key after it, failures, seconds"
SCENARIOS = ("forty", "boots", "agent", "signed", "undeleted")
#: The sources with hooks are larger.
_MORE_BLOCKS = 96
#: One of so many cases is tried again with more in the boots that follow.
_MORE_EVERY = 3


@dataclass(frozen=True)
class Key:
    """A key at the `at`-th hook of the boot path, or, `in_main`, after operation `at` in main.py.

    `after`: what happens in the boots that follow it: power fails at an operation, or another key,
    which may have something after it, too.
    """

    at: int
    kind: str
    in_main: bool = False
    after: Cut | Key | None = None

    def __str__(self) -> str:
        text = f"{'op' if self.in_main else 'key'}:{self.at}.{self.kind}"
        return f"{text}/{self.after}" if self.after else text

    @property
    def option(self) -> dict:
        """The option of Node.run for it."""
        return {"interrupt_op" if self.in_main else "interrupt": (self.at, self.kind)}

    @classmethod
    def parse(cls, text: str) -> Key:
        """The opposite of `str`."""
        match = re.fullmatch(r"(key|op):(\d+)\.(\w+)(?:/(.+))?", text)
        if not match or match[3] not in KINDS:
            raise SimError(f"{text!r} is no key: write key:N.KIND or op:N.KIND, perhaps /CUT")
        after = match[4] and (cls if ":" in match[4] else Cut).parse(match[4])
        return cls(int(match[2]), match[3], match[1] == "op", after or None)


def is_replay(identity: str) -> bool:
    """Whether a replay id is one of this part of the campaign."""
    return re.search(r"/(key|op):", identity) is not None


def hooked(scenario: Scenario) -> Scenario:
    """The scenario with hooks in what its package brings of the boot path, too."""
    package = {
        name: _hooked(content) if name in BOOT_PATH else content
        for name, content in scenario.package.items()
    }
    return dataclasses.replace(scenario, package=package, blocks=scenario.blocks + _MORE_BLOCKS)


def _hooked(content: bytes) -> bytes:
    # A comment at the end is what makes it another version than the one on flash.
    return instrument(content) + b"# newer\n"


@contextlib.contextmanager
def hooked_bench(firmware: Path = flash.FIRMWARE) -> Iterator[Bench]:
    """A bench whose nodes have hooks."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = instrument_agent(Path(scratch) / "firmware", firmware)
        with Bench(copy) as bench:
            bench.node.hooks = True
            bench.scenarios = {name: hooked(bench.scenarios[name]) for name in SCENARIOS}
            yield bench


class KeyExaminer:
    """Keys on one bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._cycles: dict[str, Result] = {}

    def cycle(self, name: str) -> Result:
        """The run that nobody interrupts; it has to go well."""
        if name not in self._cycles:
            scenario = self.bench.scenarios[name]
            start, _ = self.bench.flashed(scenario)
            result = self.bench.boot(scenario, start, scenario.wakes)
            wrong = result.wrong + self.bench.judge_end(scenario, result, uncut=True)
            if wrong:
                raise SimError(f"{name} fails without a key: {'; '.join(wrong)}")
            self._cycles[name] = result
        return self._cycles[name]

    def places(self, name: str) -> list[Key]:
        """Every case of a scenario, but for what may follow it."""
        run = self.cycle(name).run
        keys = [Key(at, kind) for at in range(1, run.hooks + 1) for kind in KINDS]
        return keys + [Key(at, kind, True) for at in range(1, run.ops + 1) for kind in KINDS]

    def case(self, name: str, key: Key) -> list[str] | None:
        """What is wrong after this key, and what follows it; None when there is no such place."""
        scenario = self.bench.scenarios[name]
        result = self._interrupted(name, key)
        if result is None:
            return None
        wrong, snapshot = result.wrong, result.after
        after = key.after
        while after:
            options: dict = {"cut": after} if isinstance(after, Cut) else after.option
            after = after.after if isinstance(after, Key) else None
            if after:
                options["stop"] = _next_boot()
            result = self.bench.boot(
                scenario,
                snapshot,
                scenario.after_cut,
                cause=_last_cause(result),
                then=SOFT_RESET,
                **options,
            )
            if not {"power_cut", "interrupt"}.intersection(result.run.names()):
                return None
            wrong, snapshot = wrong + result.wrong, result.after
        return wrong + self.bench.finish(scenario, snapshot).wrong

    def _interrupted(self, name: str, key: Key, stop: bool = False) -> Result | None:
        """The cycle with this key in it; when more is to come, only up to the next boot."""
        scenario = self.bench.scenarios[name]
        start, _ = self.bench.flashed(scenario)
        options: dict = dict(key.option)
        stop = stop or key.after is not None
        if stop:
            options["stop"] = _next_boot()
        result = self.bench.boot(scenario, start, scenario.wakes, then=SOFT_RESET, **options)
        names = result.run.names()
        if "interrupt" not in names or (stop and "stopped" not in names):
            return None
        return result

    def _with_more(self, name: str, key: Key, chance: random.Random) -> Key | None:
        """The same with a cut or a key somewhere in what follows; None when nothing does."""
        result = self._interrupted(name, key, stop=True)
        if result is None:
            return None
        scenario = self.bench.scenarios[name]
        rest = self.bench.boot(
            scenario, result.after, scenario.after_cut, cause=_last_cause(result)
        )
        if not rest.run.ops or not rest.run.hooks:
            return None
        after: Cut | Key
        if chance.random() < 0.5:
            op = chance.randint(1, rest.run.ops)
            after = Cut(op, chance.choice(TORN_KINDS), op)
        else:
            after = Key(chance.randint(1, rest.run.hooks), chance.choice(KINDS))
        return dataclasses.replace(key, after=after)

    def sweep(self, name: str, keys: Sequence[Key], seed: int = 0) -> Tally:
        """These cases, one in some of them with a power cut or another key after it, too."""
        tally = Tally()
        chance = random.Random(f"{name}:{seed}:{keys[0]}")
        for key in keys:
            self._count(tally, name, key)
            if chance.randrange(_MORE_EVERY) == 0:
                more = self._with_more(name, key, chance)
                if more:
                    self._count(tally, name, more)
        return tally

    def _count(self, tally: Tally, name: str, key: Key) -> None:
        wrong = self.case(name, key)
        if wrong is None:
            return
        tally.cuts += 1
        tally.distinct += key.after is not None
        identity = f"{name}/{key}"
        tally.cases.append(identity)
        if wrong:
            tally.failures.append(Failure(identity, wrong))

    def replay(self, identity: str) -> list[str]:
        """Run one case again by its id."""
        name, _, text = identity.partition("/")
        if name not in self.bench.scenarios:
            raise SimError(f"{identity!r}: choose from {', '.join(self.bench.scenarios)}")
        wrong = self.case(name, Key.parse(text))
        if wrong is None:
            raise SimError(f"{identity}: nothing is interrupted there")
        return wrong


def _next_boot() -> Callable[[Event], bool]:
    """What stops a run at the boot that follows a key."""
    pressed: list[Event] = []

    def is_next_boot(event: Event) -> bool:
        pressed.extend([event] * (event["event"] == "interrupt"))
        return bool(pressed) and event["event"] == "boot"

    return is_next_boot


def _last_cause(result: Result) -> str:
    return [str(event["cause"]) for event in result.run.events if "cause" in event][-1]


# -- on all cores --------------------------------------------------------------------------------

_examiner: KeyExaminer | None = None
_stack = contextlib.ExitStack()


def _begin_worker(firmware: Path) -> None:
    global _examiner
    ctrl_c.ignore()
    _examiner = KeyExaminer(_stack.enter_context(hooked_bench(firmware)))


def _sweep(name: str, keys: Sequence[Key], seed: int) -> Tally:
    assert _examiner is not None
    return _examiner.sweep(name, keys, seed)


class KeyCampaign:
    """A context manager that owns the worker processes. `tally`: as Campaign's."""

    def __init__(self, jobs: int | None = None, firmware: Path = flash.FIRMWARE) -> None:
        self.tally = Tally()
        self._jobs = jobs or os.cpu_count() or 1
        self._firmware = firmware

    def __enter__(self) -> KeyCampaign:
        with contextlib.ExitStack() as stack:
            self.examiner = KeyExaminer(stack.enter_context(hooked_bench(self._firmware)))
            self._pool = ProcessPoolExecutor(
                self._jobs, initializer=_begin_worker, initargs=(self._firmware,)
            )
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._open.close()

    def run(
        self,
        name: str,
        sample: int | None = None,
        seed: int = 0,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Row:
        """Every case of a scenario, or `sample` of them."""
        begin = time.monotonic()
        keys = self.examiner.places(name)
        if sample:
            keys = random.Random(f"{name}:{seed}").sample(keys, min(sample, len(keys)))
        parts = [keys[at : at + CHUNK] for at in range(0, len(keys), CHUNK)]
        futures = [self._pool.submit(_sweep, name, part, seed) for part in parts]
        tally = self.tally = Tally()
        for done, future in enumerate(as_completed(futures), 1):
            tally.add(future.result())
            progress(done / len(futures))
        run = self.examiner.cycle(name).run
        what = f"{sample} places, seed {seed}" if sample else "all places"
        title = self.examiner.bench.scenarios[name].what
        places = run.hooks + run.ops
        return Row(name, title, what, places, len(KINDS), tally, time.monotonic() - begin)


def table(rows: list[Row]) -> str:
    """The result table, in Markdown."""
    total = Tally()
    lines: list[tuple[object, ...]] = []
    for row in rows:
        total.add(row.tally)
        what = (f"{row.scenario}: {row.title}", row.what, row.operations)
        lines.append((*what, *_figures(row.tally), f"{row.seconds:.0f}"))
    places, seconds = sum(row.operations for row in rows), sum(row.seconds for row in rows)
    lines.append(("**all**", "", places, *_figures(total), f"{seconds:.0f}"))
    return campaign.table(_HEAD, lines)


def _figures(tally: Tally) -> tuple[int, ...]:
    return tally.cuts, tally.distinct, len(tally.failures)
