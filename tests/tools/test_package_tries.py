"""`--try`: what a node that requires a signature says to a package, before it is written."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from host_sim.node import flash
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree, write_tree
from insigh_ota.package.__main__ import main
from tests import signing

TREE: Tree = {
    "main.py": b"raise SystemExit\n",
    "lib/x.py": b"x = 1\n",
    "lib/old.py": b"old = 1\n",
    "a.pub": signing.key(1).modulus,
    "ota.sequence": b"3",
}
SAME = {"lib/x.py": TREE["lib/x.py"]}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flash of a node that has confirmed sequence 3."""
    folder = tmp_path_factory.mktemp("node")
    config = {"device_id": DEVICE_ID, "device_key": DEVICE_KEY, "control_channel": CONTROL_CHANNEL}
    config |= {"keys": ["/a.pub"], "require_signature": True}
    write_tree(TREE | {"ota.json": json.dumps(config).encode()}, folder / "root")
    flash.build(folder / "root", folder / "node.img", mpy=True, blocks=128)
    return folder / "node.img"


@pytest.fixture
def tried(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Build a package of a tree and try it; gives what was printed, and sees to the rest."""
    before = image.read_bytes()

    def attempt(tree: Tree, *words: object, key: int | None = 1) -> str:
        source = write_tree(tree, tmp_path / f"app{len(list(tmp_path.iterdir()))}")
        out = source.with_suffix(".tar.gz")
        if key:
            words = (*words, "--key", signing.key(key).write(tmp_path)[0])
        command = ("build", source, "--out", out, "--try", image, *words)
        code = main([str(word) for word in command])
        printed, refused = capsys.readouterr()
        assert image.read_bytes() == before
        assert out.exists() == (code == 0)
        assert (code, bool(refused)) in ((0, False), (2, True))
        return refused or printed

    return attempt


@pytest.mark.slow
def test_what_a_signed_package_costs(tried):
    tree = {"lib/data.bin": random.Random(1).randbytes(20_000)}
    told = tried(tree, "--sequence", 4, "--delete", "lib/old.py")
    programmed, erased = map(
        int, re.search(r"(\d+) bytes prog\w+ and (\d+) blocks", told).groups()
    )
    assert 20_000 < programmed < 45_000
    assert 5 <= erased < 20
    before, after = map(int, re.search(r"4096 bytes: (\d+) before, (\d+) after", told).groups())
    assert 4 <= before - after <= 7
    assert "the node took sequence 3 or higher before, 4 or higher after" in told
    assert "nothing would change" not in told
    assert "1 files, 1 deletions, signed with key " + signing.key(1).id in told


@pytest.mark.slow
def test_a_package_that_changes_nothing(tried):
    """The number may rise all the same, and what that costs is told."""
    for words in (["--sequence", 3], ["--sequence", 3, "--delete", "none.py"]):
        told = tried(SAME, *words)
        assert "the node has all of it already: nothing would change" in told
        assert "or higher" not in told
    told = tried(SAME, "--sequence", 5)
    assert "nothing would change" in told
    assert "3 or higher before, 5 or higher after" in told
    assert 0 < int(re.search(r"(\d+) bytes programmed", told)[1]) < 5_000
    # A deletion is a change.
    assert "nothing would" not in tried(SAME, "--sequence", 3, "--delete", "lib/old.py")


@pytest.mark.slow
def test_what_that_node_does_not_take(tried):
    reasons = {
        "manifest: sequence 2 is older than 3": tried(SAME, "--sequence", 2),
        "manifest: unknown key " + signing.key(2).id: tried(SAME, "--sequence", 4, key=2),
        "manifest: not signed, and this node requires it": tried(SAME, key=None),
        "manifest: for board b, this is unknown": tried(SAME, "--sequence", 4, "--board", "b"),
        "manifest: requires sequence 4, this is 3": tried(SAME, "--sequence", 5, "--requires", 4),
        "ota.sequence is the node's own": tried({"ota.sequence": b"0"}, "--sequence", 4),
    }
    for reason, told in reasons.items():
        assert reason in told, told


@pytest.mark.parametrize("path", ["lib/x.py", "lib"])
def test_a_file_and_a_folder_do_not_change_places(tried, path: str):
    """As `git diff` would have it; the node would refuse it as well."""
    tree, gone = {path + "/new.py": b""}, path
    if path == "lib":
        tree, gone = {"lib": b""}, "lib/x.py"
    told = tried(tree, "--sequence", 4, "--delete", gone)
    assert f"{gone} is deleted where a file becomes a folder, or a folder a file" in told
