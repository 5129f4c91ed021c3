"""Heap: the least in which each path completes, and what is in use when."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from host_sim import sample
from host_sim.bench.laboratory import FLASH, ROMFS, Laboratory
from host_sim.console import Console
from host_sim.errors import SimError
from host_sim.sample import Tree
from host_sim.site import Site

KB = 1024
WINDOW = 32 * KB
#: Into how many pieces memory is cut for "fragmented".
PIECES = 6
#: What stays whole for .tar.gz: its window has to be in one piece.
WHOLE = WINDOW + 1 * KB

_MAIN = """\
import machine
import %s

%s
machine.deepsleep(60_000)
"""

#: Whether something completes in so many KB.
Works = Callable[[int], bool]


def least(works: Works, low: int, high: int) -> int:
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
    modules: str


class Bench:
    """A console, and nodes whose application only checks; end it with `with`."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        self.console = Console(laboratory.folder / "console")
        self._sites = 0
        self._config = laboratory.folder / "ota.json"

    def __enter__(self) -> Bench:
        self.console.__enter__()
        self.console.add_device(sample.DEVICE_ID, sample.DEVICE_KEY, sample.CONTROL_CHANNEL)
        config = {
            "device_id": sample.DEVICE_ID,
            "device_key": sample.DEVICE_KEY,
            "control_channel": sample.CONTROL_CHANNEL,
            "mqtt": {"host": "localhost", "port": self.console.ports.mqtt, "tls": False},
            # Without an RTC each run is the first after power-on, which waits for so long.
            "timeout_s": 1,
        }
        self._config.write_text(json.dumps(config))
        return self

    def __exit__(self, *what: object) -> None:
        self.console.__exit__(*what)

    def idles(self, heap: int, pieces: int = 0, module: str = "only_check") -> bool:
        """True when an idle check completes in the bare interpreter in so many KB."""
        call = f"check_in_pieces({pieces}, 0, " if pieces else "check("
        call += f"{str(self._config)!r})"
        return "check: idle" in self.laboratory.bare(module, call, f"{heap}K").output

    def idle_use(self) -> list[int]:
        """Heap in use at the start, after `import ota`, after an idle check, in bytes."""
        call = f"idle({str(self._config)!r})"
        output = self.laboratory.bare("heap_user", call, "256K").output
        match = re.search(r"figures: \[(\d+), (\d+), (\d+)\] idle", output)
        if not match:
            raise SimError(f"bench: no idle check: {output[-400:]}")
        return [int(group) for group in match.groups()]

    def bare_use(self) -> list[int]:
        """Heap in use at the start, and after a bare idle check, in bytes."""
        call = f"use({str(self._config)!r})"
        output = self.laboratory.bare("bare_minimum", call, "256K").output
        match = re.search(r"figures: \[(\d+), (\d+)\]", output)
        if not match:
            raise SimError(f"bench: no bare check: {output[-400:]}")
        return [int(group) for group in match.groups()]

    def site(self, module: str, call: str, tree: Tree | None = None, blocks: int = 1024) -> Site:
        """A node that calls a function of a module of `inside/` at each boot."""
        self._sites += 1
        inside = {
            f"lib/{name}.mpy": (self.laboratory.inside / f"{name}.mpy").read_bytes()
            for name in ("only_check", "bare_minimum", "heap_user", "pieces")
        }
        main = {"main.py": (_MAIN % (module, f"{module}.{call}")).encode()}
        tree = (tree or {}) | self.laboratory.agent_tree() | inside | main
        where = self.laboratory.where
        return Site(
            self.laboratory.folder / f"site{self._sites}",
            self.console,
            tree,
            blocks=blocks,
            agent=where == FLASH,
            node={"romfs": True} if where == ROMFS else None,
        )

    def watch(self, package: bytes, live: Tree, every: int, blocks: int = 1024) -> list[Sample]:
        """The heap during a cycle with much of it."""
        site = self.site("heap_user", f"cycle({every})", live, blocks)
        site.node.heap = "1M"
        site.ask(package, "p.tar.gz" if package[:1] == b"\x1f" else "p.tar")
        run = site.run(timeout_s=120)
        if "check: confirmed" not in run.output:
            raise SimError(f"bench: the watched cycle failed: {run.output[-400:]}")
        return samples(run.output)

    def least_cycles(
        self, package: bytes, live: Tree, window: int, cut: tuple[int, int] | None = None
    ) -> list[int]:
        """The least heap, in KB, of the whole cycle, and of the bare minimum with such a package.

        window: bits of its gzip, 0 for .tar; cut: arguments of `cut` of inside/pieces.py.
        """
        fuid = self.console.add_package(package, "p.tar.gz" if window else "p.tar").fuid
        call = f"check_in_pieces({cut[0]}, {cut[1]}, %s)" if cut else "check(%s)"
        sites = (
            self.site("only_check", call % "", live),
            self.site("bare_minimum", call % f"window_bits={window}", live),
        )
        return [least(self.completes(site, fuid), 4, 200) for site in sites]

    def completes(self, site: Site, fuid: str) -> Works:
        """Whether a whole cycle does in a heap of so many KB beside the simulator's part."""
        image = site.image.read_bytes()

        def works(heap: int) -> bool:
            site.image.write_bytes(image)
            site.node.heap = f"{heap}K"
            reports = len(site.reports())
            self.console.request(sample.DEVICE_ID, fuid)
            run = site.run(timeout_s=60)
            ends = [report["e"] for report in site.reports()[reports:]]
            return "check: confirmed" in run.output and ends == [1]

        return works


def packages() -> tuple[Tree, dict[str, bytes]]:
    """(what is on the node, the real-sized package in both forms)."""
    old = sample.application()
    _, package = sample.next_version(old)
    del package["main.py"]  # the node's own is the one that checks
    return old, {"tar": sample.tar(package), "tar.gz": sample.tar_gz(package)}


def samples(output: str) -> list[Sample]:
    """What `cycle()` of `inside/heap_user.py` printed."""
    found = []
    for line in output.splitlines():
        if line.startswith("@ "):
            _, step, received, before, after, modules = line.split(" ")
            found.append(Sample(step, int(received), int(before), int(after), modules))
    return found
