"""Single bits of packages with an index, and of what nodes have, flipped: never a wrong file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from host_sim.sample import Tree
from tests import every
from tests.package.wanted import absolute, in_order, package, run, text
from tests.private_names import private

_A, _B = text(1, 420), text(2, 260)
# All that is fetched of it is its beginning, two patches and two files.
OLD: Tree = {
    "data.bin": random.Random(5).randbytes(15_800),
    "a.py": _A,
    "b.py": _B,
    "z.py": b"0\n",
}
NEW: Tree = OLD | {"a.py": _A[:150] + b"# changed\n" + _A[150:], "b.py": _B[:100] + _B[110:]}
NEW |= {"new.py": text(3, 300), "z.py": b"1\n"}
PACKAGE, LAYOUT = package(NEW, OLD)
RANGES = LAYOUT.wanted(in_order(NEW), OLD)
BITS = [8 * at + bit for at in sorted({at for part in RANGES for at in part}) for bit in range(8)]
# A longer list would need more heap, and each collection looks at all of it.
_IN_A_PROCESS = 1000
OLD_BITS = [
    (f"/{path}", bit) for path in ("a.py", "b.py", "z.py") for bit in range(8 * len(OLD[path]))
]


def flip(agent: Path, scratch: Path, bits: list, how: str, lenient: str = "") -> str:
    """What the device made of each of the bits."""
    code = f"{lenient}\nwanted_probe.{how}(node, bundle, {len(PACKAGE)}, BITS, NEW)"
    digits = ""
    for at in range(0, len(bits), _IN_A_PROCESS):
        ((found,),) = run(
            agent,
            scratch,
            absolute(OLD),
            [(PACKAGE,)],
            code=code,
            timeout_s=900,
            BITS=bits[at : at + _IN_A_PROCESS],
            NEW=absolute(NEW),
        )
        digits += found
    assert len(digits) == len(bits)
    return digits


def test_the_package_has_what_is_flipped():
    assert len(PACKAGE) > 16 * 1024
    assert len(RANGES) == 5
    assert sum(map(len, RANGES)) < 3000


@pytest.mark.check
def test_flips_of_what_is_fetched(compiled: Path, tmp_path: Path):
    """Refused, or what it says about times and owners does not matter, or the way to a file."""
    found = flip(compiled, tmp_path, random.Random(1).sample(BITS, 600), "flips")
    assert set(found) == {"0", "1"}
    assert found.count("0") > 200


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_flips_of_what_is_fetched(compiled: Path, tmp_path: Path, part: int):
    found = flip(compiled, tmp_path, every.sample(BITS[part::4], 20), "flips")
    assert set(found) == {"0", "1"}


def test_flips_of_what_is_there(compiled: Path, tmp_path: Path):
    """The node fetches the whole file then."""
    bits = random.Random(2).sample(OLD_BITS, 200)
    bits += [("/data.bin", bit) for bit in random.Random(3).sample(range(8 * 15_800), 20)]
    assert flip(compiled, tmp_path, bits, "old_flips") == "1" * len(bits)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_flips_of_what_is_there(compiled: Path, tmp_path: Path, part: int):
    bits = every.sample(OLD_BITS[part::4], 20)
    assert flip(compiled, tmp_path, bits, "old_flips") == "1" * len(bits)


def test_flips_behind_the_look(compiled: Path, tmp_path: Path):
    """What has changed since the node has looked is seen: the next wake looks again."""
    bits = random.Random(4).sample(OLD_BITS, 40)
    assert flip(compiled, tmp_path, bits, "late_flips") == "1" * 40
    # This one was as it should be, and nothing would come for it.
    bits = [("/data.bin", bit) for bit in random.Random(6).sample(range(8 * 15_800), 10)]
    assert flip(compiled, tmp_path, bits, "late_flips") == "1" * 10
    gone = [(f"/{path}", None) for path in ("data.bin", "b.py", "z.py")]
    assert flip(compiled, tmp_path, gone, "late_flips") == "111"


def test_a_flip_that_slips_through_is_seen(compiled: Path, tmp_path: Path):
    """On a node that compares no hashes."""
    compare = private(compiled, "package/signed", "_compare")
    lenient = f"""
from ota.package import signed
signed.SignedReader.{compare} = lambda *_: None
"""
    bits = [8 * at + 3 for part in RANGES[2:] for at in part]
    found = flip(compiled, tmp_path, random.Random(5).sample(bits, 120), "flips", lenient)
    assert "2" in found
