"""Heap: the least in which each path completes, and what is in use when."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from host_sim import sample
from host_sim.bench.laboratory import Laboratory
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.node import SIM_HEAP
from host_sim.sample import DEVICE_ID, Tree
from host_sim.site import Site

KB = 1024
WINDOW = 32 * KB
#: Into how many pieces memory is cut for "fragmented".
PIECES = 8
#: What stays whole for .tar.gz: its window has to be in one piece.
WHOLE = WINDOW + 1 * KB

_MAIN = """\
import machine
import heap_user

heap_user.%s
machine.deepsleep(60_000)
"""


def least(works: Callable[[int], bool], low: int, high: int) -> int:
    """The least heap, in KB, that works; `low` is known not to, `high` has to."""
    if not works(high):
        raise SimError(f"bench: not even a heap of {high} KB is enough")
    while high - low > 1:
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle
    return high


@dataclass
class Sample:
    """The heap at one moment of a cycle: `before` and `after` a collection, in bytes."""

    step: str
    received: int
    before: int
    after: int


@dataclass
class Bench:
    """A console, and nodes whose application only checks."""

    laboratory: Laboratory
    console: Console
    _serial: int = field(default=0)

    def config(self) -> dict:
        """The configuration of an agent in the bare interpreter."""
        return {
            "device_id": sample.DEVICE_ID,
            "device_key": sample.DEVICE_KEY,
            "control_channel": sample.CONTROL_CHANNEL,
            "mqtt": {"host": "localhost", "port": self.console.ports.mqtt},
        }

    def bare_idle(self, heap: int, pieces: int = 0) -> list[int] | None:
        """[in use at the start, after import, after the check]; None: the heap is too small."""
        call = f"idle({self.config()!r}, {pieces})"
        output = self.laboratory.bare("heap_user", call, f"{heap}K").output
        match = re.search(r"figures: \[(\d+), (\d+), (\d+)\] idle", output)
        return [int(group) for group in match.groups()] if match else None

    def site(self, call: str, tree: Tree | None = None, blocks: int = 1024) -> Site:
        """A node that calls this function of `inside/heap_user.py` at each boot."""
        self._serial += 1
        folder = self.laboratory.folder / f"site{self._serial}"
        heap_user = (self.laboratory.inside / "heap_user.mpy").read_bytes()
        tree = (
            (tree or {})
            | self.laboratory.agent_tree()
            | {"main.py": (_MAIN % call).encode(), "lib/heap_user.mpy": heap_user}
        )
        return Site(folder, self.console, tree, blocks=blocks)


def site_works(site: Site, fuid: str | None) -> Callable[[int], bool]:
    """Whether the node's cycle completes in a heap of so many KB, with the simulator's part."""
    image = site.image.read_bytes()

    def works(heap: int) -> bool:
        site.image.write_bytes(image)
        site.node.heap = str(heap * KB - SIM_HEAP)
        reports = len(site.reports())
        if fuid:
            site.console.request(DEVICE_ID, fuid)
        run = site.run(timeout_s=40)
        if not fuid:
            return "check: idle" in run.output
        return "check: confirmed" in run.output and [
            report["e"] for report in site.reports()[reports:]
        ] == [1]

    return works


@contextlib.contextmanager
def bench(laboratory: Laboratory):
    """A Bench with a console of its own."""
    with Console(laboratory.folder / "console") as console:
        console.add_device(sample.DEVICE_ID, sample.DEVICE_KEY, sample.CONTROL_CHANNEL)
        yield Bench(laboratory, console)


def samples(output: str) -> list[Sample]:
    """What `watched()` printed."""
    found = []
    for line in output.splitlines():
        if line.startswith("@ "):
            _, step, received, before, after, _ = line.split(" ")
            found.append(Sample(step, int(received), int(before), int(after)))
    return found


def write_main(folder: Path, call: str) -> None:
    """Have the node of this folder call another function."""
    (folder / "main.py").write_text(_MAIN % call)
