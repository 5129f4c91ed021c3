"""`build --since`: one package for all releases, of which a node fetches only what it lacks."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from host_sim import sample
from host_sim.campaigns.powercut import layouts
from host_sim.node import flash
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree, write_tree
from insigh_ota.package import archive, delta, index, insighio, patches, restarts, since
from insigh_ota.package.build import build
from insigh_ota.package.delta import Layout, Release
from insigh_ota.package.errors import PackageError
from insigh_ota.package.manifest import parse
from insigh_ota.package.sources import Selection
from tests.conftest import MakeSite
from tests.package.archives.programs import need, output_of
from tests.releases import need_release
from tests.secrecy import blocks_with_key
from tests.tools.test_package import Desk, Project, desk  # noqa: F401

NOISE = random.Random(1).randbytes(12_000)


def text(seed: int, size: int) -> bytes:
    """A source of about so many bytes."""
    rng, made = random.Random(seed), ""
    while len(made) < size:
        a, b = rng.randrange(10**9), rng.randrange(10**9)
        made += f"def step_{seed}_{len(made)}(value):\n    return value * {a} + {b}\n\n\n"
    return made.encode()


def version(number: int) -> Tree:
    """The whole tree of a release: most files stay, some change, come and go."""
    tree = {f"lib/part{n:02}.py": text(n, 4500) for n in range(24)}
    tree["assets/noise.bin"] = NOISE
    for n in range(0, 24, 24 // number - 1):
        content = tree[f"lib/part{n:02}.py"]
        at = content.index(b"def", 1500)
        tree[f"lib/part{n:02}.py"] = content[:at] + b"V = %d\n" % number + content[at:]
    tree["main.py"] = sample.main_py(number)
    tree[f"assets/of{number}.bin"] = random.Random(number).randbytes(3000)
    return tree


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four releases of a node's files, in the folder `node` of a project, and a fifth on disk."""
    project = Project(tmp_path / "project")
    for number in range(1, 5):
        gone = [f"node/{path}" for path in set(version(number - 1 or 1)) - set(version(number))]
        project.commit(node_of(version(number)), tuple(gone), tag=f"v{number}")
    for path in set(version(4)) - set(version(5)):
        (project.folder / "node" / path).unlink()
    write_tree(node_of(version(5)), project.folder)
    return project


def node_of(tree: Tree) -> Tree:
    return {"node/" + path: content for path, content in tree.items()}


def read(raw: bytes) -> tuple[Layout, Tree]:
    """What a package says, and what it brings."""
    found = archive.read(raw)
    archive.check(found)
    return delta.check(raw, found.manifest), dict(found.files)


def node(raw: bytes, old: Tree) -> tuple[Tree, list[range], int]:
    """What a node makes of the ranges that it fetches: (the tree, these, how many patches)."""
    layout, _ = read(raw)
    listed = parse(archive.read(raw).manifest)
    borders, ranges = layout.borders(), [range(index.FIRST), range(layout.front)]
    tree = {path: content for path, content in old.items() if path not in listed.deleted}
    patched = 0
    for each, (path, size, digest) in zip(layout.files, listed.files, strict=True):
        has = old.get(path)
        if has is not None and hashlib.sha256(has).hexdigest() == digest:
            continue
        at = each.at if has is None else dict(each.patches).get(index.base(has), each.at)
        ranges.append(range(at, borders[bisect_right(borders, at)]))
        piece = zlib.decompressobj(-15).decompress(raw[ranges[-1].start : ranges[-1].stop])
        if at == each.at:
            with tarfile.open(fileobj=io.BytesIO(piece + bytes(1024)), mode="r:") as members:
                found = next(each for each in members if each.name == path)
                tree[path] = members.extractfile(found).read()
        else:
            length, _, rest = piece.partition(b" comment=")
            tree[path] = patches.apply(has, rest[: int(length) - len(length) - 10], size)
            patched += 1
    return tree, ranges, patched


def rows(told: str) -> dict[str, list[str]]:
    """The table, by release."""
    found = re.findall(r"^(.+?) {2,}(\d+) +(\d+) +(\d+\.\d s)$", told, re.MULTILINE)
    return {name.strip(): list(rest) for name, *rest in found}


# -- what a node makes of it -------------------------------------------------------------------


