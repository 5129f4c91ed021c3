"""What a campaign consists of: parts with many cases, run side by side on lanes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Outcome:
    """What one case came to: `wrong` is empty when nothing was."""

    case: str
    wrong: tuple[str, ...] = ()
    slow: str = ""
    """What took longer than it may: on a busy machine that has to be seen twice."""
    seconds: float = 0.0
    again: int = 0
    """What came more than once: bytes of a body, or reports."""
    cuts: int = 1

    @property
    def replay(self) -> str:
        """What runs it again."""
        return self.case

    def __str__(self) -> str:
        return f"{self.case}: {'; '.join((*self.wrong, self.slow))}"


class Part(Protocol):
    """A context manager that can open lanes, each of which runs one case at a time."""

    name: str
    what: str
    lanes: int

    def cases(self) -> list[str]:
        """The ids of all cases; a case says everything that its replay needs."""

    def open_lane(self, stack: contextlib.ExitStack) -> Callable[[str], Outcome]:
        """Something that runs cases, until the stack is closed."""

    def summary(self, outcomes: list[Outcome]) -> str:
        """The figures of all outcomes, for people."""


@dataclass
class Result:
    """All outcomes of a part."""

    part: str
    what: str
    seconds: float = 0.0
    summary: str = ""
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        """Those in which something was wrong."""
        return [outcome for outcome in self.outcomes if outcome.wrong or outcome.slow]


def run_part(
    part: Part, cases: Iterable[str], progress: Callable[[Outcome], object] = lambda _one: None
) -> Result:
    """Run these cases of a part that is open, on as many lanes as it wants."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    result = Result(part.name, part.what)
    errors: list[BaseException] = []
    began = time.monotonic()

    def work(run: Callable[[str], Outcome]) -> None:
        while not errors:
            try:
                outcome = run(waiting.get_nowait())
            except queue.Empty:
                return
            except BaseException as error:
                errors.append(error)
                return
            result.outcomes.append(outcome)
            progress(outcome)

    with contextlib.ExitStack() as stack:
        wanted = min(part.lanes, waiting.qsize())
        lanes = [part.open_lane(stack) for _ in range(wanted)]
        threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        for n, outcome in enumerate(result.outcomes):
            if outcome.slow:
                # Alone this time.
                result.outcomes[n] = lanes[0](outcome.case.partition("/")[2])
    result.outcomes.sort(key=lambda outcome: outcome.case)
    result.seconds = time.monotonic() - began
    result.summary = part.summary(result.outcomes)
    return result
