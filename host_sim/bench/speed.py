"""Time: staging and installing beside bare loops, and where it goes."""

from __future__ import annotations

import random
import statistics

from host_sim import sample
from host_sim.bench import traffic
from host_sim.bench.figures import Figure, at_most, figures_table, table
from host_sim.bench.laboratory import Laboratory, on_flash
from host_sim.bench.plot import svg

KB = 1024
#: How many rounds of update, floor and inflating the time is the median of.
ROUNDS = 7
#: A flash chip's typical times, as data sheets of W25Q32 and its like have them: erasing 4 KB,
#: programming 256 bytes; and a read through the driver.
ERASE_MS, PAGE_MS, READ_MS = 45, 0.7, 0.05


def time(laboratory: Laboratory) -> tuple[dict[str, str], dict[str, str]]:
    """Staging and installing beside the bare loops, in turns; the median of the ratios."""
    tree = _sorted(sample.application())
    rows, lines = [], {".tar": [], "floor": []}
    for form, package in (("tar", sample.tar(tree)), ("tar.gz", sample.tar_gz(tree))):
        rounds = _rounds(laboratory, tree, package, ROUNDS)
        ratio, without = (
            statistics.median((row[0] - taken * row[3]) / (row[1] + row[2]) for row in rounds)
            for taken in (0, 1)
        )
        least = [min(column) / 1e6 for column in zip(*rounds, strict=True)]
        floor = f"{least[1] + least[2]:.2f} s (best of {ROUNDS}; update {least[0]:.2f} s)"
        what = f"staging and installing a .{form} from memory"
        rows.append(at_most(what, 1.30, ratio, floor=floor, of="floor"))
        what = "… without collections, each of which walks through this flash: it is in the heap"
        rows.append(at_most(what, 1.30, without, of="floor"))
    for kilobytes in (16, 64, 256, 512, 1024):
        part = {f"d/{n}": random.Random(n).randbytes(8 * KB) for n in range(kilobytes // 8)}
        rounds = _rounds(laboratory, part, sample.tar(part), 3)
        for name, column in ((".tar", 0), ("floor", 1)):
            lines[name].append((kilobytes, statistics.median(r[column] for r in rounds) / 1e6))
    title = "Staging and installing files of 8 KB from memory"
    plot = svg(title, "size of the package, KB", "seconds", lines)
    folder = laboratory.bundle(
        "profile",
        agent=laboratory.agent_tree(),
        live={},
        package=sample.tar(tree),
        floor=on_flash(tree),
    )
    found = laboratory.measure("profile", folder, traffic.BLOCKS)
    rows.append(_computed(laboratory, tree, found))
    tables = {
        "time": figures_table(rows),
        "stretches": _stretches(laboratory.measure("stretches", folder, traffic.BLOCKS, ROUNDS)),
        "reads": _reads(found),
    }
    return tables, {"bench-size.svg": plot}


def _sorted(tree: sample.Tree) -> sample.Tree:
    """In the order in which packages are made: folder by folder."""
    return dict(sorted(tree.items()))


def _computed(laboratory: Laboratory, tree: sample.Tree, reads: dict) -> Figure:
    """What the counted operations take on a flash chip with a data sheet's typical times."""
    counted = traffic.measure(laboratory, "all_new", {}, tree)
    of_all, of_floor = (
        erases * ERASE_MS + programmed / 256 * PAGE_MS + read * READ_MS
        for (programmed, erases), read in (
            (counted.steps["installed"], reads["all"]),
            (counted.floor, reads["floor"]),
        )
    )
    return at_most(
        f"the same by counted operations ({ERASE_MS} ms an erase, {PAGE_MS} ms a page of 256 "
        f"bytes, {READ_MS} ms a read), without the interpreter's own time",
        1.30,
        of_all / of_floor,
        floor=f"{of_floor / 1000:.1f} s (update {of_all / 1000:.1f} s)",
        of="floor",
    )


def _stretches(best: dict[str, list[int]]) -> str:
    """Where the time goes."""
    names = {
        "download-file": "loading what stages, to the first member",
        "file-bytes": "staging",
        "bytes-commit": "dropping that, loading what installs, commit",
        "commit-install": "install",
        "archive": "reading the archive alone, in RAM (part of staging)",
        "floor": "the floor",
    }
    rows = [(names[key], f"{us / 1000:.1f}", f"{reads:,}") for key, (us, reads) in best.items()]
    return table(("stretch", "ms", "reads of flash"), rows)


def _reads(found: dict) -> str:
    """Which calls read flash while a package is staged and installed."""
    rows = sorted(found["rows"], key=lambda row: -row[-1])
    shown = [
        (f"{step}: {call} in {where}", calls, f"{reads:,}")
        for step, call, where, calls, reads in rows[:8]
    ]
    rest = found["all"] - sum(row[-1] for row in rows[:8])
    shown.append(("all else: content, closing files, loading code", "–", f"{rest:,}"))
    shown.append(("**staging and install**", "–", f"{found['all']:,}"))
    shown.append(("the floor", "–", f"{found['floor']:,}"))
    return table(("what reads flash", "calls", "reads"), shown)


def _rounds(
    laboratory: Laboratory, tree: sample.Tree, package: bytes, rounds: int
) -> list[list[int]]:
    """Microseconds of [update, floor, bare inflating, collections in the update], in turns."""
    folder = laboratory.bundle(
        "time",
        agent=laboratory.agent_tree(),
        live={},
        package=package,
        floor=on_flash(tree),
    )
    return laboratory.measure("speed", folder, traffic.BLOCKS, rounds)
