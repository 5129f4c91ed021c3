"""Restart points in a .tar.gz: where they are, that each holds, and that others read past them."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_sim import sample
from host_sim.campaigns.powercut import layouts
from host_sim.node import flash
from host_sim.node.node import run_code
from host_sim.sample import Tree
from insigh_ota.package import archive, restarts
from insigh_ota.package.build import build
from insigh_ota.package.errors import PackageError
from insigh_ota.package.keys import Signer
from insigh_ota.package.sources import Selection
from tests import signing
from tests.conftest import MakeSite
from tests.package.archives.programs import output_of
from tests.releases import need_release
from tests.secrecy import blocks_with_key
from tests.tools.test_package import Desk, desk  # noqa: F401

MARK = b"\0\0\xff\xff"
KB = 1024
SIGNER = Signer(signing.key().modulus, signing.key().sign)


@pytest.fixture(scope="module")
def application() -> Tree:
    """The files of the sample application's package."""
    return tree_of("the application")


def packed(tree: Tree, window: int = 13, **options) -> bytes:
    return build(Selection(dict(tree)), window=window, **options)


def text(seed: int, size: int) -> bytes:
    """Something that compresses as sources do."""
    return sample._source(random.Random(seed), f"m{seed}", size)


def tree_of(kind: str) -> Tree:
    if kind == "the application":
        return sample.next_version(sample.application())[1]
    if kind == "many small files":
        rng = random.Random(4)
        return {f"apps/{n % 9}/{n}.py": text(n, rng.randrange(40, 1500)) for n in range(700)}
    if kind == "one large file":
        return {"main.py": text(1, 600_000)}
    return {f"{n}.bin": random.Random(n).randbytes(70_000) for n in range(3)}