def test_each_release_becomes_the_new_one(desk: Desk, project: Project):  # noqa: F811
    out = desk.folder / "p.tar.gz"
    told = desk.type("build", project.folder / "node", "--out", out, "--since", "v1..")
    raw, new = out.read_bytes(), version(5)
    layout, files = read(raw)
    assert files == new
    assert list(rows(told)) == ["v4", "v3", "v2", "v1", "the whole package"]
    for number in range(1, 5):
        tree, ranges, patched = node(raw, version(number))
        assert tree == new
        assert patched > 2
        differ, asked, _ = rows(told)[f"v{number}"]
        old = version(number)
        assert int(differ) == sum(old.get(path) != content for path, content in new.items())
        wanted = layout.wanted(dict(sorted(files.items())), old)
        assert int(asked) == sum(map(len, wanted)) < len(raw) / 2
        covered = {at for each in wanted for at in each}
        assert all(set(each) <= covered for each in ranges)
    # Whatever a node has, it comes to the new files.
    odd = {"main.py": b"other", "lib/part00.py": b"", "lib/part01.py": version(1)["lib/part01.py"]}
    assert node(raw, odd)[0] == new
    assert node(raw, {})[0] == new
    assert f"{len(raw)} bytes, 27 files, 4 deletions" in told
    assert rows(told)["the whole package"][:2] == [str(len(files)), str(len(raw))]
    without = desk.build(project.folder / "node", name="q.tar.gz")
    gone = [f"assets/of{number}.bin" for number in range(1, 5)]
    assert parse(archive.read(raw).manifest).deleted == gone
    words = [word for path in gone for word in ("--delete", path)]
    without = desk.build(project.folder / "node", *words, "--window", "12", name="q.tar.gz")
    size = without.stat().st_size
    assert f"as a plain package with the same --window it would have {size} bytes" in told


def test_how_long_the_flash_works(desk: Desk):  # noqa: F811
    old = desk.tree({"a": b"1", "b": NOISE}, "old")
    new = desk.tree({"a": b"2", "b": NOISE + b"1" * 300, "c": b""}, "new")
    out = desk.folder / "p.tar.gz"
    told = desk.type("build", new, "--out", out, "--since", old)
    # 1 + 4 erases, 1 + 49 pages; a small package is fetched whole.
    seconds = f"{(5 * 45 + 50 * 0.7) / 1000:.1f} s"
    assert rows(told)[str(old)] == ["3", str(out.stat().st_size), seconds]


def test_without_patches(desk: Desk, project: Project):  # noqa: F811
    words = ("--since", "v1..", "--no-patches")
    raw = desk.build(project.folder / "node", *words, name="p.tar.gz").read_bytes()
    layout, files = read(raw)
    assert layout.patches() == []
    for number in range(1, 5):
        tree, _, patched = node(raw, version(number))
        assert (tree, patched) == (version(5), 0)
    assert sum(map(len, layout.wanted(files, version(4)))) < len(raw) - 5000
    assert "no patches; manifest and index end" in desk.type("inspect", desk.folder / "p.tar.gz")


def test_steps_are_done_to_the_releases_as_well(desk: Desk, project: Project):  # noqa: F811
    """What nodes have of a release is what its package brought."""
    steps = ("--compile", "lib/*", "--minify", "main.py", "--exclude", "*.bin")
    folder = project.folder / "node"
    of_two = desk.build(folder, "--git", "v2", *steps, name="two.tar.gz")
    had = dict(archive.read(of_two.read_bytes()).files)
    assert "lib/part00.mpy" in had
    assert not any(path.endswith(".bin") for path in had)
    by_tag = desk.build(folder, "--since", "v2..v2", *steps, name="p.tar.gz").read_bytes()
    for base in (of_two, desk.build(folder, "--git", "v2", *steps, name="two.tar")):
        assert desk.build(folder, "--since", base, *steps, name="q.tar.gz").read_bytes() == by_tag
    tree, _, patched = node(by_tag, had)
    assert tree == dict(archive.read(by_tag).files)
    assert patched > 2
    # A package is taken as it is: nodes of this one have sources.
    sources = desk.build(folder, "--git", "v2", name="sources.tar.gz")
    raw = desk.build(folder, "--since", sources, *steps, name="q.tar.gz").read_bytes()
    assert not parse(archive.read(raw).manifest).deleted


