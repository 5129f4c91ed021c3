"""What the agent costs may not grow unseen: flash bytes, erases, heaps, sizes, instructions.

Each limit is what `make bench` states, plus a little. Times are not held: they are the machine's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from host_sim import sample
from host_sim.bench import chip, code, heap, heap32, patches, traffic
from host_sim.bench.cli import DOCS, PARTS
from host_sim.bench.laboratory import Laboratory
from host_sim.console.download_handler import PATH
from host_sim.console.faults import Faults, in_turn
from tests.brokers import need

KB = 1024


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Laboratory() as made:
        yield made


def test_a_package_of_new_files_is_written_once(laboratory: Laboratory):
    new = traffic.all_new(laboratory)
    assert new.end == "confirmed"
    assert new.payload > 600_000
    assert new.payload < new.floor[0] < new.programmed
    assert new.programmed <= 1.10 * new.payload
    assert new.erases <= 1.15 * new.floor[1]


def test_unchanged_files_are_not_written(laboratory: Laboratory):
    same = traffic.unchanged(laboratory)
    assert same.end == "installed"
    assert same.programmed <= 10 * KB  # the names, where another wake would go on
    assert same.erases <= 5


@pytest.mark.slow
def test_one_byte_costs_little_more_than_its_file(laboratory: Laboratory):
    one, blocks = traffic.one_byte(laboratory)
    assert one.end == "confirmed"
    # The journal has a line for each of the others, with its path and CRC-32. By these another
    # wake, which does not fetch them again, sees that they are there as they were. 39 bytes each
    # in the mean; a mere note against names that come twice would take 17. The journal's copy has
    # none of them.
    lines = [f"u 0 0 12345678 /{name}\n" for name in sample.application()]
    assert one.journal <= sum(map(len, lines)) + 0.3 * KB
    # Beside it and the file: 3.3 KB for the copy of recovery, and what littlefs takes for names.
    assert one.programmed <= one.floor[0] + one.journal + 7 * KB
    assert one.programmed <= 1.35 * blocks * traffic.BLOCK
    assert one.erases <= 2 * blocks
    small, blocks = traffic.one_byte(laboratory, "main.py")
    assert blocks == 1
    assert small.programmed <= 3 * traffic.BLOCK
    assert small.erases <= 4 + -(-small.journal // traffic.BLOCK)


def test_a_member_costs_the_same_among_many(laboratory: Laboratory):
    costs = []
    for members in (100, 400):
        tree = {f"d{n // 40}/f{n}": b"%0200d" % n for n in range(members)}
        one = traffic.measure(laboratory, "growth", {}, tree)
        costs.append((one.programmed / members, one.erases / members, one.journal / members))
    for few, many in zip(*costs, strict=True):
        assert many <= 1.2 * few


def test_code_sizes(laboratory: Laboratory):
    sizes = code.sizes(laboratory)
    # Only a node that tells how an update goes on loads this.
    stat = sizes.pop("ota/stat")
    assert stat <= 2 * KB
    assert sum(sizes.values()) <= 87 * KB
    assert sum(sizes[name] for name in code.BOOT_PATH) <= 4 * KB
    assert max(sizes.values()) <= 4 * KB


def test_an_idle_node_asks_little_of_flash(laboratory: Laboratory):
    calls = code.boot_calls(laboratory)
    assert calls["boot"] == ["stat /.ota/state", "stat /boot_user.py"]
    assert calls["writes"] == 0


@pytest.mark.slow
def test_heaps(laboratory: Laboratory):
    with heap.Bench(laboratory) as bench:
        start, imported, after = bench.idle_use()
        assert imported - start <= 2 * KB
        assert after - start <= 11 * KB
        assert bench.idles(32)
        assert bench.idles(33, heap.PIECES)
        assert not bench.idles(20)  # else this measures nothing
        old, packages = heap.packages()
        for form, least in ("tar", 78), ("tar.gz", 115):
            site = bench.site("only_check", "check()", old)
            fuid = bench.console.add_package(packages[form], f"p.{form}").fuid
            completes = bench.completes(site, fuid)
            # Whether the last large piece fits depends on where a heap ends: one of 75 KB may fail
            # where 74 are enough.
            assert any(completes(least + more) for more in range(3)), form
            # An address of four kilobytes, which is not held twice, takes little more.
            there = f"https://localhost:{bench.console.ports.https}{PATH}?{{query}}&x="
            for more in range(3, 6):
                away = Faults(redirect_to=there + "x" * 3800, times=1)
                # Of a .tar.gz the first bytes are asked for alone.
                both = (away, Faults(times=1), away)
                bench.console.faults = in_turn(*both) if form == "tar.gz" else away
                if completes(least + more):
                    break
            else:
                pytest.fail(form)
            assert [download.status for download in bench.console.downloads[-2:]] == [302, 200]


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_instructions_of_an_update(laboratory: Laboratory, form: str):
    need("valgrind")
    tree = dict(sorted(sample.application().items()))
    package, most = {"tar": (sample.tar, 272), "tar.gz": (sample.tar_gz, 288)}[form]
    package = package(tree)
    update, floor = chip.update(laboratory, package), chip.floor(laboratory, package)
    assert update.ends == ["reset", "confirmed"]
    assert update.total() - floor.total() <= most * 1e6
    if form == "tar.gz":  # one byte after the other comes out of it, whoever asks
        assert floor.kinds()["inflating"] > len(package)
        assert update.kinds()["inflating"] == pytest.approx(floor.kinds()["inflating"], rel=0.05)


def test_instructions_are_the_same_at_each_run(laboratory: Laboratory):
    need("valgrind")
    package = sample.tar({f"d/{n}.txt": b"%01000d" % n for n in range(5)})
    once, again = (chip.update(laboratory, package).total() for _ in range(2))
    assert again == pytest.approx(once, rel=0.001)


def test_flash_of_an_update_by_patches(laboratory: Laboratory):
    one = patches.measure(laboratory, patches.next_version())
    assert one.traffic.end == "confirmed"
    assert one.package > 300_000
    assert one.fetched <= 22_500
    assert one.ratio <= 1.26
    assert one.traffic.erases <= 1.28 * one.traffic.floor[1]
    # Each file is written once: what is above the floor is the manifest, the journal and renames.
    assert one.traffic.floor[0] < one.by["files"] <= 1.02 * one.traffic.floor[0]
    assert sum(one.by.values()) <= one.traffic.programmed
    some = patches.measure(laboratory, patches.edited(150 * KB))
    assert some.fetched <= 7_100
    assert some.ratio <= 1.31


def test_instructions_of_patches(laboratory: Laboratory):
    need("valgrind")
    release = patches.next_version()
    assert patches.apply(laboratory, release.cases()).instructions <= 20_000
    assert patches.apply(laboratory, patches.compiled().cases()).instructions <= 1_150_000
    package = release.package(indexed=True)
    update = chip.update_by_ranges(laboratory, package, release.old)
    assert update.ends[:2] == ["reset", "confirmed"]
    assert update.ends[2] <= 22_500  # else it has come as a whole
    assert update.total() <= 690e6


#: Bytes in use on 32-bit words, in 1.28.0: what `make bench P=heap32` states, and a little. A
#: module that has been dropped may be counted, where a stale word refers to it: up to 4 KB. In
#: this large heap some is taken only because it is free: 3 KB with .tar, 8 KB with .tar.gz.
IN_USE = {
    "after `import ota`": 800,
    "after an idle check": 8_800,
    ".tar: request": 25_000,
    ".tar: space": 28_600,
    ".tar: download": 20_300,
    ".tar: while members arrive": 49_600,
    ".tar: commit": 41_900,
    ".tar: install": 41_900,
    ".tar: report": 41_900,
    ".tar: confirm, in the next boot": 36_900,
    ".tar.gz, window of 8 KB: while members arrive": 68_000,
    ".tar.gz, window of 32 KB: while members arrive": 92_500,
}


def test_what_is_in_use_on_32_bit_words(laboratory: Laboratory):
    need("releases")
    with heap.Bench(laboratory) as bench:
        found = heap32.measure(bench, heap32.GUARDED, 5, IN_USE)
        for _ in range(3):
            # What a stale word refers to differs from run to run: the least is what is in use.
            if all(used <= IN_USE.get(name, used) for name, used in found.items()):
                break
            again = heap32.measure(bench, heap32.GUARDED, 5, IN_USE)
            found = {name: min(used, again[name]) for name, used in found.items()}
    del found["start"]
    assert found.keys() == IN_USE.keys()
    assert {name: used for name, used in found.items() if used > IN_USE[name]} == {}
    # Else this measures nothing: the window alone is 32 KB.
    large, small = (f".tar.gz, window of {kb} KB: while members arrive" for kb in (32, 8))
    assert found[large] > found[small] + 20 * KB


def test_the_page_has_a_place_for_each_part():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for name in PARTS:
        assert f"<!-- {name} -->" in page
        assert f"<!-- end of {name} -->" in page