def places(plain: bytes) -> set[int]:
    """Where a point may stand: before a member, and where a file fills a block.

    Not tarfile's word.
    """
    found, at = set(), 0
    while any(plain[at : at + 512]):
        begin = at
        while plain[at + 156 : at + 157] in (b"x", b"g"):  # extended headers belong to the member
            at += 512 + -(-int(plain[at + 124 : at + 135], 8) // 512) * 512
        size = int(plain[at + 124 : at + 135], 8)
        found |= {begin, *(at + 512 + end for end in block_ends(size))}
        at += 512 + -(-size // 512) * 512
    return found


def block_ends(size: int) -> list[int]:
    """By littlefs's own formula (DESIGN.md, CTZ skip-lists): block n begins at byte N of a file
    where n = (N - 4 * (popcount(N // 4088 - 1) + 2)) // 4088."""

    def block(byte: int) -> int:
        n = byte // 4088
        if not n:
            return 0
        return (byte - 4 * (bin(n - 1).count("1") + 2)) // 4088

    return [at for at in range(0, size, 4) if at == 0 or block(at) > block(at - 1)]


def check(raw: bytes, plain: bytes) -> list[restarts.Point]:
    """Fail unless each point that is found may stand there, and holds up to the end."""
    points = restarts.find(raw)
    allowed = places(plain)
    for point in points:
        assert point.offset in allowed
        assert raw[point.at - 4 : point.at] == MARK
        inflate = zlib.decompressobj(-15)
        assert inflate.decompress(raw[point.at :]) == plain[point.offset :]
        assert len(inflate.unused_data) == 8
    assert raw[10:16] == (b"\6\0OW\2\0" if points else b"\5\0OW\1\0")
    return points


# -- other readers -----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [13, 15])
def test_others_read_it_as_any_archive(application: Tree, tmp_path: Path, window: int):
    package = tmp_path / "p.tar.gz"
    package.write_bytes(packed(application, window))
    assert len(restarts.find(package.read_bytes())) > 20
    for number, command in enumerate(
        (["tar", "-xzf"], ["bsdtar", "-xzf"], ["busybox", "tar", "-xzf"], ["python"])
    ):
        target = tmp_path / str(number)
        target.mkdir()
        if command == ["python"]:
            with tarfile.open(package, "r:gz") as members:
                members.extractall(target, filter="data")
        else:
            output_of([*command, str(package)], target)
        found = {
            path.relative_to(target).as_posix(): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file()
        }
        assert found.pop(".ota-manifest")
        assert found == application, command
    plain = gzip.decompress(package.read_bytes())
    for command in (["pigz", "-t"], ["gzip", "-t"], ["busybox", "gunzip", "-t"]):
        output_of([*command, str(package)], tmp_path)
    for command in (["pigz", "-dc"], ["gzip", "-dc"], ["busybox", "gunzip", "-c"]):
        assert output_of([*command, str(package)], tmp_path) == plain, command


ON_DEVICE = """
import binascii, deflate, json
buffer = bytearray(1024)
for at, size in json.loads(POINTS):
    with open(PATH, "rb") as file:
        file.seek(at)
        stream, crc = deflate.DeflateIO(file, deflate.RAW, WINDOW), 0
        while size:
            n = stream.readinto(buffer, min(size, 1024))
            crc = binascii.crc32(memoryview(buffer)[:n], crc)
            size -= n
        print(crc)
"""


def test_the_device_begins_at_each_of_them(application: Tree, tmp_path: Path):
    """With a window that has never held anything, up to the next one."""
    raw = packed(application)
    plain, points = gzip.decompress(raw), restarts.find(raw)
    ends = [*(point.offset for point in points[1:]), len(plain)]
    (tmp_path / "p").write_bytes(raw)
    rows = [(point.at, end - point.offset) for point, end in zip(points, ends, strict=True)]
    code = f"PATH, WINDOW, POINTS = {str(tmp_path / 'p')!r}, 13, {json.dumps(rows)!r}\n{ON_DEVICE}"
    found = [int(line) for line in run_code(code, heap="256K").output.split()]
    wanted = [
        zlib.crc32(plain[point.offset : end]) for point, end in zip(points, ends, strict=True)
    ]
    assert found == wanted


@pytest.mark.parametrize("agent", ["today's", "of the flat layout"])
@pytest.mark.parametrize("window", [13, pytest.param(15, marks=pytest.mark.slow)])
def test_agents_install_it(make_site: MakeSite, tmp_path: Path, agent: str, window: int):
    """The older one does not know the header's field, and passes over it."""
    site = make_site()
    if agent != "today's":
        need_release()
        old = {"main.py": sample.main_py(1)}
        old |= {name: site.files["/" + name] for name in ("ota.json", "ca.der")}
        root = sample.write_tree(old, tmp_path / "old")
        release = layouts.release_firmware(tmp_path / "release")
        flash.build(root, site.image, mpy=True, firmware=release)
        assert "/ota/staging.mpy" in site.flash_files()
        site.key_blocks = blocks_with_key(site.image)
    tree = {f"lib/m{n}.py": text(n, 6000) for n in range(9)}
    tree |= {"main.py": sample.main_py(2), "big.bin": random.Random(1).randbytes(30_000)}
    raw = packed(tree, window)
    assert len(restarts.find(raw)) > 2
    site.ask(raw)
    run = site.run(wakes=2)
    assert "check: confirmed" in run.output, run.output
    assert site.flash_files().items() >= {"/" + name: data for name, data in tree.items()}.items()
    assert [report["e"] for report in site.reports()] == [1]


# -- where they are ----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [pytest.param(9, marks=pytest.mark.slow), 13, 15])
@pytest.mark.parametrize(
    "kind", ["the application", "many small files", "one large file", "noise"]
)
def test_they_cost_little_and_are_not_far_apart(kind: str, window: int):
    tree = tree_of(kind)
    raw, without = packed(tree, window), packed(tree, window, restart=False)
    plain = gzip.decompress(raw)
    assert gzip.decompress(without) == plain
    assert restarts.find(without) == []
    points = check(raw, plain)
    assert len(raw) <= 1.05 * len(without)
    assert abs(restarts.price(raw) - 100 * (len(raw) / len(without) - 1)) < 0.1
    *full, last = restarts.distances(points, raw)
    assert sum(full) + last == len(raw)
    # The first distance that is cheap enough, and 2 KB and the rest of a file at most beyond.
    least = [d * KB for d in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48) if d * KB <= min(full)][-1]
    assert max(full) < least + 5 * KB
    assert last < least + 5 * KB
    if kind == "the application" or window == 9:
        assert least <= 8 * KB
    cheaper = [d for d in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48) if d * KB < least][-1:]
    for less in cheaper:  # the one before would have cost too much
        made = restarts._with_points(plain, window, restarts._places(plain), less * KB, set())
        # Or no places are that close to each other.
        assert made == raw or len(made) > 1.05 * len(without)


