"""Each part of the bench: measures, and puts it into tables and plots."""

from __future__ import annotations

import random
import tarfile
from pathlib import Path

from host_sim import sample, signing
from host_sim.bench import chip as chip_figures
from host_sim.bench import code as code_figures
from host_sim.bench import compilers as compiler_figures
from host_sim.bench import endurance, speed, traffic
from host_sim.bench import heap as heap_figures
from host_sim.bench import heap32 as heap32_figures
from host_sim.bench.figures import Figure, at_most, figures_table, table
from host_sim.bench.laboratory import Laboratory, on_flash
from host_sim.bench.plot import svg
from host_sim.releases.interpreters import releases

KB = 1024
Result = tuple[dict[str, str], dict[str, str]]


def flash(laboratory: Laboratory) -> Result:
    """Bytes programmed and blocks erased."""
    new, mixed = traffic.all_new(laboratory), traffic.changed(laboratory)
    same = traffic.unchanged(laboratory)
    large, large_blocks = traffic.one_byte(laboratory)
    small, small_blocks = traffic.one_byte(laboratory, "main.py")
    floor = new.floor[0] / new.payload
    rows = [
        at_most(
            "all new: bytes programmed",
            1.10,
            new.programmed / new.payload,
            floor=f"{floor:.3g} × payload",
            of="payload",
        ),
        at_most(
            "all new: erases",
            1.15,
            new.erases / new.floor[1],
            floor=f"{new.floor[1]} erases",
            of="floor",
        ),
        at_most("all unchanged: bytes programmed", 4096, same.programmed, "bytes", "0 bytes"),
        Figure(
            "the next version (changed, added, unchanged): bytes programmed, erases",
            "–",
            f"{mixed.programmed:,} bytes, {mixed.erases} erases",
            f"{mixed.floor[0]:,} bytes, {mixed.floor[1]} erases",
        ),
    ]
    for what, one, blocks in (
        ("its largest file", large, large_blocks),
        ("a file of one block", small, small_blocks),
    ):
        rows += [
            at_most(
                f"one byte of {what} differs: bytes programmed",
                5.0,
                one.programmed / (blocks * traffic.BLOCK),
                floor=f"{one.floor[0]:,} bytes",
                of=f"its {blocks} blocks",
            ),
            at_most(
                f"one byte of {what} differs: erases",
                5.0,
                one.erases / blocks,
                floor=f"{one.floor[1]} erases",
                of=f"its {blocks} blocks",
            ),
        ]
    steps = table(
        ("after", "bytes programmed", "erases"),
        [(step, f"{n[0]:,}", n[1]) for step, n in new.steps.items()]
        + [("the floor", f"{new.floor[0]:,}", new.floor[1])],
    )
    return {"flash": figures_table(rows), "flash steps": steps}, {}


def growth(laboratory: Laboratory) -> Result:
    """What a member costs in packages of 10 to 2,000."""
    rows, lines = [], {"programmed": [], "floor": []}
    for members in (10, 50, 100, 500, 1000, 2000):
        tree = {f"d{n // 40}/f{n}": b"%0200d" % n for n in range(members)}
        one = traffic.measure(laboratory, "growth", {}, tree, blocks=5200)
        per = [one.programmed, one.erases, *one.floor, one.journal]
        rows.append((members, *(f"{n / members:.4g}" for n in per), f"{one.us / members:.0f}"))
        lines["programmed"].append((members, one.programmed / members))
        lines["floor"].append((members, one.floor[0] / members))
    header = ("members", "bytes", "erases", "floor: bytes", "floor: erases", "journal", "µs")
    plot = svg("Bytes programmed by member of 200 bytes", "members", "bytes", lines)
    return {"growth": table(header, rows)}, {"bench-members.svg": plot}


def code(laboratory: Laboratory) -> Result:
    """Sizes, file system calls of an idle node, heap by module, allocation in the inner loops."""
    sizes, ram = code_figures.sizes(laboratory), code_figures.ram(laboratory)
    calls = code_figures.boot_calls(laboratory)
    boot = sum(sizes[name] for name in code_figures.BOOT_PATH)
    stats = len(calls["boot"])
    loops = laboratory.measure("growth_of_loops", _loops(laboratory))
    rows = [
        Figure("agent as .mpy", "–", f"{sum(sizes.values()):,} bytes in {len(sizes)} files"),
        at_most("boot path as .mpy", 4 * KB, boot, "bytes"),
        at_most("file system calls of an idle boot", 1, stats, "stat", "0"),
        at_most("flash operations of an idle check", 0, calls["writes"], "operations", "0"),
    ]
    for form, (grown, _, _) in loops.items():
        rows.append(at_most(f"heap growth over 1 MB of .{form}, no collection", 0, grown, "bytes"))
    modules = table(
        ("module", ".mpy, bytes", "heap, bytes"),
        [(n, f"{s:,}", _number(ram.get(n.removeprefix("ota/")))) for n, s in sizes.items()],
    )
    return {"code": figures_table(rows), "modules": modules}, {}


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _loops(laboratory: Laboratory) -> str:
    body = bytes(random.Random(1).choices(range(97, 123), k=1 << 21))
    forms = {"tar": sample.tar({"a": body}), "tar.gz": sample.tar_gz({"a": body})}
    return laboratory.bundle("loops", **forms)


