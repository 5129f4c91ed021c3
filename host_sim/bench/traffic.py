"""Flash traffic: bytes programmed and blocks erased, beside a bare loop that writes the files."""

from __future__ import annotations

from dataclasses import dataclass

from host_sim import sample
from host_sim.bench.laboratory import Laboratory, on_flash
from host_sim.sample import Tree

BLOCK = 4096
BLOCKS = 1024


@dataclass
class Traffic:
    """One update: `payload` bytes in the files of the package; of each step and of the floor,
    [bytes programmed, erases] since the beginning."""

    payload: int
    steps: dict[str, list[int]]
    floor: list[int]
    journal: int
    us: int
    end: str

    @property
    def programmed(self) -> int:
        """Bytes programmed by the whole cycle."""
        return self.steps["cycle"][0]

    @property
    def erases(self) -> int:
        """Blocks erased by the whole cycle."""
        return self.steps["cycle"][1]


def measure(
    laboratory: Laboratory,
    name: str,
    live: Tree,
    package: Tree,
    floor: Tree | None = None,
    blocks: int = BLOCKS,
) -> Traffic:
    """The traffic of a package on a node that has `live`. floor: what the bare loop writes."""
    folder = laboratory.bundle(
        name,
        agent=laboratory.agent_tree(),
        live=on_flash(live),
        package=sample.tar(package),
        floor=on_flash(package if floor is None else floor),
    )
    result = laboratory.measure("traffic", folder, blocks)
    return counted(result, sum(map(len, package.values())))


def counted(result: dict, payload: int) -> Traffic:
    """The traffic that inside/measure.py prints, of so many bytes of files."""
    agent = result["agent"]
    steps = {k: v for k, v in agent.items() if k in ("staged", "installed", "cycle")}
    floor = result["floor"]["cycle"]
    return Traffic(payload, steps, floor, agent["journal"], agent["us"], agent["end"])


def all_new(laboratory: Laboratory) -> Traffic:
    """The real-sized application on a node that has none of it."""
    return measure(laboratory, "all_new", {}, sample.application())


def changed(laboratory: Laboratory) -> Traffic:
    """The next version of the application: files changed, added and unchanged."""
    old = sample.application()
    _, package = sample.next_version(old)
    differs = {name: content for name, content in package.items() if old.get(name) != content}
    return measure(laboratory, "changed", old, package, differs)


def unchanged(laboratory: Laboratory) -> Traffic:
    """A package of what the node has already."""
    old = sample.application()
    return measure(laboratory, "unchanged", old, old, {})


def one_byte(laboratory: Laboratory, name: str = "") -> tuple[Traffic, int]:
    """A package of the whole application in which one byte differs. (traffic, blocks of the file).

    name: the file with that byte (default: the largest).
    """
    old = sample.application()
    name = name or max(old, key=lambda n: len(old[n]))
    content = bytearray(old[name])
    content[len(content) // 2] ^= 1
    package = old | {name: bytes(content)}
    traffic = measure(laboratory, "one_byte", old, package, {name: bytes(content)})
    return traffic, -(-len(content) // BLOCK)