def test_small_packages_have_none(application: Tree):
    for tree in ({"main.py": b"1"}, {"x.bin": random.Random(1).randbytes(1000)}):
        raw = packed(tree)
        assert check(raw, gzip.decompress(raw)) == []
        assert raw == packed(tree, restart=False)
    # Much content, but next to no package.
    raw = packed({"zeros.bin": bytes(1_000_000)})
    assert check(raw, gzip.decompress(raw)) == []


def test_before_members_rather_than_inside_files():
    """Inside one only where more than 2 KB of it are left."""
    tree = {f"{n:02}.bin": random.Random(n).randbytes(3 * KB) for n in range(40)}
    raw = packed(tree)
    plain = gzip.decompress(raw)
    with tarfile.open(fileobj=io.BytesIO(plain)) as members:
        starts = {member.offset for member in members}
    assert {point.offset in starts for point in check(raw, plain)} == {True}
    tree = {"large.bin": random.Random(1).randbytes(100 * KB)}
    raw = packed(tree)
    points = check(raw, gzip.decompress(raw))
    assert len(points) > 20
    assert all(2 * KB <= b.at - a.at <= 4 * KB + 100 for a, b in pairwise(points))


def test_the_first_is_behind_a_signed_manifest(application: Tree):
    for tree in (application, {"large.bin": random.Random(1).randbytes(20_000)}):
        for signer in (SIGNER, None):
            raw = packed(tree, sequence=1, signer=signer)
            plain = gzip.decompress(raw)
            with tarfile.open(fileobj=io.BytesIO(plain)) as members:
                second = members.getmembers()[1].offset
            points = check(raw, plain)
            if signer:
                assert second in {point.offset for point in points}
    # Nothing but a manifest; and a package that is smaller than the least distance.
    for selection in (
        Selection({}, {f"gone/{n}.py" for n in range(4000)}),
        Selection({"a": b"1"}),
    ):
        raw = build(selection, sequence=1, signer=SIGNER, window=13)
        check(raw, gzip.decompress(raw))


