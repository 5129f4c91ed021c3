"""What all campaigns share: how one of seeds is declared and run, and how any of them is shown."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

import click
from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.progress import TimeRemainingColumn as Remaining

from host_sim import ctrl_c, files
from host_sim.errors import SimError

_SHOWN_FAILURES = 20
_DOCS = Path(__file__).parents[2] / "docs"


# -- what any campaign shows ---------------------------------------------------------------------


class Failure(Protocol):
    """A case in which something was wrong; as text it is one line."""

    @property
    def replay(self) -> str:
        """What runs it again."""


def terminal() -> Terminal:
    """Where a campaign prints: text as it is."""
    return Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True)


class Bars(Progress):
    """A bar for each part: cases done, failures, time gone and left. Ctrl-C sums them up."""

    def __init__(self, screen: Terminal, what: str = "cases") -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.fields[count]}"),
            Elapsed(),
            TextColumn("left:"),
            Remaining(),
            console=screen,
            transient=True,
            redirect_stderr=False,  # Ctrl-C mutes it
            speed_estimate_period=600,  # cases differ in speed
        )
        self.what, self.done, self.failures = what, 0, 0

    def add(self, name: str, total: float) -> TaskID:
        """A further part."""
        return self.add_task(name, total=total, count="", failures=0)

    def count(self, task: TaskID, cases: int = 1, failures: int = 0) -> None:
        """So many more are done."""
        with self._lock:
            self.done += cases
            self.failures += failures
            part = self._tasks[task]
            failed = part.fields["failures"] + failures
            count = f"{part.completed + cases:,}/{part.total:,}, {failed} failures"
            self.update(task, advance=cases, failures=failed, count=count)
            if not ctrl_c.stopping():
                stopped(f"{self.done:,} {self.what} tried, {self.failures} failures")


def stopped(far: str) -> None:
    """Ctrl-C ends with a line that says how far it came."""
    ctrl_c.tell(f"stopped: {far}")


def tell_failures(screen: Terminal, failures: Sequence[Failure], command: str) -> None:
    """The first failures, each with the command that runs it again."""
    for failure in failures[:_SHOWN_FAILURES]:
        screen.print(f"FAILED {failure}", style="red")
        screen.print(f"  again: python -m host_sim {command} {failure.replay}")


def by_kind(failures: Sequence[Any]) -> str:
    """How many failures of each kind, with three of each to replay."""
    kinds: dict[str, list[str]] = {}
    for failure in failures:
        kinds.setdefault(kind_of(failure.wrong), []).append(failure.replay)
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return "\n".join(f"{len(found):6} {kind}: {' '.join(found[:3])}" for kind, found in ordered)


def kind_of(wrong: Sequence[str]) -> str:
    """What is wrong, without the particulars."""
    return wrong[0].partition(": ")[0].split(" at ")[0] if wrong else ""


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A result table, in Markdown. head: the columns, with commas between them."""
    columns = head.split(", ")
    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)])


def line(cells: Iterable[object]) -> str:
    """A line of a table."""
    return "|" + "".join(f" {cell} |" if cell != "" else " |" for cell in cells)


def place(name: str) -> re.Pattern[str]:
    """Where a page has the table of this name."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


def write(page: str, name: str, text: str) -> None:
    """Put a table into its place in a page of docs/."""
    path = _DOCS / page
    content, found = place(name).subn(lambda _: text, path.read_text(encoding="utf-8"))
    if not found:
        raise SimError(f"docs/{page} has no place for the table {name}")
    files.write(path, content)


# -- a campaign of seeds -------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a seed came to. `wrong` is empty when the rule was kept."""

    seed: int
    wrong: list[str]
    ends: Counter[str] = field(default_factory=Counter)
    """How many requests ended in which way."""
    wakes: int = 0
    boots: int = 0
    power_cuts: int = 0
    seconds: float = 0.0
    longest_boot_s: float = 0.0
    """0 where nobody measures it."""
    story: str = ""

    @property
    def replay(self) -> str:
        """What runs it again."""
        return str(self.seed)

    def __str__(self) -> str:
        return f"seed {self.seed}: {'; '.join(self.wrong)}"


