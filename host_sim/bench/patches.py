"""Packages with an index and patches: bytes fetched, flash, heap, and applying them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from host_sim import sample
from host_sim.bench import chip, heap, speed, traffic
from host_sim.bench.figures import Figure, at_most, figures_table, table
from host_sim.bench.laboratory import Laboratory, on_flash
from host_sim.sample import Tree
from insigh_ota.package import delta
from insigh_ota.package import patches as recipes
from insigh_ota.package.build import build
from insigh_ota.package.since import gone
from insigh_ota.package.sources import Selection

KB = 1024
#: Of the window, as its logarithm: what insigh_ota.package takes where nobody says.
_WINDOW = 13
#: TLS is not there, but the agent looks for its trust anchor.
_ANCHOR: Tree = {"ca.der": b"anchor"}
#: What flash is programmed for, by the names of inside/programs.py.
_CAUSES = {
    "files": "the files that differ",
    "manifest": "the manifest",
    "journal": "the journal, written through at each mark",
    "rename": "renames into place, and of old files out of it",
    "recovery": "the copy of recovery",
    "copies": "copies of old files in the root",
    "mark": "marks, where another wake would go on",
    "index": "the index",
}
#: By an old file, a patch, and what it makes.
Case = tuple[bytes, bytes, bytes]


@dataclass
class Release:
    """What nodes have, and what they are to have."""

    old: Tree
    new: Tree

    def changed(self) -> Tree:
        """The files that differ."""
        return {path: c for path, c in self.new.items() if self.old.get(path) != c}

    def package(self, *, indexed: bool) -> bytes:
        """With index and patches, or the same files without."""
        releases = [delta.Release("before", self.old)]
        selection = Selection(dict(self.new), gone(releases, self.new))
        return build(selection, window=_WINDOW, releases=releases if indexed else None)

    def cases(self) -> list[Case]:
        """Each patch of that package."""
        found = delta.patches_for(self.new, [delta.Release("before", self.old)])
        return [
            (self.old[path], patch, self.new[path])
            for path, each in found.items()
            for _, patch in each
        ]


@dataclass
class Update:
    """One update: bytes of the `package`, how many were `fetched`, what flash was programmed for.

    `by`: bytes by the names of inside/programs.py, up to the reset.
    """

    package: int
    fetched: int
    traffic: traffic.Traffic
    by: dict[str, int]

    @property
    def ratio(self) -> float:
        """Bytes programmed for each byte of the files that changed."""
        return self.traffic.programmed / self.traffic.payload


@dataclass
class Applying:
    """What some patches take for each KB that they make, beyond a copy."""

    files: int
    kilobytes: float
    steps: int
    instructions: float

    @property
    def ms(self) -> list[float]:
        """Of a chip, for each KB: at best, as it is taken, at worst."""
        return [1000 * chip.seconds(self.instructions, cycles) for cycles in chip.CYCLES]


def next_version() -> Release:
    """The sample application one release behind: 52 files differ, 13 of them are new."""
    old = sample.application()
    return Release(old, sample.next_version(old)[1])


def edited(most: int) -> Release:
    """The sample application with a line more in sources of at most so many bytes in all."""
    old = sample.application()
    new = dict(old)
    rng = random.Random(3)
    sources = sorted(path for path in old if path.startswith("apps/"))
    for path in rng.sample(sources, len(sources)):
        most -= len(old[path]) + 40
        if most < 0:
            break
        lines = old[path].splitlines(keepends=True)
        lines.insert(rng.randrange(len(lines)), b"# changed %d\n" % rng.randrange(10**6))
        new[path] = b"".join(lines)
    return Release(old, new)


def compiled() -> Release:
    """Modules as .mpy: a function with new names comes into the middle of each."""
    old, new = {}, {}
    for n in range(8):
        name = f"lib/fast_{n}.py"
        old[name] = source = sample._source(random.Random(n), f"fast_{n}", 9_000)
        at = source.index(b"\ndef ", len(source) // 2) + 1
        more = b"def calibrate_%d(gain):\n    return gain * 3 + offset_of_%d\n\n" % (n, n)
        new[name] = source[:at] + more + source[at:]
    return Release(sample._compiled(old), sample._compiled(new))


def measure(laboratory: Laboratory, release: Release, *, indexed: bool = True) -> Update:
    """An update over the agent's own HTTPS, without TLS, from a server that knows Range."""
    package, changed = release.package(indexed=indexed), release.changed()
    folder = laboratory.bundle(
        "patches",
        agent=laboratory.agent_tree(),
        live=on_flash(release.old | _ANCHOR),
        package=package,
        floor=on_flash(changed),
    )
    result = laboratory.measure("fetched", folder, traffic.BLOCKS)
    counted = traffic.counted(result, sum(map(len, changed.values())))
    return Update(len(package), result["fetched"], counted, result["by"])


def apply(laboratory: Laboratory, cases: list[Case]) -> Applying:
    """What patches take, counted by valgrind."""
    kilobytes = sum(len(new) for _, _, new in cases) / KB
    found = sum(1 for _, patch, new in cases for _ in recipes._steps(patch, len(new)))
    return Applying(len(cases), kilobytes, found, chip.patched(laboratory, cases) / kilobytes)


