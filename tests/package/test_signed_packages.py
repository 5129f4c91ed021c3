"""Packages with a manifest: deletions, what changes nothing, and nodes that take unsigned ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_sim import sample
from tests import signing
from tests.package.hostile.raw import OLD_TREE, folder
from tests.package.signed.node import FILES, KEYLESS, LENIENT, follow, on_flash, refused
from tests.package.signed.packages import NAME, A, B, archive, by_hand, package, root

REFUSED_DELETIONS = {
    "boot.py": "can not apply: nothing would start without /boot.py",
    "lib": "can not apply: a folder is not deleted: /lib",
    "boot_user.py": "can not apply: brought and deleted: /boot_user.py",
    "ota.json": "can not apply: protected path /ota.json",
    "ca.der": "can not apply: protected path /ca.der",
    "ota.sequence": "can not apply: protected path /ota.sequence",
    ".ota/journal": "can not apply: protected path /.ota/journal",
    ".ota": "can not apply: protected path /.ota",
    "data/log.csv": "can not apply: protected path /data/log.csv",
    "lib/new.py": "can not apply: brought and deleted: /lib/new.py",
    "lib/driver.py": "can not apply: brought and deleted: /lib/driver.py",
}


@pytest.mark.slow
def test_deletions_that_are_refused(compiled: Path, tmp_path: Path):
    files = {"lib/new.py": b"new = 1\n", "lib/driver.py": OLD_TREE["/lib/driver.py"]}
    # It knows no recovery, so it is as good as a boot_user.py, and the node has it already.
    files["boot.py"] = b"theirs = 1\n"
    on_node = FILES | {"/boot_user.py": files["boot.py"]}
    cases = []
    for name, reason in REFUSED_DELETIONS.items():
        cases.append((by_hand(files, deleted=(name,)), reason))
        cases.append((by_hand(files, deleted=("lib/fast.mpy", name)), reason))
    # What was a file can not become a folder at once, nor the other way round.
    inside, outside = {"lib/driver.py/x": b"x"}, {"lib": b"x"}
    reason = "can not apply: a folder where a file is: /lib/driver.py"
    cases.append((by_hand(inside, deleted=("lib/driver.py",)), reason))
    reason = "can not apply: a file where a folder is: /lib"
    cases.append((by_hand(outside, deleted=("lib/driver.py", "lib/fast.mpy")), reason))
    again = {"boot.py": files["boot.py"], "boot_user.py": b"other = 1\n"}
    cases.append((by_hand(again), "can not apply: the same name twice: /boot_user.py"))
    refused(compiled, tmp_path, cases, files=on_node, protected=["/data/log.csv"])


def test_deletions_of_what_is_not_there_cost_nothing(compiled: Path, tmp_path: Path):
    """What was removed since the first release may stand in a manifest, for nodes of any age."""
    gone = [f"none{n}/a/{m}.py" for n in range(20) for m in range(2)] + ["main.py/x"]
    content = package({"lib/new.py": b"new = 1\n"}, deleted=tuple(gone), sequence=3)
    (row,) = follow(compiled, tmp_path, [("take", content)], blocks=44)
    assert row["end"] == "confirmed", row["reason"]
    assert on_flash(row) == {"/lib/new.py": b"new = 1\n", "/ota.sequence": b"3"}


def test_a_package_of_deletions_only(compiled: Path, tmp_path: Path):
    content = package(deleted=("lib/driver.py", "main.py"), sequence=3)
    nothing = package(deleted=("none.py",), sequence=4)
    rows = follow(compiled, tmp_path, [("take", content), ("take", content), ("take", nothing)])
    assert [row["end"] for row in rows] == ["confirmed", "installed", "installed"]
    gone = {"/lib/driver.py": None, "/main.py": None}
    assert on_flash(rows[1]) == gone | {"/ota.sequence": b"3"}
    assert on_flash(rows[2]) == gone | {"/ota.sequence": b"4"}


def test_deletions_of_twins(compiled: Path, tmp_path: Path):
    """What a new form of a module retires may be deleted as well; one alone may be, too."""
    by_twin = by_hand({"lib/fast.py": b"fast = 1\n"}, deleted=("lib/fast.mpy",), sequence=1)
    alone = package(deleted=("lib/driver.py",), sequence=2)
    twice = by_hand(deleted=("data/log.csv", "data/log.csv"), sequence=3)
    rows = follow(compiled, tmp_path, [("take", p) for p in (by_twin, alone, twice)])
    assert [row["end"] for row in rows] == ["confirmed"] * 3
    new = {"/lib/fast.py": b"fast = 1\n", "/lib/fast.mpy": None, "/lib/driver.py": None}
    assert on_flash(rows[2]) == new | {"/data/log.csv": None, "/ota.sequence": b"3"}


def test_a_package_of_unchanged_files_moves_the_floor_at_once(compiled: Path, tmp_path: Path):
    """What it holds runs already, and has been confirmed."""
    same = {name[1:]: OLD_TREE[name] for name in ("/main.py", "/data/log.csv", "/lib/driver.py")}
    rows = follow(compiled, tmp_path, [("take", package(same, sequence=8))])
    assert (rows[0]["end"], on_flash(rows[0])) == ("installed", {"/ota.sequence": b"8"})
    assert not [name for name in rows[0]["staged"] if "/" in name]
    assert "commit" not in rows[0]["steps"]


def test_what_does_not_matter_to_the_manifest(compiled: Path, tmp_path: Path):
    """Folders, and how the archive spells a path: not signed, and nothing comes of them."""
    parts = [folder(b"none/"), folder(b"data"), folder(b"../none"), folder(b".ota/1")]
    good = by_hand(A)
    at = 512 + (len(signing.manifest(A, signing.key(1))) + 511) // 512 * 512
    content = good[:at] + b"".join(parts) + good[at:]
    spelt = by_hand(A, change=lambda m: [m[0], *((b"./" + name, text) for name, text in m[1:])])
    rows = follow(compiled, tmp_path, [("take", content), ("restore",), ("take", spelt)])
    for row in (rows[0], rows[2]):
        assert row["end"] == "confirmed"
        assert row["changes"].keys() == root(A).keys() | {"/ota.sequence"}


# -- nodes that do not require a signature -------------------------------------------------------


@pytest.mark.parametrize("config", [LENIENT, KEYLESS], ids=["with keys", "without"])
def test_unsigned_packages_still_work(compiled: Path, tmp_path: Path, config: dict):
    unsigned = package({"lib/u.py": b"u = 1\n"}, None, deleted=("lib/driver.py",))
    cases = [sample.tar(A), sample.tar_gz(B), sample.microfreezer(A), unsigned]
    rows = follow(compiled, tmp_path, [("take", content) for content in cases], **config)
    assert [row["end"] for row in rows] == ["confirmed"] * 4
    new = root(A) | {"/lib/u.py": b"u = 1\n", "/lib/driver.py": None}
    assert on_flash(rows[3]) == new


def test_unsigned_packages_do_not_touch_the_keys(compiled: Path, tmp_path: Path):
    """Nor may they take the place of one that is to come, or of the folder that it will be in."""
    key = signing.key(2).modulus
    keys = ["/a.pub", "/b.pub", "/keys/c.pub"]
    cases = []
    for name in ("a.pub", "b.pub", "keys/c.pub", "keys"):
        reason = "can not apply: protected path /" + name
        cases += [
            (sample.tar({name: key}), reason),
            (sample.tar({name: key}, prefix="./"), reason),
        ]
        cases.append((package({name: key}, None), reason))
    cases.append((package(A, None, deleted=("a.pub",)), "can not apply: protected path /a.pub"))
    refused(compiled, tmp_path, cases, **LENIENT, keys=keys)


def test_manifests_in_other_places_are_no_files(compiled: Path, tmp_path: Path):
    """On a node that takes unsigned packages: they are not what was meant, so they are refused."""
    text = signing.manifest(A)
    named = [(name.encode(), content) for name, content in A.items()]
    protected = "can not apply: protected path /.ota-manifest"
    cases = [
        (archive([*named, (NAME, text)]), protected),
        (archive([named[0], (NAME, text), *named[1:]]), protected),
        (archive([(b"./" + NAME, text), *named]), protected),
        (archive([(b"./", b""), (NAME, text), *named]), protected),
        (folder(NAME) + archive(named), protected),
        (archive([(NAME + b"/x", text), *named]), protected + "/x"),
        (archive([(NAME, text), (NAME, text), *named]), "manifest: .ota-manifest is not what"),
    ]
    for config in (LENIENT, KEYLESS):
        refused(compiled, tmp_path, cases, **config)