def test_equal_files_are_compiled_once(
    desk: Desk,  # noqa: F811
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
):
    from insigh_ota.package import transform

    made = []
    compile_mpy = transform.compile_mpy
    monkeypatch.setattr(
        transform, "compile_mpy", lambda *given: (made.append(given[2]), compile_mpy(*given))
    )
    transform._compile.cache_clear()
    desk.build(project.folder / "node", "--since", "v1..", "--compile", "lib/*", name="p.tar.gz")
    contents = {
        (path, content)
        for number in range(1, 6)
        for path, content in version(number).items()
        if path.startswith("lib")
    }
    assert len(made) == len(contents) < 60


# -- which releases ----------------------------------------------------------------------------


def names(desk: Desk, project: Project, *words: object) -> list[str]:  # noqa: F811
    """The releases of the table, in its order."""
    out = desk.folder / "named.tar.gz"
    return list(rows(desk.type("build", project.folder / "node", "--out", out, *words)))[:-1]


def test_which_tags(desk: Desk, project: Project):  # noqa: F811
    assert names(desk, project, "--since", "v2..") == ["v4", "v3", "v2"]
    assert names(desk, project, "--since", "v2..v3") == ["v3", "v2"]
    assert names(desk, project, "--since", "v3..", "--since", "v1..v1") == ["v4", "v3", "v1"]
    # What is packaged is no release of before; A need be no tag; of two tags one is taken.
    assert names(desk, project, "--git", "v4", "--since", "v2..") == ["v3", "v2"]
    assert names(desk, project, "--git", "v3", "--since", "v2..") == ["v2"]
    assert names(desk, project, "--git", "v3", "--since", "v3..") == ["v3"]
    project.git("tag", "stable", "v3")
    project.git("tag", "-a", "-m", "late", "v2.5", "v2")
    project.git("tag", "-d", "v1")
    first = project.git("rev-list", "--max-parents=0", "HEAD").strip()[:9]
    assert names(desk, project, "--since", f"{first}..") == ["v4", "v3", "v2.5", first]
    assert names(desk, project, "--since", "v2..") == ["v4", "v3", "v2"]


def test_the_newest_comes_first(
    desk: Desk,  # noqa: F811
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
):
    """By the date of the commit, whatever the name of the tag and when it was made."""
    project.git("checkout", "-q", "-f", "v4")
    for name, date in (("a", "2040-01-01T00:00:00Z"), ("z", "2039-01-01T00:00:00Z")):
        monkeypatch.setenv("GIT_COMMITTER_DATE", date)
        project.commit({"node/new.py": name.encode()}, tag=name)
    monkeypatch.delenv("GIT_COMMITTER_DATE")
    assert names(desk, project, "--since", "v3..") == ["a", "z", "v4", "v3"]


def test_folders_and_packages(desk: Desk, project: Project):  # noqa: F811
    folder = desk.tree(version(1), "one")
    tar = desk.build(desk.tree(version(2), "two"), name="two.tar")
    words = ["--since", folder, "--since", tar, "--since", "v3..v3"]
    told = desk.type("build", project.folder / "node", "--out", desk.folder / "p.tar.gz", *words)
    assert list(rows(told))[:-1] == [str(folder), str(tar), "v3"]
    raw = (desk.folder / "p.tar.gz").read_bytes()
    for number in range(1, 4):
        assert node(raw, version(number))[0].items() >= version(5).items()
    # A folder that is in no project needs none.
    other = desk.tree(version(5), "five")
    assert desk.build(other, *words[:4], name="q.tar.gz")
    # A release from before there was such a folder has nothing.
    write_tree({"more/main.py": b"1"}, project.folder)
    told = desk.type(
        "build", project.folder / "more", "--out", desk.folder / "r.tar.gz", "--since", "v4.."
    )
    assert rows(told)["v4"][0] == "1"


def test_deletions(desk: Desk):  # noqa: F811
    first = desk.tree({"a.py": b"1", "b.py": b"1", "c/d.txt": b"1", "main.py": b"1"}, "one")
    second = desk.tree({"e.py": b"1", "main.py": b"1"}, "two")
    new = desk.tree({"b.py": b"b = 2\n", "main.py": b"2"}, "new")
    words = ("--since", first, "--since", second, "--compile", "b.py", "--delete", "more.txt")
    package = desk.build(new, *words, name="p.tar.gz")
    found = archive.read(package.read_bytes())
    assert [path for path, _ in found.files] == ["b.mpy", "main.py"]
    assert parse(found.manifest).deleted == ["a.py", "c/d.txt", "e.py", "more.txt"]
    # As --git A..B would refuse it.
    (first / "boot.py").write_bytes(b"1")
    line = desk.refused("build", new, "--out", package, "--since", first)
    assert "boot.py can not be deleted" in line
    # What stays out of all is not deleted either.
    package = desk.build(new, "--since", first, "--exclude", "boot.py", name="q.tar.gz")
    assert "boot.py" not in parse(archive.read(package.read_bytes()).manifest).deleted


