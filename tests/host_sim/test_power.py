"""Flash rules and power: torn states, operation counts, flash errors, cut storms."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from host_sim.node import flash
from host_sim.node.flash_rules import (
    BLOCK,
    ERASE,
    PROGRAM,
    SYNC,
    TORN_KINDS,
    Operation,
    Traffic,
    cut_state,
    torn,
)
from host_sim.node.node import Node

WRITE = """
import machine
with open('/x', 'wb') as f:
    for i in range(20): f.write(b'0123456789abcdef' * 32)
machine.deepsleep(1)
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    root = tmp_path / "root"
    root.mkdir()
    (root / "main.py").write_text(WRITE)
    flash.build(root, tmp_path / "node.img", blocks=16, agent=False)
    return Node(tmp_path / "node.img", stock=False)


# Torn states, byte by byte

OLD, NEW = b"\xff" * 64, bytes(range(64))


@pytest.mark.parametrize(
    ("kind", "written"), [("none", 0), ("first", 1), ("half", 32), ("allbut", 63), ("done", 64)]
)
def test_torn_prefix(kind: str, written: int) -> None:
    for old, new in ((OLD, NEW), (NEW, OLD)):  # a program and an erase
        assert torn(old, new, kind, random.Random(1)) == new[:written] + old[written:]


def test_torn_bits() -> None:
    first = torn(OLD, NEW, "bits", random.Random(1))
    assert first == torn(OLD, NEW, "bits", random.Random(1))
    assert first != torn(OLD, NEW, "bits", random.Random(2))
    assert first not in (OLD, NEW)
    assert all(new & got == new for new, got in zip(NEW, first, strict=True))  # only clears
    leftover = torn(NEW, OLD, "bits", random.Random(1))
    assert all(old & got == old for old, got in zip(NEW, leftover, strict=True))  # only sets


def test_programming_only_clears_bits() -> None:
    area = bytearray(b"\x0f" * 32)
    cut_state(area, Operation(PROGRAM, 0, 32, b"\xf1" * 32), [], "done", random.Random(1))
    assert area == b"\x01" * 32


def ordered(kind: str, synced: bool, seed: int = 1, apart: int = BLOCK) -> str:
    """A device with three writes a, b and (at the cut) c; which of them are in the flash."""
    a, b, c = (Operation(PROGRAM, apart * i, 32, bytes([i]) * 32) for i in range(3))
    area = bytearray(b"\xff" * 3 * BLOCK)
    for done in (a, b):
        area[done.at : done.at + 32] = done.data
    before = [Operation(SYNC, 0, 0), a, b] + [Operation(SYNC, 0, 0)] * synced
    cut_state(area, c, before, kind, random.Random(seed))
    present = [area[apart * i : apart * i + 32] != b"\xff" * 32 for i in range(3)]
    return "".join(name for name, there in zip("abc", present, strict=True) if there)


def test_writes_lost_and_out_of_order() -> None:
    assert ordered("lost", synced=False) == "a"
    assert ordered("swap", synced=False) == "ac"
    assert ordered("lost", synced=True) == "ab"
    assert ordered("swap", synced=True) == "abc"
    assert {ordered("scatter", False, seed) for seed in range(99)} >= {"", "a", "bc", "abc"}
    assert {ordered("scatter", True, seed) for seed in range(99)} == {"ab", "abc"}


def test_the_order_within_a_block_is_kept() -> None:
    assert ordered("swap", synced=False, apart=32) == "a"
    assert {ordered("scatter", False, seed, 32) for seed in range(99)} == {"", "a", "ab", "abc"}


def test_a_lost_erase_brings_the_old_content_back() -> None:
    old = bytes(range(256)) * 16
    erase = Operation(ERASE, 0, 4096, old)
    area = bytearray(b"\xff" * 4096)
    cut_state(area, Operation(PROGRAM, 0, 32, b"\0" * 32), [erase], "lost", random.Random(1))
    assert area == old


# Counting


def test_counts(node: Node) -> None:
    run = node.run(wear=True)
    assert run.exit_code == 0
    assert 10240 < run.prog_bytes < 12000
    assert run.erases == sum(run.wear.values()) > 2
    assert run.ops > run.prog_bytes // 128
    assert run.events[-1]["ops"] == run.ops
    assert sum(run.events[-1]["wear"].values()) == run.erases


def test_a_failed_operation_counts_but_programs_nothing() -> None:
    traffic = Traffic()
    traffic.add([Operation(4, 0, 0), Operation(PROGRAM, 0, 64), Operation(SYNC, 0, 0)])
    assert (traffic.ops, traffic.prog_bytes, traffic.syncs) == (2, 64, 1)


