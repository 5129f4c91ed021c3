"""One MicroPython process that runs cases, a watchdog over it, and what it told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from host_sim.errors import SimError
from host_sim.node.boot import Boot
from host_sim.node.session import heap_option


@dataclass(frozen=True)
class Target:
    """What is fuzzed: its share of a run's cases, and the heap that it has to do with."""

    what: str
    share: float
    heap: str
    batch: int  # cases between two signs of life


TARGETS = {
    "headers": Target("one mutated tar header, the sum mostly repaired", 0.31, "256K", 250),
    "sequences": Target("sequences of headers, made-up PAX and GNU ones too", 0.16, "320K", 250),
    "streams": Target("whole tar archives, read as the agent reads", 0.08, "384K", 100),
    "compressed": Target("gzip, zlib and microfreezer's format, likewise", 0.06, "320K", 50),
    "requests": Target("MQTT payloads", 0.1, "192K", 250),
    "responses": Target("HTTP answers, redirects included", 0.08, "192K", 100),
    "names": Target("names of members", 0.11, "192K", 250),
    "patches": Target("patches of files, and what the packager makes of them", 0.06, "192K", 100),
    "indexes": Target(
        "indexes of packages, and what the packager wants by them", 0.03, "192K", 100
    ),
    "records": Target("records that hold an index", 0.01, "192K", 100),
}


@dataclass(frozen=True)
class Failure:
    """A case that broke a rule."""

    replay: str
    what: str
    trace: str = ""

    def __str__(self) -> str:
        return f"{self.replay}: {self.what}"


@dataclass
class Tally:
    """What came of the cases of one target. Heap figures in bytes."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    heap: int = 0  # in use after a collection, the most that was seen
    growth: int = 0  # from the second look on, the most of one process

    def add(self, other: Tally) -> None:
        """Count another part of the same target in."""
        self.cases += other.cases
        self.seconds += other.seconds
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.heap = max(self.heap, other.heap)
        self.growth = max(self.growth, other.growth)


class Device:
    """One process and what it told."""

    def __init__(
        self, target: str, seed: int, progress: Callable[[str, int], object] = lambda *_: None
    ) -> None:
        self.target = target
        self.seed = seed
        self.at = 0
        self.ended = True  # by itself, not silenced by a hang or a crash
        self.silence = ""
        self.failures: list[Failure] = []
        self.data = self.outcome = ""
        self._progress = progress
        self._first = 0
        self._heaps: list[int] = []
        self._outcomes: dict[str, int] = {}
        self._text = ""
        self._noise: list[str] = []
        self._boot: Boot | None = None

    def run(
        self, code: str, first: int, more_heap: int, limit_s: float, stop: threading.Event
    ) -> None:
        """Run `code`, a call of runner.run(), and hear it out.

        more_heap: bytes beyond the target's heap; limit_s: the longest silence.
        """
        self.at = self._first = first
        self.ended = False

        def relay(text: str) -> None:
            boot.deadline = time.monotonic() + limit_s
            *lines, self._text = (self._text + text).split("\n")
            for line in lines:
                self._hear(line)
            if stop.is_set():
                boot.kill()

        boot = self._boot = Boot(
            [*heap_option(TARGETS[self.target].heap, more_heap), "-c", code],
            {},
            [],
            relay=relay,
            report=lambda _: False,
            deadline=time.monotonic() + limit_s,
        )
        end = boot.run()
        if stop.is_set():
            self.ended = True
        elif end.why == "timeout":
            self.silence = f"hangs: no sign of life for {limit_s:g} s"
        elif not self.ended:
            if not self._heaps:
                raise SimError(f"fuzzing {self.target} does not begin: {self._last_words()}")
            self.silence = f"the interpreter ended with status {boot.status}: {self._last_words()}"

    def interrupt(self) -> None:
        """From another thread: have the process raise KeyboardInterrupt where it is."""
        if self._boot:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._boot.pid, signal.SIGINT)

    def _hear(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:  # the interpreter's own last words
            self._noise.append(line)
            return
        if "at" in told:
            self._advance(told["at"])
            self._heaps.append(told["heap"])
        elif "failed" in told:
            replay = f"{self.target}/{self.seed}/{told['failed']}"
            self.failures.append(Failure(replay, told["what"], told["trace"]))
        elif "data" in told:
            self.data = told["data"]
        elif "outcome" in told:
            self.outcome = told["outcome"]
        else:
            self._advance(told["end"])
            self._outcomes = told["outcomes"]
            self.ended = True

    def _last_words(self) -> str:
        return " ".join([*self._noise, self._text]).strip()

    def _advance(self, at: int) -> None:
        self._progress(self.target, at - self.at)
        self.at = at

    def count_into(self, tally: Tally) -> None:
        """Add what was told to a tally."""
        heaps = self._heaps[1:] or self._heaps
        growth = max(heaps) - heaps[0] if heaps else 0
        tally.add(
            Tally(
                self.target,
                self.at - self._first,
                0.0,
                Counter(self._outcomes),
                self.failures,
                max(heaps, default=0),
                growth,
            )
        )