def heap(laboratory: Laboratory) -> Result:
    """The least heaps and what is in use after a check, each beside the bare minimum's."""
    with heap_figures.Bench(laboratory) as bench:
        start, imported, after = bench.idle_use()
        bare_start, bare_after = bench.bare_use()
        bare = f"{bare_after - bare_start:,} bytes"
        rows = [
            at_most("in use after `import ota`", 2 * KB, imported - start, "bytes", "0 bytes"),
            at_most("in use after an idle check", 16 * KB, after - start, "bytes", bare),
        ]
        what, pieces = "idle check, bare interpreter", heap_figures.PIECES
        for name, cut in ((what, 0), (f"{what}, in pieces", pieces)):
            least, floor = (
                heap_figures.least(lambda kb, by=by, cut=cut: bench.idles(kb, cut, by), 4, 100)
                for by in ("only_check", "bare_minimum")
            )
            rows.append(at_most(name, 28, least, "KB", f"{floor} KB"))
        old, packages = heap_figures.packages()
        for form, limit, window in ("tar", 56, 0), ("tar.gz", 92, 15):
            what, kept = f"whole cycle, .{form}", heap_figures.WHOLE if window else 0
            for name, cut in ((what, None), (f"{what}, in pieces", (pieces, kept))):
                least, floor = bench.least_cycles(packages[form], old, window, cut)
                rows.append(at_most(name, limit, least, "KB", f"{floor} KB"))
        _, tree = sample.next_version(old)
        del tree["main.py"]
        least, floor = bench.least_cycles(sample.tar_gz_window(tree, 13), old, 13)
        name = "… with a window of 8 KB, as insigh_ota.package makes it"
        rows.append(Figure(name, "–", f"{least} KB", f"{floor} KB"))
    return {"heap": figures_table(rows)}, {}


def heap32(laboratory: Laboratory) -> Result:
    """What is in use at each step, on 32-bit words, in each release that loads .mpy."""
    names = [release.name for release in releases() if release.mpy]
    with heap_figures.Bench(laboratory) as bench:
        found = {name: heap32_figures.measure(bench, name) for name in names}
    steps = list(found[names[0]])
    rows = [(step, *(f"{found[name][step]:,}" for name in names)) for step in steps]
    return {"heap32": table(("in use, bytes", *names), rows)}, {}