def test_the_adapter_stays(desk: Desk):  # noqa: F811
    """Of the insighioNode firmware: each release has the updater that ours stands in for."""
    field = b"def checkAndApply(client):\n    pass\n"
    old = desk.tree({insighio.OTA: field, "main.py": b"1", "gone.py": b"1"}, "old")
    new = desk.tree({insighio.OTA: field + b"# 2\n", "main.py": b"2"}, "new")
    package = desk.build(old, "--adapter", name="old.tar.gz")
    for base in (old, package):
        raw = desk.build(new, "--since", base, name="p.tar.gz").read_bytes()
        found = archive.read(raw)
        assert [path for path, _ in found.files] == [insighio.FIELD_OTA, "main.py"]
        assert parse(found.manifest).deleted == ["gone.py"]
        assert insighio.OTA not in dict(found.files)
    words = ("--since", package, "--no-protect")
    raw = desk.build(new, *words, name="p.tar.gz").read_bytes()
    assert insighio.FIELD_OTA in parse(archive.read(raw).manifest).deleted


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--git", "v1..v2", "--since", "v1.."], "one package for all releases has all files"),
        (["--no-restarts", "--since", "v1.."], "needs restart points: drop --no-restarts"),
        (["--since", "v9.."], "v9 is no commit"),
        (["--since", "v1..v9"], "v9 is no commit"),
        (["--since", "v3..v2"], "v3 is not before v2"),
        (["--since", "v1"], "neither a folder, nor a package, nor releases"),
        (["--since", "..v1"], "neither a folder, nor a package, nor releases"),
        (["--since", "v1...v2"], "neither a folder, nor a package, nor releases"),
        (["--since", "../none"], "neither a folder, nor a package, nor releases"),
        (["--since", "x/../none"], "neither a folder, nor a package, nor releases"),
        (["--since", ""], "neither a folder, nor a package, nor releases"),
        (["--since", __file__], "no tar archive, or a damaged one"),
    ],
    ids=lambda each: " ".join(each)[-30:] if isinstance(each, list) else "",
)
def test_what_is_refused(desk: Desk, project: Project, words: list[str], line: str):  # noqa: F811
    out = desk.folder / "p.tar.gz"
    told = desk.refused("build", project.folder / "node", "--out", out, *words)
    assert line in told
    assert not out.exists()


def test_what_else_is_refused(desk: Desk, project: Project):  # noqa: F811
    folder, out = project.folder / "node", desk.folder / "p.tar.gz"
    line = desk.refused("build", folder, "--out", desk.folder / "p.tar", "--since", "v1..")
    assert "a .tar has none: name it *.tar.gz" in line
    other = desk.tree({"main.py": b"1"}, "other")
    line = desk.refused("build", other, "--out", out, "--since", "v1..")
    assert "v1 is no commit of a git project" in line
    bad = desk.tree({"lib/a.py": b"def ("}, "bad")
    line = desk.refused("build", folder, "--out", out, "--since", bad, "--compile", "lib/*")
    assert f"--since {bad}: " in line
    damaged = desk.folder / "damaged.tar.gz"
    damaged.write_bytes(desk.build(other, name="q.tar.gz").read_bytes()[:-9])
    line = desk.refused("build", folder, "--out", out, "--since", damaged)
    assert "damaged gzip" in line
    empty = desk.tree({}, "empty")
    line = desk.refused("build", empty, "--out", out, "--since", other)
    assert "only deletions" in line


def test_an_index_that_is_too_long():
    old = {f"{n}.txt": b"%d" % n for n in range(1600)}
    with pytest.raises(PackageError, match=r"a node looks at 32512 at most: use no --since, or"):
        build(Selection(old), window=13, releases=[Release("r", {})])
    old = {f"{n}.txt": NOISE[:200] + b"%d" % n for n in range(300)}
    new = {path: content + b"2" for path, content in old.items()}
    many = [Release(str(n), {p: c + b"%d" % n for p, c in old.items()}) for n in range(3, 5)]
    with pytest.raises(PackageError, match=r"name fewer releases, or use --no-patches$"):
        build(Selection(new), window=13, releases=many)


