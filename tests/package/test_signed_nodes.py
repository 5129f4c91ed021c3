"""Signed packages from the packager through console and broker to the flash of a node."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.sample import Tree, write_tree
from insigh_ota.package.__main__ import main
from tests import signing
from tests.conftest import MakeSite
from tests.secrecy import WatchedSite
from tests.signing import need

OLD: Tree = {
    "main.py": sample.main_py(1),
    "lib/kept.py": b"kept = 1\n",
    "lib/changed.py": b"changed = 1\n" * 300,
    "lib/twin.py": b"twin = 1\n",
    "lib/gone.py": b"gone = 1\n",
    "gone.txt": b"in the root\n",
    "data/log.csv": b"1,2\n" * 500,
    "a.pub": signing.key(1).modulus,
}
NEW: Tree = {
    "main.py": sample.main_py(2),
    "boot.py": b"import sys\nsys.modules['seen_by'] = 'their boot.py'\n",
    "lib/kept.py": OLD["lib/kept.py"],
    "lib/changed.py": b"changed = 2\n" * 300,
    "lib/twin.mpy": b"M\x06\x00\x1f",
    "new/folder/größe ä.txt": b"new\n",
    "b.pub": signing.key(2).modulus,
}
GONE = ("lib/gone.py", "gone.txt", "lib/none.py", "none/none.py")
KEYS = {"keys": ["/a.pub", "/b.pub"], "require_signature": True}


def make_package(
    folder: Path, tree: Tree, *words: object, key: int | None = 1, name: str = "p.tar"
) -> bytes:
    """A package as the command line makes it."""
    folder.mkdir(exist_ok=True)
    source, out = write_tree(tree, folder / f"app{len(list(folder.iterdir()))}"), folder / name
    if key:
        words = (*words, "--key", signing.key(key).write(folder)[0])
    assert main([str(w) for w in ("build", source, "--out", out, *words)]) == 0
    return out.read_bytes()


def installed(site: WatchedSite, gone: tuple[str, ...] = GONE) -> Tree:
    """What is to be on flash, on a node whose boot.py stays."""
    new = {"/" + name: content for name, content in NEW.items()}
    new["/boot_user.py"], new["/boot.py"] = new["/boot.py"], site.files["/boot.py"]
    gone = (*gone, "lib/twin.py")
    return {name: c for name, c in (site.files | new).items() if name[1:] not in gone}


@pytest.mark.check
@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz"])
def test_a_signed_package_updates_a_node(make_site: MakeSite, tmp_path: Path, name: str):
    words = ["--sequence", 7, "--board", "b1", "--requires", 0]
    words += [word for path in GONE for word in ("--delete", path)]
    content = make_package(tmp_path / "desk", NEW, *words, name=name)
    site = make_site(OLD, config=KEYS | {"board": "b1"})
    fuid = site.ask(content, name)
    run = site.run()
    assert run.names() == ["boot", "reset", "boot", "sleep", "flash"], run.output
    assert "version 2 runs\nota: confirm" in run.output
    assert site.flash_files() == installed(site) | {"/ota.sequence": b"7"}
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    assert site.retained() is None
    assert "none" not in " ".join(site.flash_folders())

    # The same once more changes nothing; an older one, or the same without a manifest, is refused.
    assert site.ask(content, name)
    assert "check: installed" in site.run().output
    older = make_package(tmp_path / "desk", OLD, "--sequence", 6)
    for refused, reason in (
        (older, "manifest: sequence 6 is older than 7"),
        (sample.tar(OLD), "manifest: there is none, and this node requires it"),
    ):
        site.ask(refused, "p.tar")
        assert "check: failed" in site.run().output
        assert site.reports()[-1]["m"] == reason
    assert site.flash_files() == installed(site) | {"/ota.sequence": b"7"}
    assert site.run().ops == 0


def test_bad_code_that_was_signed_is_rolled_back(make_site: MakeSite, tmp_path: Path):
    """Deletions, keys and all; the number stays, so that its mended form may have it."""
    words = [word for path in GONE for word in ("--delete", path)]
    bad = make_package(tmp_path / "desk", NEW | {"main.py": b"1/0\n"}, "--sequence", 7, *words)
    good = make_package(tmp_path / "desk", NEW, "--sequence", 7, *words)
    site = make_site(OLD, config=KEYS)
    site.ask(bad, "p.tar")
    run = site.run(timeout_s=30)
    assert "check: rolled_back" in run.output, run.output
    assert site.flash_files() == site.files
    assert site.flash_folders() == site.folders
    assert site.reports()[-1]["m"] == "rolled back: 3 boots without confirm"
    site.ask(good, "p.tar")
    assert "check: confirmed" in site.run().output
    assert site.flash_files() == installed(site) | {"/ota.sequence": b"7"}


@pytest.mark.slow
def test_power_cuts_around_the_floor(make_site: MakeSite, tmp_path: Path):
    """The number counts already and the trial is still open: it is confirmed all the same."""
    content = make_package(tmp_path / "desk", {"main.py": sample.main_py(2)}, "--sequence", 7)
    site = make_site(OLD, config=KEYS)
    site.ask(content, "p.tar")
    site.run(stop=lambda event: event["event"] == "reset")
    trial = site.image.read_bytes()
    seen = set()
    for cut in range(1, 12):
        site.image.write_bytes(trial)
        run = site.run(cut=cut)
        files = site.flash_files()
        seen.add((files.get("/ota.sequence"), "/.ota/state" in files))
        # Now, not in a later wake: until then nothing could be rolled back any more.
        run = site.run()
        assert "version 1" not in run.output
        new = {"/main.py": sample.main_py(2), "/ota.sequence": b"7"}
        assert site.flash_files() == site.files | new, cut
    assert seen == {(None, True), (b"7", True), (b"7", False)}


def test_plain_tar_unpacks_a_signed_package(tmp_path: Path):
    """As firmware does that knows nothing of manifests: it gets one more small file."""
    make_package(tmp_path / "desk", NEW, "--sequence", 7, "--delete", "gone.txt", name="p.tar.gz")
    target = tmp_path / "node"
    target.mkdir()
    command = [need("tar"), "-xzf", tmp_path / "desk" / "p.tar.gz", "-C", target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    files = [path for path in target.rglob("*") if path.is_file()]
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in files}
    assert found.pop(".ota-manifest").startswith(b"insigh-ota-manifest 1\nkey ")
    assert found == NEW


def test_a_node_without_keys_follows_the_manifest(make_site: MakeSite, tmp_path: Path):
    """The manifest is followed, its signature is nobody's, and its number does not count."""
    content = make_package(tmp_path / "desk", NEW, "--sequence", 7, "--delete", "gone.txt", key=2)
    site = make_site(OLD)
    site.ask(content, "p.tar")
    assert "check: confirmed" in site.run().output
    assert site.flash_files() == installed(site, ("gone.txt",))