def test_the_same_bytes_each_time(desk: Desk):  # noqa: F811
    tree = {f"lib/m{n}.py": text(n, 6000) for n in range(12)}
    source = desk.tree(tree)
    made = [desk.build(source, name=f"{n}.tar.gz").read_bytes() for n in range(2)]
    words = ["build", source, "--out", desk.folder / "other.tar.gz"]
    subprocess.run(
        [sys.executable, "-m", "insigh_ota.package", *map(str, words)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
    )
    made.append((desk.folder / "other.tar.gz").read_bytes())
    made.append(packed(dict(reversed(tree.items()))))
    assert len(set(made)) == 1
    assert restarts.find(made[0])


# -- the command -------------------------------------------------------------------------------


def test_inspect_and_verify(desk: Desk, application: Tree):  # noqa: F811
    pem, pub = desk.key()
    source = desk.tree(application)
    unchecked = ("--unchecked", "*")  # its sources end anywhere
    package = desk.build(source, *unchecked, "--key", pem, "--sequence", 1, name="p.tar.gz")
    raw = package.read_bytes()
    points = restarts.find(raw)
    told = desk.type("inspect", package)
    most = max(restarts.distances(points, raw))
    assert f"restart points: {len(points)}, at most {most} bytes apart" in told
    assert f"they add {restarts.price(raw):.1f} % to the size" in told
    assert "window of 8192 bytes" in told
    assert "good: 113 files" in desk.type("verify", package, "--key", pub)
    without = desk.build(source, *unchecked, "--no-restarts", name="without.tar.gz").read_bytes()
    assert without[10:17] == b"\5\0OW\1\0\x0d"
    assert "no restart points" in desk.type("inspect", desk.folder / "without.tar.gz")
    # A .tar needs none.
    tar = desk.build(source, *unchecked, name="p.tar")
    assert "restart points" not in desk.type("inspect", tar)
    assert (
        tar.read_bytes()
        == desk.build(source, *unchecked, "--no-restarts", name="q.tar").read_bytes()
    )


def test_archives_of_others_have_none(desk: Desk, application: Tree):  # noqa: F811
    """Also where somebody's program flushes: without our field no node looks."""
    root = desk.tree(application)
    plain = output_of(["tar", "-c", "."], root)
    archives = {
        "pigz": output_of(["pigz", "-b", "128", "-p", "4", "-c"], root, plain),
        "pigz -i": output_of(["pigz", "-i", "-b", "128", "-p", "4", "-c"], root, plain),
        "gzip -9": output_of(["gzip", "-9", "-c"], root, plain),
        "Python": gzip.compress(plain),
        "sample": sample.tar_gz(application),
    }
    assert archives["pigz -i"].count(MARK) > 3
    for name, raw in archives.items():
        assert restarts.find(raw) == [], name
        (desk.folder / "p.tar.gz").write_bytes(raw)
        assert "no restart points" in desk.type("inspect", desk.folder / "p.tar.gz"), name


@pytest.mark.parametrize("flush", [zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH])
@pytest.mark.parametrize("at", [0, 4 * KB, 4 * KB + 500])
def test_a_promise_that_is_not_kept_is_seen(desk: Desk, flush: int, at: int):  # noqa: F811
    """A flush that keeps the window, where a node takes it for one that does not."""
    noise = random.Random(1).randbytes(5000)
    files = {"a": noise[:2000], "b": noise + noise[2000:]}
    plain = sample.tar(files, tar_format=tarfile.USTAR_FORMAT)
    border = 512 + 2048 + (512 + at if at else 0)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -13, 9)
    stream = deflate.compress(plain[:border]) + deflate.flush(flush)
    stream += deflate.compress(plain[border:]) + deflate.flush()
    raw = archive.wrap(stream, plain, 13, restarts=True)
    assert gzip.decompress(raw) == plain
    (desk.folder / "p.tar.gz").write_bytes(raw)
    words = ("inspect", desk.folder / "p.tar.gz")
    if at % KB:  # no place where a node looks
        assert restarts.find(raw) == []
    elif flush == zlib.Z_FULL_FLUSH:
        assert [point.offset for point in restarts.find(raw)] == [border]
        assert "restart points: 1, at" in desk.type(*words)
    else:
        assert f"at byte {border} of the archive is none" in desk.refused(*words)


# -- what looks like one -----------------------------------------------------------------------


def seen_by_a_node(raw: bytes, plain: bytes) -> list[tuple[int, int]]:
    """(place, where it would begin) for each place that a node would take for a restart point.

    It has inflated up to there and not a byte more, and looks at what it would read next.
    """
    inflate, stream = zlib.decompressobj(-15), raw[18:]
    left, made, found = sorted(places(plain), reverse=True), 0, []
    for at in range(1, len(stream) - 8):
        made += len(inflate.decompress(stream[at - 1 : at]))
        while left and left[-1] <= made:
            place = left.pop()
            mark = stream.find(MARK, at, at + 4 + len(MARK)) if place else -1
            if mark >= 0:
                found.append((place, 18 + mark + len(MARK)))
    return found