# -- the same bytes ----------------------------------------------------------------------------


def test_the_same_bytes_each_time(desk: Desk, project: Project):  # noqa: F811
    folder = project.folder / "node"
    words = ["--since", "v1..", "--since", desk.tree(version(2), "two"), "--minify", "main.py"]
    made = [desk.build(folder, *words, name=f"{n}.tar.gz").read_bytes() for n in range(2)]
    other = ["build", folder, "--out", desk.folder / "other.tar.gz", *words]
    subprocess.run(
        [sys.executable, "-m", "insigh_ota.package", *map(str, other)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        check=True,
        capture_output=True,
    )
    made.append((desk.folder / "other.tar.gz").read_bytes())
    assert len(set(made)) == 1


def test_without_since_nothing_changes(desk: Desk, project: Project):  # noqa: F811
    folder = project.folder / "node"
    plain = desk.build(folder, name="p.tar.gz").read_bytes()
    assert archive.front(plain) == 0
    files = {path: version(5)[path] for path in sorted(version(5), key=str.encode)}
    manifest = archive.check(archive.read(plain))
    assert plain == restarts.compress(archive.tar(manifest, files), 13)


# -- other readers -----------------------------------------------------------------------------


def test_others_read_it_as_any_archive(desk: Desk, project: Project):  # noqa: F811
    """Of the comments nothing is left, nor said."""
    package = desk.build(project.folder / "node", "--since", "v1..", name="p.tar.gz")
    raw = package.read_bytes()
    assert read(raw)[0].patches()
    commands = {
        "tar": ["tar", "-xzf", str(package)],
        "bsdtar": ["bsdtar", "-xzf", str(package)],
        "busybox": ["busybox", "tar", "-xzf", str(package)],
    }
    for name in (*commands, "python"):
        target = desk.folder / name
        target.mkdir()
        if name == "python":
            with tarfile.open(package, "r:gz") as members:
                members.extractall(target, filter="data")
        else:
            need(name)
            done = subprocess.run(commands[name], cwd=target, capture_output=True, check=True)
            assert (done.stdout, done.stderr) == (b"", b"")
        found = {
            path.relative_to(target).as_posix(): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file()
        }
        assert found.pop(".ota-manifest") == archive.read(raw).manifest
        assert found == version(5), name
    for command in (["gzip", "-dc"], ["busybox", "gunzip", "-c"], ["pigz", "-dc"]):
        assert output_of([*command, str(package)], desk.folder) == gzip.decompress(raw), command
    listed = output_of(["tar", "-tzf", str(package)], desk.folder).decode().split()
    assert [name for name in listed if not name.endswith("/")] == [
        ".ota-manifest",
        *sorted(version(5)),
    ]


def test_each_header_is_one_that_older_agents_read(desk: Desk, project: Project):  # noqa: F811
    """They hold no more than 4096 bytes of one."""
    raw = desk.build(project.folder / "node", "--since", "v1..", name="p.tar.gz").read_bytes()
    sizes = [entry.size for entry, _ in headers(raw) if entry.type == tarfile.XGLTYPE]
    assert len(sizes) > 3
    assert max(sizes) <= 4096


def test_who_takes_each_header_for_a_file_ends_right(desk: Desk, project: Project):  # noqa: F811
    """As the field firmware does: the folder is there, and the file comes last."""
    raw = desk.build(project.folder / "node", "--since", "v1..", name="p.tar.gz").read_bytes()
    folders, files = {""}, {}
    for entry, content in headers(raw):
        if entry.type == tarfile.DIRTYPE:
            folders.add(entry.name.rstrip("/"))
        else:
            assert entry.name.rpartition("/")[0] in folders
            files[entry.name] = content
    assert files.pop(".ota-manifest") != archive.read(raw).manifest
    assert files == version(5)


def headers(raw: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Each header of a .tar.gz, whatever it is, and what comes with it."""
    plain, at = gzip.decompress(raw), 0
    while any(plain[at : at + 512]):
        entry = tarfile.TarInfo.frombuf(plain[at : at + 512], "utf-8", "strict")
        at += 512
        yield entry, plain[at : at + entry.size]
        at += -(-entry.size // 512) * 512


@pytest.mark.slow
def test_older_agents_install_it(make_site: MakeSite, tmp_path: Path):
    need_release()
    site = make_site()
    old = {"main.py": sample.main_py(1)}
    old |= {name: site.files["/" + name] for name in ("ota.json", "ca.der")}
    root = write_tree(old, tmp_path / "old")
    release = layouts.release_firmware(tmp_path / "release")
    flash.build(root, site.image, mpy=True, firmware=release)
    site.key_blocks = blocks_with_key(site.image)
    releases = [Release(str(number), version(number)) for number in range(1, 5)]
    raw = build(Selection(version(5)), window=13, releases=releases)
    site.ask(raw)
    run = site.run(wakes=2)
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files().items() >= {"/" + n: c for n, c in version(5).items()}.items()


# -- inspect and verify ------------------------------------------------------------------------


def test_inspect_and_verify(desk: Desk, project: Project):  # noqa: F811
    pem, pub = desk.key()
    words = ("--since", "v1..", "--key", pem, "--sequence", 5)
    out = desk.folder / "p.tar.gz"
    told = desk.type("build", project.folder / "node", "--out", out, *words)
    layout, _ = read(out.read_bytes())
    ranges = layout.patches()
    line = f"index: 27 files, {len(ranges)} patches, {sum(map(len, ranges))} bytes together; "
    line += f"manifest and index end within the first {layout.front} bytes\n"
    inspected = desk.type("inspect", out)
    for each in (told, inspected, desk.type("verify", out, "--key", pub)):
        assert line in each
    assert "restart points: " in inspected
    table = told[told.index("index: ") :]
    asked = ("--since", "v1..", "--source", project.folder / "node")
    assert desk.type("inspect", out, *asked).endswith(table)
    # For one without an index there is nothing to tell.
    plain = desk.build(project.folder / "node", name="q.tar.gz")
    assert "index" not in desk.type("inspect", plain)
    main = desk.folder / "err"
    assert not main.exists()
    with pytest.raises(AssertionError, match="fetches all of it; build it with --since"):
        desk.type("inspect", plain, *asked)


def damage(raw: bytes, change) -> bytes:
    """A package whose index says something else, as long as before."""
    layout, _ = read(raw)
    manifest = archive.read(raw).manifest
    said = index.encode(manifest, layout.files, layout.end)
    files, end = [index.Patched(list(f.patches), f.at) for f in layout.files], layout.end
    changed = change(files, end)
    other = changed if isinstance(changed, bytes) else index.encode(manifest, *changed)
    assert raw.count(said) == 1
    assert len(said) == len(other)
    made = raw[:-8].replace(said, other)
    plain = zlib.decompressobj(-15).decompress(made[18:])
    sums = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return made + sums


def with_file(files: list[index.Patched], end: int, number: int, by: int):
    files[number].at += by
    return files, end


def with_patch(files: list[index.Patched], end: int, by: int):
    first = next(each for each in files if each.patches)
    name, at = first.patches[0]
    first.patches[0] = name, at + by
    return files, end


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda files, end: with_file(files, end, 3, 1), "does not (lead|end)"),
        (lambda files, end: with_file(files, end, 9, -1), "does not (lead|end)"),
        (lambda files, end: with_patch(files, end, 1), "is no patch for|does not end"),
        (lambda files, end: with_patch(files, end, -1), "is no patch for|does not end"),
        (lambda files, end: (files, end - 1), "of a package of another size"),
    ],
)
def test_an_index_that_lies(desk: Desk, project: Project, change, line: str):  # noqa: F811
    pem, pub = desk.key()
    words = ("--since", "v1..", "--key", pem, "--sequence", 5)
    out = desk.build(project.folder / "node", *words, name="p.tar.gz")
    out.write_bytes(damage(out.read_bytes(), change))
    assert re.search(line, desk.refused("verify", out, "--key", pub))
    with pytest.raises(PackageError, match=line):
        read(out.read_bytes())


def test_a_place_of_another_file(monkeypatch: pytest.MonkeyPatch):
    """A restart point, but behind the beginning of the file."""
    encode = index.encode

    def lie(manifest: bytes, files: list[index.Patched], end: int) -> bytes:
        said = [index.Patched(each.patches, each.at) for each in files]
        said[0].at = said[1].at
        return encode(manifest, said, end)

    monkeypatch.setattr(index, "encode", lie)
    files = {f"{n}.bin": random.Random(n).randbytes(9000) for n in range(4)}
    raw = build(Selection(files), window=13, releases=[])
    with pytest.raises(PackageError, match=r"^byte \d+, by its index, does not lead to 0.bin$"):
        read(raw)


def test_an_index_that_is_damaged(desk: Desk, project: Project):  # noqa: F811
    pem, pub = desk.key()
    words = ("--since", "v1..", "--key", pem, "--sequence", 5)
    out = desk.build(project.folder / "node", *words, name="p.tar.gz")
    raw = out.read_bytes()
    manifest = archive.read(raw).manifest

    def of_another(files: list[index.Patched], end: int) -> bytes:
        return index.encode(manifest + b"1", files, end)

    def flipped(files: list[index.Patched], end: int) -> bytes:
        said = index.encode(manifest, files, end)
        return said[:20] + bytes([said[20] ^ 1]) + said[21:]

    def short(files: list[index.Patched], end: int) -> bytes:
        said = bytearray(index.encode(manifest, files, end)[:-4])
        said[5] += 1
        return bytes(said + zlib.crc32(said).to_bytes(4, "little"))

    for change, line in (
        (of_another, "its index is another package's"),
        (flipped, "its index is damaged"),
        (short, "its index is damaged"),
    ):
        out.write_bytes(damage(raw, change))
        assert line in desk.refused("verify", out, "--key", pub)


@pytest.mark.parametrize(
    ("patch", "line"),
    [
        (b"", "a patch is damaged"),
        (b"\x80", "a patch is damaged"),
        (b"\xff\xff\xff\xff\xff\x7f", "a patch is damaged"),
        (b"\0", "a patch makes more than the file, or nothing"),
        (b"\x0bab", "a patch ends early"),
        (patches.number(1 << 20), "a patch makes more than the file, or nothing"),
        (patches.number(8) + b"\x03", "a patch takes what is not there"),
        (patches.number(6000 << 1) + b"\0\0", "a patch goes on behind its file"),
    ],
)
def test_a_patch_that_is_not_well_formed(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    patch: bytes,
    line: str,
):
    with pytest.raises(PackageError, match=line):
        patches.check(patch, 6000)
    with pytest.raises(PackageError, match=line):
        patches.apply(bytes(7000), patch, 6000)
    base = index.base(b"old")
    monkeypatch.setattr(delta, "patches_for", lambda *_: {"a.txt": [(base, patch)]})
    files = {"a.txt": text(1, 6000)[:6000], "b.bin": random.Random(1).randbytes(20_000)}
    raw = build(Selection(files), window=13, releases=[])
    with pytest.raises(PackageError, match=rf"^a.txt: {line} \(byte \d+\)$"):
        read(raw)
    (desk.folder / "p.tar.gz").write_bytes(raw)
    assert f"a.txt: {line}" in refusal(desk, "inspect", desk.folder / "p.tar.gz")


def refusal(desk: Desk, *words: object) -> str:  # noqa: F811
    """What a command says that fails after it has told something."""
    from insigh_ota.package.__main__ import main

    assert main([str(word) for word in words]) == 2
    _, err = desk._capsys.readouterr()
    assert err.count("\n") == 1
    return err


# -- trees that nobody thought of --------------------------------------------------------------


def test_the_index_settles_with_many_files():
    rng = random.Random(3)
    old = {f"apps/{n % 9}/{n:03}.py": text(n, rng.randrange(40, 2500)) for n in range(300)}
    new = {path: (c + b"# 2\n" if n % 7 == 0 else c) for n, (path, c) in enumerate(old.items())}
    new |= {"apps/new.py": text(1, 3000)}
    raw = build(Selection(new), window=13, releases=[Release("1", old)])
    layout, files = read(raw)
    assert len(layout.files) == 301
    assert len(layout.patches()) > 30
    tree, _, patched = node(raw, old)
    assert tree == new
    assert patched == len(layout.patches())
    # With nothing there all comes at once.
    assert layout.wanted(files, {}) == [range(index.FIRST), range(len(raw))]


def test_a_place_is_never_inside_a_file():
    """Restart points of large files stand there, and small files behind them may have none."""
    sizes = (30_000, 20_000, 12_500, 10_300, 9_000, 300, 100)
    rng = random.Random(2)
    new = {f"f{n:02}.py": sample._source(rng, f"m{n}", rng.choice(sizes)) for n in range(40)}
    raw = build(Selection(new), window=13, releases=[], patched=False)
    layout, _ = read(raw)
    assert len({each.at for each in layout.files}) < 40
    assert node(raw, {})[0] == new


CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.builds(text, st.integers(0, 3), st.integers(10, 4000)),
    st.builds(lambda n, size: NOISE[n : n + size], st.integers(0, 99), st.integers(0, 5000)),
    st.builds(bytes, st.integers(0, 9000)),
)
NAMES = st.sampled_from(["a.py", "b/c.txt", "b/d.bin", "é/ü.txt", "z" * 120, "main.py"])
TREES = st.dictionaries(NAMES, CONTENTS, min_size=1)


@st.composite
def changed(draw, content: bytes) -> bytes:
    """The same with some pieces taken out, put in or moved."""
    for _ in range(draw(st.integers(0, 3))):
        at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 300))
        piece = draw(st.one_of(st.binary(max_size=20), st.just(content[:length])))
        content = content[:at] + piece + content[at + length :]
    return content


@settings(max_examples=60, deadline=None)
@given(data=st.data(), old=CONTENTS)
def test_patches_apply(data: st.DataObject, old: bytes):
    for new in (data.draw(changed(old)), data.draw(CONTENTS)):
        patch = patches.diff(old, new)
        patches.check(patch, len(new))
        assert patches.apply(old, patch, len(new)) == new


@settings(max_examples=40, deadline=None)
@given(data=st.data(), new=TREES, window=st.sampled_from([9, 13, 15]))
def test_each_tree_becomes_the_new_one(data: st.DataObject, new: Tree, window: int):
    """What is asked for covers each file that differs, whatever a node has."""
    trees = []
    for _ in range(data.draw(st.integers(1, 3))):
        tree = {path: data.draw(changed(content)) for path, content in new.items()}
        drop = data.draw(st.sets(NAMES, max_size=2))
        trees.append({path: content for path, content in tree.items() if path not in drop})
    patched = data.draw(st.booleans())
    releases = [Release(str(n), tree) for n, tree in enumerate(trees)]
    try:
        raw = build(Selection(dict(new)), window=window, releases=releases, patched=patched)
    except PackageError as error:
        assume("looks like restart points" not in str(error))
        raise
    layout, files = read(raw)
    assert files == new
    strangers = [data.draw(TREES), {}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta, "WHOLE", 0)
        for has in (*trees, *strangers):
            tree, ranges, _ = node(raw, has)
            assert tree.items() >= new.items()
            wanted = {at for each in layout.wanted(files, has) for at in each}
            assert all(set(each) <= wanted for each in ranges)
            assert max(wanted) < max(len(raw), layout.front)


def test_gone_keeps_the_other_form():
    releases = [Release("1", {"a.py": b"", "b.mpy": b"", "c": b""})]
    assert since.gone(releases, {"a.mpy": b"", "b.py": b""}) == {"c"}


# -- --try -------------------------------------------------------------------------------------


@pytest.mark.parametrize("has", [4, None], ids=["an old release", "nothing"])
def test_a_node_takes_it(desk: Desk, project: Project, has: int | None):  # noqa: F811
    config = {"device_id": DEVICE_ID, "device_key": DEVICE_KEY, "control_channel": CONTROL_CHANNEL}
    tree = version(has) if has else {}
    # The application does not run there: it would want an agent that it can talk to.
    root = desk.tree(tree | {"ota.json": json.dumps(config).encode()}, "root")
    image = desk.folder / "node.img"
    flash.build(root, image, mpy=True, blocks=256)
    out = desk.folder / "p.tar.gz"
    words = ("--since", "v1..", "--try", image)
    told = desk.type("build", project.folder / "node", "--out", out, *words)
    fetched = int(re.search(r"tried on a virtual node: (\d+) bytes fetched", told)[1])
    layout, files = read(out.read_bytes())
    assert fetched == sum(map(len, layout.wanted(files, tree)))
    if has:
        assert fetched == int(rows(told)["v4"][1]) < out.stat().st_size / 2
    else:
        assert fetched > out.stat().st_size / 2