def peaks(laboratory: Laboratory) -> Result:
    """The heap over a cycle, and its peak against the size and the members of a package."""
    tables, plots = {}, {}
    with heap_figures.Bench(laboratory) as bench:
        old, packages = heap_figures.packages()
        lines = {}
        for form, package in packages.items():
            samples = bench.watch(package, old, 10)
            lines[f".{form}"] = [(n, s.after / KB) for n, s in enumerate(samples)]
            if form == "tar":
                tables["phases"] = _phases(samples)
        title = "Heap in use during an update, after a collection"
        plots["bench-heap.svg"] = svg(title, "looks", "KB", lines)
        rows = []
        sizes = [(1, size) for size in (KB, 64 * KB, KB * KB, 8 * KB * KB)]
        for members, size in [*sizes, (10, KB), (100, KB), (1000, KB)]:
            tree = {f"data/{n:04}": b"%01024d" % n * (size // KB) for n in range(members)}
            package = sample.tar(tree, tar_format=tarfile.USTAR_FORMAT)
            samples = bench.watch(package, {}, 1 if size == KB else 32, blocks=5200)
            peak = max(s.after for s in samples if s.step in ("bytes", "file"))
            rows.append((members, f"{size:,}", f"{peak:,}"))
    tables["peaks"] = table(("members", "bytes of each", "peak, bytes"), rows)
    return tables, plots


def _phases(samples: list[heap_figures.Sample]) -> str:
    """The highest use of each step of the first boot, and the modules that are loaded then."""
    rows: dict[str, tuple[int, str]] = {}
    for one in samples:
        if one.step == "confirm":
            break
        if one.after > rows.get(one.step, (0, ""))[0]:
            rows[one.step] = one.after, one.modules.replace(",", " ")
    return table(
        ("step", "in use, bytes", "modules of the agent"),
        [(step, f"{used:,}", modules) for step, (used, modules) in rows.items()],
    )


def wear(laboratory: Laboratory) -> Result:
    """1,000 updates, erases counted by block."""
    worn = endurance.wear(laboratory)
    life = worn.most * endurance.LIFE / worn.updates
    what = f"{worn.updates:,} updates on {len(worn.erased)} blocks: most erases of a block"
    rows = [
        Figure(what, "–", f"{worn.most}, mean {worn.mean:.1f}"),
        Figure("maximum over mean", "–", f"{worn.most / worn.mean:.2f}", "1"),
        at_most("most erases in ten years of monthly updates", 100_000, round(life), "erases"),
        at_most(f"flash operations of {worn.updates:,} idle wakes", 0, worn.idle, "operations"),
    ]
    return {"wear": figures_table(rows)}, {}


def compilers(laboratory: Laboratory) -> Result:
    """Which releases of mpy-cross take the code, and what it was run on."""
    scratch = Path(laboratory.folder)
    rows = []
    for release in compiler_figures.RELEASES:
        outcome = compiler_figures.compiles(release, laboratory.firmware, scratch)
        run = [each.name for each in releases() if each.short == release]
        if release == "1.29":
            run.append("1.29.0-preview (Unix port)")
        rows.append((release, outcome, ", ".join(run) or "no"))
    return {"compilers": table(("release", "compiles", "has been run"), rows)}, {}


def chip(laboratory: Laboratory) -> Result:
    """The interpreter's instructions as time on a chip, beside that of its flash."""
    if not chip_figures.can_count("chip"):
        return {}, {}
    tree = dict(sorted(sample.application().items()))
    counted = traffic.measure(laboratory, "chip", {}, tree)
    flash_s = (counted.erases * speed.ERASE_MS + counted.programmed / 256 * speed.PAGE_MS) / 1000
    figures, rows, lines, stretches = [], [], [], {}
    for form, pack in (".tar", sample.tar), (".tar.gz", sample.tar_gz):
        package = pack(tree)
        whole, floor = (
            measure(laboratory, package) for measure in (chip_figures.update, chip_figures.floor)
        )
        kinds = whole.kinds()
        beyond = whole.total() - floor.total()
        least, likely, most = (chip_figures.seconds(beyond, n) for n in chip_figures.CYCLES)
        figures.append(
            at_most(
                f"the interpreter's share of {form}, beside the flash's {flash_s:.1f} s",
                15,
                100 * likely / flash_s,
                "%",
                f"{floor.total() / 1e6:.1f} million instructions",
            )
        )
        rows.append(
            (
                form,
                *(_millions(n) for n in (whole.total(), floor.total(), beyond)),
                *(_millions(kinds[kind]) for kind in ("collecting", "check sums", "inflating")),
                f"{likely:.1f} s ({least:.1f} to {most:.1f})",
            )
        )
        for name, part in whole.stretches.items():
            stretches.setdefault(name, [name]).append(_millions(part.total()))
        found = chip_figures.fit(laboratory, pack)
        lines.append(
            (
                form,
                _millions(found.fixed),
                f"{found.member / 1000:,.0f}",
                f"{found.kilobyte / 1000:,.0f}",
            )
        )
    header = ("package", "update", "floor", "beyond it", "of the update: collecting")
    header += ("check sums", "inflating", "beyond the floor at 240 MHz")
    return {
        "chip": figures_table(figures),
        "chip counts": table(header, rows),
        "chip stretches": table(("stretch", ".tar", ".tar.gz"), stretches.values()),
        "chip fit": table(("package", "fixed", "a member, thousand", "a KB, thousand"), lines),
    }, {}


def _millions(count: float) -> str:
    return f"{count / 1e6:,.1f}"


def signed(laboratory: Laboratory) -> Result:
    """What a signed manifest costs beside the same package without one."""
    tree = sample.application()
    whole = signing.sign(tree, 1, 7)
    folder = laboratory.bundle(
        "signed",
        agent=laboratory.agent_tree(),
        live={"/ota.key1": signing.modulus(1)},
        package=sample.tar(tree),
        signed=sample.tar(whole),
        manifest=whole[signing.MANIFEST],
        floor=on_flash(tree),
    )
    found = laboratory.measure("signed", folder, traffic.BLOCKS, speed.ROUNDS)
    plain, with_it, hashing = (min(column) / 1000 for column in zip(*found["times"], strict=True))
    receive_us, receive_bytes, verify_us, verify_bytes = found["manifest"]
    sizes = code_figures.sizes(laboratory)
    code_bytes = sum(sizes[f"ota/package/{name}"] for name in ("signed", "manifest", "signature"))
    rows = [
        ("code as .mpy, loaded only for such a package", f"{code_bytes:,} bytes"),
        (
            f"manifest of {len(tree)} files",
            f"{len(whole[signing.MANIFEST]):,} bytes on flash until the end of the trial",
        ),
        (
            "to receive, check and verify it",
            f"{receive_us / 1000:.1f} ms, {receive_bytes:,} bytes of garbage",
        ),
        (
            "… of which the signature",
            f"{verify_us / 1000:.1f} ms, {verify_bytes:,} bytes of garbage",
        ),
        ("SHA-256 of the payload, alone", f"{hashing:.1f} ms"),
        ("staging and install, unsigned", f"{plain:.0f} ms"),
        (
            "staging and install, signed",
            f"{with_it:.0f} ms: {(with_it - plain) / hashing:.1f} × SHA-256 of the payload more",
        ),
    ]
    return {"signed": table(("what", "cost"), rows)}, {}
