"""What the agent costs may not grow unseen: flash bytes, erases, heaps and sizes, all exact.

Each limit is what `make bench` states, plus a little. Times are not held: they are the machine's.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from host_sim.bench import code, heap, traffic
from host_sim.bench.cli import DOCS, PARTS
from host_sim.bench.laboratory import Laboratory
from host_sim.console.download_handler import PATH
from host_sim.console.faults import Faults

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
    assert same.programmed <= 4 * KB
    assert same.erases <= 4


@pytest.mark.slow
def test_one_byte_costs_little_more_than_its_file(laboratory: Laboratory):
    one, blocks = traffic.one_byte(laboratory)
    assert one.end == "confirmed"
    assert one.programmed <= 1.3 * blocks * traffic.BLOCK
    assert one.erases <= 2 * blocks
    small, blocks = traffic.one_byte(laboratory, "main.py")
    assert blocks == 1
    assert small.programmed <= 3 * traffic.BLOCK
    assert small.erases <= 5


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
    assert sum(sizes.values()) <= 69 * KB + 512
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
        assert after - start <= 16 * KB
        assert bench.idles(34)
        assert bench.idles(36, heap.PIECES)
        assert not bench.idles(20)  # else this measures nothing
        old, packages = heap.packages()
        for form, least in ("tar", 81), ("tar.gz", 120):
            site = bench.site("only_check", "check()", old)
            fuid = bench.console.add_package(packages[form], f"p.{form}").fuid
            completes = bench.completes(site, fuid)
            assert completes(least), form
            # An address of four kilobytes, which is not held twice, takes little more.
            there = f"https://localhost:{bench.console.ports.https}{PATH}?{{query}}&x="
            bench.console.faults = Faults(redirect_to=there + "x" * 3800, times=1)
            assert completes(least + 2), form
            assert [download.status for download in bench.console.downloads[-2:]] == [302, 200]


def test_the_page_has_a_place_for_each_part():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for name in PARTS:
        assert f"<!-- {name} -->" in page
        assert f"<!-- end of {name} -->" in page