@dataclass
class Tally:
    """What a number of seeds came to."""

    what: ClassVar[str] = "scripts"

    count: int = 0
    wakes: int = 0
    boots: int = 0
    power_cuts: int = 0
    longest_boot_s: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one in."""
        self.count += 1
        self.wakes += outcome.wakes
        self.boots += outcome.boots
        self.power_cuts += outcome.power_cuts
        self.longest_boot_s = max(self.longest_boot_s, outcome.longest_boot_s)
        self.ends += outcome.ends
        if outcome.wrong:
            self.failures.append(outcome)

    def rows(self) -> list[tuple[str, str]]:
        """The result, as the table has it."""
        ends = ", ".join(f"{n:,} {name}" for name, n in self.ends.most_common())
        rows = [
            (self.what, f"{self.count:,}"),
            ("failures", f"{len(self.failures):,}"),
            ("wakes", f"{self.wakes:,}"),
            ("boots", f"{self.boots:,}"),
            ("power cuts", f"{self.power_cuts:,}"),
            ("requests", f"{self.ends.total():,}: {ends}"),
        ]
        longest = [("longest boot", f"{self.longest_boot_s:.1f} s")]
        return rows + longest * (self.longest_boot_s > 0)

    def table(self) -> str:
        """The rows in Markdown."""
        return table("what, how often", self.rows())


class Bench(Protocol):
    """Runs the case of a seed."""

    def run(self, seed: int) -> Outcome:
        """All of it, and the judgement."""


@dataclass(frozen=True)
class Campaign:
    """Each case is drawn at random from a seed; a bench runs and judges it."""

    name: str
    help: str
    count: int
    """How many, unless told."""
    bench: Callable[..., AbstractContextManager[Any]]
    """Makes a bench; `options` are its arguments."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further options of the command, by name, as click takes them."""
    tally: type[Tally] = Tally
    page: str = ""
    """Which page of docs/ has the table, between `<!-- NAME -->` and `<!-- end -->`."""

    def command_line(
        self, run: Callable[[SimpleNamespace], int] | None = None, *more: click.Option
    ) -> click.Command:
        """The command; run: what it does with its options, None: `command`."""
        text = "only this one, and print what happens"
        options = [
            click.Option(
                ["--count"], type=int, default=self.count, metavar="N", help="how many seeds"
            ),
            click.Option(["--first"], type=int, default=0, metavar="SEED", help="the first one"),
            click.Option(["--seed"], type=int, metavar="SEED", help=text),
            click.Option(["--jobs"], type=int, default=os.cpu_count() or 1, help="processes"),
            *(click.Option([f"--{option}"], **how) for option, how in self.options.items()),
            *more,
        ]
        if self.page:
            text = f"put the result into docs/{self.page}"
            options.append(click.Option(["--write"], is_flag=True, help=text))
        does = run or self.command

        def callback(**given: Any) -> int:
            return does(SimpleNamespace(**given))

        text = self.help[0].upper() + self.help[1:] + "."
        return click.Command(self.name, callback=callback, params=[*options], help=text)

    def command(self, arguments: SimpleNamespace) -> int:
        """What the command does; returns its exit code."""
        if arguments.count < 1 or arguments.jobs < 1:
            raise SimError("--count and --jobs are at least 1")
        if arguments.seed is not None:
            with self.open(arguments) as bench:
                return tell(bench.run(arguments.seed))
        screen, tally = terminal(), self.tally()
        seeds = list(range(arguments.first, arguments.first + arguments.count))
        began = time.monotonic()
        with Bars(screen, tally.what) as bars:
            task = bars.add(self.name, len(seeds))
            bench = functools.partial(self.open, arguments)
            for outcome in run_all(seeds, arguments.jobs, bench):
                tally.add(outcome)
                failed = [outcome] * bool(outcome.wrong)
                bars.count(task, failures=len(failed))
                tell_failures(screen, failed, f"{self.name} --seed")
        screen.print(tally.table())
        how = "".join(f", {option} {getattr(arguments, option)}" for option in self.options)
        screen.print(f"{time.monotonic() - began:.0f} s, {arguments.jobs} processes{how}")
        if tally.failures:
            screen.print(by_kind(tally.failures))
            return 1
        if self.page and arguments.write:
            write(self.page, self.name, tally.table())
        return 0

    def open(self, arguments: SimpleNamespace) -> AbstractContextManager[Any]:
        """A bench as the command line wants it."""
        return self.bench(**{option: getattr(arguments, option) for option in self.options})

    def place(self) -> re.Pattern[str]:
        """Where the page has the table."""
        return place(self.name)


def tell(outcome: Outcome) -> int:
    """All that happened in one case, for people; returns the exit code."""
    screen = terminal()
    screen.print(outcome.story)
    screen.print(f"FAILED: {'; '.join(outcome.wrong)}" if outcome.wrong else "nothing wrong")
    return 1 if outcome.wrong else 0


def run_all(
    seeds: list[int], jobs: int, bench: Callable[[], AbstractContextManager[Bench]]
) -> Iterator[Outcome]:
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