def test_operations_count_on_over_boots(node: Node) -> None:
    once = node.run().ops
    code = "import machine\nfor n in 'ab':\n with open(n, 'w') as f: f.write(n)\n"
    together = node.exec(code).ops
    node.exec("import os\nos.remove('a')\nos.remove('b')")
    split = """
import machine, os
n = 'b' if 'a' in os.listdir() else 'a'
with open(n, 'w') as f: f.write(n)
if n == 'a': machine.reset()
"""
    assert node.exec(split).ops == together
    assert once > together


def test_wear_is_levelled_over_runs(node: Node) -> None:
    first, second = (node.run(wear=True).wear for _ in range(2))
    assert first and second


# NOR rules


def test_littlefs_keeps_the_nor_rules(node: Node) -> None:
    assert node.run().nor_violations == 0


def test_programming_over_unerased_bytes_is_seen(node: Node) -> None:
    code = """
import _sim
_sim.ioctl(6, 15)
_sim.writeblocks(15, b'\\x0f' * 64, 0)
_sim.writeblocks(15, b'\\x33' * 32, 32)
_sim.writeblocks(15, b'\\x33' * 64, 64)
print(_sim.ioctl(4, 0))
"""
    run = node.exec(code)
    assert run.nor_violations == 1
    assert run.events[1] == {"event": "nor_violation", "op": 3, "at": 15 * 4096 + 32}
    block = node.image.read_bytes()[-4096:]
    assert block == b"\x0f" * 32 + b"\x03" * 32 + b"\x33" * 64 + b"\xff" * (4096 - 128)


# Cuts


def test_the_dead_device_takes_nothing_more(node: Node) -> None:
    code = """
try:
    while True:
        with open('/x', 'w') as f: f.write('x')
finally:
    open('/finally', 'w').close()
"""
    run = node.exec(code, cut=9)
    assert run.names() == ["boot", "power_cut", "flash"]
    assert (run.exit_code, run.ops, run.events[1]["op"]) == (3, 9, 9)
    assert "/finally" not in flash.read_tree(node.image)


def test_a_cut_in_the_finaliser_of_an_unclosed_file(node: Node) -> None:
    code = "import gc\nf = open('/x', 'w')\nf.write('x')\nf = None\ngc.collect()\nprint('end')"
    assert node.exec(code).output == "end\n"
    ops = node.exec(code).ops
    assert ops > 0
    for cut in range(1, ops + 1):
        assert node.exec(code, cut=cut).exit_code == 3


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", TORN_KINDS)
def test_cut_at_every_operation(node: Node, kind: str) -> None:
    """The file is old or new after any cut, for littlefs in MicroPython and for the oracle."""
    fresh = node.image.read_bytes()
    node.exec("with open('/x', 'w') as f: f.write('old')")
    start = node.image.read_bytes()
    ops = node.run().ops
    new = flash.read_tree(node.image)["/x"]
    assert fresh != start
    seen = set()
    for cut in range(1, ops + 1):
        node.image.write_bytes(start)
        run = node.run(cut=cut, torn=kind, seed=3)
        assert (run.exit_code, run.ops) == (3, cut)
        content = flash.read_tree(node.image)["/x"]
        assert content in (b"old", new), cut
        seen.add(content)
        after = node.run()
        assert (after.exit_code, after.nor_violations) == (0, 0), cut
        assert flash.read_tree(node.image)["/x"] == new
    assert b"old" in seen
    if kind not in ("bits", "scatter"):
        assert (new in seen) == (kind in ("done", "swap", "allbut"))


def test_the_same_cut_gives_the_same_flash(node: Node) -> None:
    start = node.image.read_bytes()

    def after(seed: int) -> bytes:
        node.image.write_bytes(start)
        node.exec("with open('/y', 'wb') as f: f.write(bytes(200))", cut=3, torn="bits", seed=seed)
        return node.image.read_bytes()

    assert after(1) == after(1) != after(2)


# Errors without a cut


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_flash_errors(node: Node, name: str) -> None:
    code = """
for i in range(3):
    try:
        with open('/y', 'wb') as f: f.write(bytes(6000))
        print('ok')
    except OSError as e: print(e.errno)
"""
    number = str(getattr(errno, name))
    assert node.exec(code, fail=(5, name)).output.split() == [number, "ok", "ok"]
    assert node.exec(code, fail=(5, name), persistent=True).output.split() == [number] * 3


# Storms


def test_cut_storm(node: Node) -> None:
    needed = node.run().ops
    run = node.run(storm=needed // 2, max_boots=6)
    assert run.names() == ["boot", "power_cut"] * 6 + ["boot_limit", "flash"]
    assert [e["wake"] for e in run.events if e["event"] == "boot"] == [1, 2, 3, 4, 5, 6]
    assert {e["cause"] for e in run.events if e["event"] == "boot"} == {"power_on"}
    assert [e["op"] for e in run.events if e["event"] == "power_cut"] == [
        (needed // 2 + 1) * i for i in range(1, 7)
    ]
    assert run.exit_code == 1
    calm = node.run(storm=needed * 2)
    assert (calm.names(), calm.exit_code) == (["boot", "sleep", "flash"], 0)