def patches(laboratory: Laboratory) -> tuple[dict[str, str], dict[str, str]]:
    """An update one release behind, beside the same without index and patches."""
    releases = {
        "the next version": next_version(),
        "150 KB of sources, a line more in each": edited(150 * KB),
        "one file": edited(8 * KB),
    }
    rows, chip_rows, by_ranges = [], [], []
    counts = chip.can_count("patches")
    for name, release in releases.items():
        for indexed in (True, False):
            one = measure(laboratory, release, indexed=indexed)
            text = name if indexed else "… as a plain `.tar.gz`"
            rows.append((text, len(release.changed()), *_row(one)))
            by_ranges += [one] * indexed
            if counts:
                chip_rows.append((text, *_whole(laboratory, release, indexed, one.traffic)))
    figures = [_figure(name, one) for name, one in zip(releases, by_ranges, strict=True)]
    header = ("update", "files that differ", "their bytes", "package", "fetched")
    header += ("programmed", "× their bytes", "erases (floor)")
    tables = {
        "patches": figures_table([*figures, *_heaps(laboratory)]),
        "patches updates": table(header, rows),
        "patches flash": table(("bytes programmed for", *releases), _causes(by_ranges)),
    }
    if counts:
        header = ("update", "million instructions", "at 240 MHz", "its flash")
        tables["patches time"] = table(header, chip_rows)
        tables["patches chip"] = _applying(laboratory)
    return tables, {}


def _row(one: Update) -> list[str]:
    counted = one.traffic
    numbers = counted.payload, one.package, one.fetched, counted.programmed
    erases = f"{counted.erases} ({counted.floor[1]})"
    return [*(f"{n:,}" for n in numbers), f"{one.ratio:.2f}", erases]


def _causes(updates: list[Update]) -> list[list[str]]:
    """What flash is programmed for, by update."""
    columns = []
    for one in updates:
        known = [one.by.get(cause, 0) for cause in _CAUSES]
        programmed = one.traffic.programmed
        columns.append([*known, programmed - sum(known), programmed, one.traffic.floor[0]])
    texts = [*_CAUSES.values(), "all else, up to the end of the trial", "**all**", "the floor"]
    rows = zip(texts, *columns, strict=True)
    return [[text, *(f"{number:,}" for number in numbers)] for text, *numbers in rows]


def _whole(
    laboratory: Laboratory, release: Release, indexed: bool, counted: traffic.Traffic
) -> list[str]:
    """Instructions of a whole update, as time, and the time of its flash."""
    package = release.package(indexed=indexed)
    count = chip.update_by_ranges(laboratory, package, release.old).total()
    flash_ms = counted.erases * speed.ERASE_MS + counted.programmed / 256 * speed.PAGE_MS
    return [f"{count / 1e6:,.0f}", f"{chip.seconds(count):.1f} s", f"{flash_ms / 1000:.1f} s"]


def _figure(name: str, one: Update) -> Figure:
    floor = f"{one.traffic.floor[0] / one.traffic.payload:.3g} × these"
    what = f"{name}: bytes programmed"
    return at_most(what, 1.10, one.ratio, floor=floor, of="the files that differ")


def _heaps(laboratory: Laboratory) -> list[Figure]:
    """The least heaps of a whole cycle, as the table of heaps has them."""
    release = next_version()
    old = release.old
    # The node's own main.py is the one that checks.
    release = Release(_without_main(old), _without_main(release.new))
    found = []
    with heap.Bench(laboratory) as bench:
        for indexed in (True, False):
            fuid = bench.console.add_package(release.package(indexed=indexed), "p.tar.gz").fuid
            works = bench.completes(bench.site("only_check", "check()", old), fuid)
            found.append(_least(works) if indexed else heap.least(works, 4, 200))
    what = "the next version: a heap in which the whole cycle takes one wake"
    return [Figure(what, "–", f"{found[0]} KB", f"plain `.tar.gz`: {found[1]} KB")]


def _least(works: heap.Works, high: int = 240, step: int = 4) -> int:
    """The least heap from which on all work: where memory is in pieces, a larger one may fail."""
    while works(high - step):
        high -= step
    return high


def _without_main(tree: Tree) -> Tree:
    return {path: content for path, content in tree.items() if path != "main.py"}


def _applying(laboratory: Laboratory) -> str:
    """What patches take, by KB of what they make."""
    rows = []
    for name, cases in (
        ("patches of the next version", next_version().cases()),
        ("modules as `.mpy`, two new names in each", compiled().cases()),
    ):
        one = apply(laboratory, cases)
        least, likely, most = one.ms
        us, copied = _by_the_clock(laboratory, cases)
        row = [name, one.files, f"{one.kilobytes:.0f}", f"{one.steps / one.kilobytes:.1f}"]
        row += [f"{one.instructions / 1000:,.0f}", f"{likely:.2f} ms ({least:.2f} to {most:.2f})"]
        rows.append([*row, f"{(us - copied) / one.kilobytes:.1f} µs"])
    header = ("what", "patches", "KB of new files", "steps a KB", "thousand instructions a KB")
    return table((*header, "a KB at 240 MHz", "a KB here"), rows)


def _by_the_clock(laboratory: Laboratory, cases: list[Case]) -> list[int]:
    """Microseconds of making the files, and of copying as much."""
    file = laboratory.folder / "cases"
    file.write_bytes(b"".join(map(b"".join, cases)))
    lengths = [[*map(len, case)] for case in cases]
    return laboratory.measure("patched", str(file), lengths, speed.ROUNDS)