def close(plain: bytes, least: int, window: int = 13, *, signed: bool = False) -> bytes:
    """A package with points closer to each other than they are, whatever that costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restarts, "_LEAST", (least,))
        patch.setattr(restarts, "_MOST", 3)
        return restarts.compress(plain, window, signed=signed)


def look_alike(kind: str) -> tuple[bytes, int]:
    """A tar archive of which packing makes what looks like a restart point; least distance."""
    noise = random.Random(1).randbytes(30 * KB)
    if kind == "zeros":
        # As few as there may be between two points.
        size = block_ends(9 * KB)[-1] + 2 * KB + 1
        files = {f"{n}.bin": (noise[: 100 + n] + bytes(size))[:size] for n in range(5)}
        return build(Selection(files)), 8
    if kind == "a package":
        packed_before = packed({"a.py": text(1, 200_000)})
        mark = restarts.find(packed_before)[1].at - len(MARK)
        content = noise[: block_ends(30 * KB)[-1] - mark] + packed_before
    else:
        content = bytearray(noise)
        for at in block_ends(len(content))[1:]:
            content[at + int(kind) : at + int(kind) + 4] = MARK
    return build(Selection({"a.bin": bytes(content), "b.bin": noise})), 8 * KB


#: A package in the package, and marks so many bytes behind the end of a block.
LOOK_ALIKES = ("a package", "0", "1", "3")


@pytest.mark.parametrize("kind", ["zeros", *LOOK_ALIKES])
def test_nothing_looks_like_one_that_is_none(kind: str):
    plain, least = look_alike(kind)
    raw = close(plain, least)
    points = check(raw, plain)
    assert points
    assert seen_by_a_node(raw, plain) == [(point.offset, point.at) for point in points]


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_what_looks_like_one_would_have_been_seen(kind: str):
    """As it comes without a second thought."""
    plain, least = look_alike(kind)
    all_good = dict.fromkeys(restarts._places(plain), True)
    stream, _ = restarts._flushed(plain, 13, all_good, least, set())
    raw = archive.wrap(stream, plain, 13, restarts=True)
    with pytest.raises(PackageError, match="is none"):
        restarts.find(raw)
    points = {(point.offset, point.at) for point in restarts._look(raw, all_good)[0]}
    assert set(seen_by_a_node(raw, plain)) > points


def some_content(seed: int, size: int) -> bytes:
    """Runs of noise, text, zeros, and what looks like the end of a flush."""
    rng, content = random.Random(seed), bytearray()
    while len(content) < size:
        length = rng.choice((1, 30, 500, 1024, 3000))
        kind = rng.randrange(5)
        if kind == 0:
            content += bytes(length)
        elif kind == 1:
            content += bytes(rng.choices(b"etaoin shrdlu\n", k=length))
        elif kind == 2:
            content += bytes(-len(content) % KB) + MARK
        else:
            content += rng.randbytes(length)
    return bytes(content[:size])


TREE = st.dictionaries(
    st.text("abc/", min_size=1, max_size=12).map(lambda name: name.strip("/").replace("/", "_/")),
    st.tuples(st.integers(0, 10**6), st.sampled_from((0, 1, 511, 512, 1024, 1025, 5000, 20_000))),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(TREE, st.sampled_from((9, 13, 15)), st.sampled_from((300, 900, 4000)), st.booleans())
def test_random_trees(tree: dict, window: int, least: int, signed: bool):
    """With points much closer than a package has them: each holds, and nothing looks like one."""
    files = {name + f"~{n}": some_content(*row) for n, (name, row) in enumerate(tree.items())}
    signer = SIGNER if signed else None
    plain = build(Selection(files), sequence=1, signer=signer)
    raw = close(plain, least, window, signed=signed)
    assert gzip.decompress(raw) == plain
    assert archive.read(raw).window == window
    points = check(raw, plain)
    if points:
        assert seen_by_a_node(raw, plain) == [(point.offset, point.at) for point in points]
