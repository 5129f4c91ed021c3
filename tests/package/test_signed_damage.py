"""Single bits of signed packages, flipped: nothing that was not signed is staged, or installed."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from host_sim.sample import Tree
from tests.package.hostile.raw import OLD_TREE
from tests.package.signed.node import follow
from tests.package.signed.packages import package
from tests.private_names import private

# With a file that the node has already, so that its content is only compared.
FILES: Tree = {
    "lib/driver.py": OLD_TREE["/lib/driver.py"],
    "new.bin": bytes(range(256)) * 3,
}


def places(content: bytes) -> tuple[range, list[int], list[int]]:
    """The bits of a .tar: (the manifest's, those of files, all others)."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            at = member.offset_data
            members.append(range(8 * at, 8 * (at + member.size)))
    files = [bit for bits in members[1:] for bit in bits]
    others = set(range(8 * len(content))).difference(members[0], files)
    return members[0], files, sorted(others)


def flip(compiled: Path, scratch: Path, content: bytes, bits: list[int], how: str) -> list:
    """What the device made of each of the bits."""
    code = f"signed_flips.{how}(node, bundle, {len(content)}, {bits!r})"
    (found,) = follow(compiled, scratch, [("take", content)], code=code)
    return found


@pytest.mark.slow
def test_flips_of_files_are_never_staged(compiled: Path, tmp_path: Path):
    """5,000 bits of what a package brings, down from the download to what waits for the commit."""
    content = package(FILES)
    _, files, others = places(content)
    rng = random.Random(8)
    sampled, beside = rng.sample(files, 5000), rng.sample(others, 300)
    staged, digits = flip(compiled, tmp_path, content, sampled + beside, "flips")
    assert staged > 3
    assert digits[:5000] == "0" * 5000
    # What fills up blocks, and owners or times in headers, mean nothing: what is staged then is
    # to the last byte what is signed.
    assert set(digits[5000:]) == {"0", "1"}


@pytest.mark.slow
def test_flips_of_the_manifest_are_refused_before_anything_is_staged(
    compiled: Path, tmp_path: Path
):
    """A sample through the whole agent; test_manifest.py has all of them."""
    content = package(FILES, deleted=("data/log.csv",), board="esp32-s3 rev. 2", requires=0)
    manifest, _, _ = places(content)
    bits = random.Random(9).sample(manifest, 300)
    assert flip(compiled, tmp_path, content, bits, "whole_flips") == [0, "0" * 300]


@pytest.mark.parametrize("how", ["flips", "whole_flips"])
def test_a_flip_that_slips_through_is_seen(compiled: Path, tmp_path: Path, how: str):
    """On a node that neither compares hashes nor looks at the signature."""
    content = package(FILES)
    manifest, files, _ = places(content)
    bits = random.Random(7).sample(files if how == "flips" else manifest, 20)
    compare = private(compiled, "package/signed", "_compare")
    verify = private(compiled, "package/manifest", "_verify")
    lenient = f"""
from ota.package import manifest, signed
signed.SignedReader.{compare} = manifest.{verify} = lambda *_: None
"""
    code = lenient + f"signed_flips.{how}(node, bundle, {len(content)}, {bits!r})"
    (found,) = follow(compiled, tmp_path, [("take", content)], code=lenient + code)
    assert "2" in found[1]
