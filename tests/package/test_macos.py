"""Archives as macOS writes them: attributes beside each file, and in PAX headers of any length."""

from __future__ import annotations

import gzip
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from host_sim import sample
from host_sim.node.node import run_code
from insigh_ota.package.__main__ import main
from tests import signing
from tests.conftest import MakeSite
from tests.package.archives.blocks import extended, gnu_long, header, member, pax
from tests.package.archives.programs import need
from tests.package.archives.readers import Member, read_on_device
from tests.package.signed.packages import archive

END = bytes(1024)
#: What the attributes of a file come to: the magic number, the version, an entry for the Finder's
#: and one for the rest (RFC 1740), and then noise.
APPLE_DOUBLE = (
    bytes.fromhex("0005160700020000")
    + b"Mac OS X        "
    + bytes.fromhex("000200000009000000320000007900000002000000ab00000000")
    + random.Random(3).randbytes(200)
)
PROVENANCE = b"\x01\x02\x00\n7 path=evil\n=\x00\xff\xd5"
TREE = {"main.py": sample.main_py(2), "lib/driver.py": b"a = 1\n" * 200, "lib/b.txt": b""}


def attributes(value: bytes = PROVENANCE) -> bytes:
    """The PAX header that its bsdtar puts before a file."""
    return pax(
        (b"LIBARCHIVE.creationtime", b"1700000000.25"),
        (b"LIBARCHIVE.xattr.com.apple.provenance", b"AQIACjcgcGF0aD1ldmlsCj0A/9U"),
        (b"SCHILY.xattr.com.apple.provenance", value),
        (b"mtime", b"1700000000.5"),
    )


def beside(name: str) -> str:
    """The name under which a file's attributes stand in an archive."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}._{last}"


def of_macos(tree: sample.Tree, value: bytes = PROVENANCE, prefix: str = "./") -> bytes:
    """A tar as the program on a Mac writes it, from `.`: each file, and folder, comes in pairs."""
    parts = []
    if prefix:
        parts += [member(b"./._.", APPLE_DOUBLE), attributes(value), header(b"./", kind=b"5")]
    folders: set[str] = set()
    for name, content in tree.items():
        folder = name.rpartition("/")[0]
        if folder and folder not in folders:
            folders.add(folder)
            parts += [attributes(), member((prefix + beside(folder)).encode(), APPLE_DOUBLE)]
            parts += [header(f"{prefix}{folder}/".encode(), kind=b"5")]
            parts += [member(f"{prefix}{folder}/.DS_Store".encode(), b"\0\0\0\1Bud1" * 900)]
        parts += [attributes(), member((prefix + beside(name)).encode(), APPLE_DOUBLE)]
        parts += [attributes(value), member((prefix + name).encode(), content)]
    return b"".join([*parts, END])


def named(members: list[Member]) -> list[str]:
    return [member.path for member in members if not member.is_folder]


def test_what_macos_puts_beside_files_is_passed_over(agent: Path):
    plain = of_macos(TREE)
    extra = [
        member(b"__MACOSX/._main.py", APPLE_DOUBLE),
        header(b"__MACOSX/", kind=b"5"),
        member(b"__MACOSX/lib/x.py", b"x"),
        member(b"._boot.py", APPLE_DOUBLE),
        member(b".DS_Store", b"x" * 600),
        member(b"._folder/x.py", b"x"),
        # An override before one of them is for that one, and not for the next.
        pax(("path", "lib/._renamed"), ("size", "3")) + member(b"lib/other.py", b"xyz"),
        gnu_long(b"d/" * 60 + b"._long") + member(b"d/short", b"x"),
        member(b"kept.py", b"kept"),
        # And these are names like any other.
        member(b".hidden", b"1"),
        member(b"a._b", b"2"),
        member(b"_.py", b"3"),
        member(b"DS_Store", b"4"),
        member(b"MACOSX/y.py", b"5"),
        END,
    ]
    archives = [plain, gzip.compress(plain), b"".join(extra)]
    first, second, third = read_on_device(agent, archives)
    for reading in first, second:
        assert reading.error is None
        assert named(reading.members) == ["/" + name for name in TREE]
        assert [m.size for m in reading.members if not m.is_folder] == list(
            map(len, TREE.values())
        )
    assert third.error is None
    kept = "kept.py .hidden a._b _.py DS_Store MACOSX/y.py"
    assert named(third.members) == ["/" + name for name in kept.split()]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        # Damage counts, wherever it is.
        ([member(b"._a", b"x" * 99)[:-512]], "ends inside a member"),
        ([member(b"._a", kind=b"2", link=b"/etc")], "is neither file nor folder"),
        ([pax(("path", "b")), pax(("path", "._c")), member(b"a", b"x")], "two extended headers"),
        ([member(b"._a", b"x")], None),
    ],
)
def test_passing_over_hides_nothing(compiled: Path, parts: list[bytes], error: str | None):
    end = b"" if error == "ends inside a member" else END
    (reading,) = read_on_device(compiled, [b"".join(parts) + end])
    assert reading.members == []
    assert (error or "") in (reading.error or "")
    assert bool(reading.error) == bool(error)


LENGTHS = [400, 505, 506, 507, 508, 509, 510, 511, 512, 513, 1019, 1024, 4096, 20_000, 65_536]


@pytest.mark.parametrize("key", [b"SCHILY.xattr.com.apple.ResourceFork", b"comment"])
def test_long_attributes_are_passed_over(agent: Path, key: bytes):
    """Of every length around a block's; what stands before and behind them counts all the same."""
    archives, noise = [], random.Random(4).randbytes(70_000)
    for length in LENGTHS:
        for at in range(3):
            records = [(b"path", b"renamed.py"), (b"size", b"7")]
            records.insert(at, (key, noise[:length]))
            archives.append(pax(*records) + member(b"a.py", b"content") + END)
    for reading in read_on_device(agent, archives):
        assert reading.error is None
        assert [(m.path, m.size) for m in reading.members] == [("/renamed.py", 7)]


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("content", "error"),
    [
        # A record that is passed over is as sound as one that is read.
        (b"1000 comment=" + b"x" * 986 + b"y", "damaged PAX header"),
        (b"1001 comment=" + b"x" * 986 + b"\n", "damaged PAX header"),
        (b"1000 comment=" + b"x" * 986 + b"\n" + b"0", "damaged PAX header"),
        (b"1000 comment_" + b"x" * 986 + b"\n", "damaged PAX header"),
        (b"5000 path=" + b"x" * 4989 + b"\n", "extended header of 4872 bytes"),
        (b"5000 size=" + b"0" * 4989 + b"\n", "extended header of 4872 bytes"),
        (b"x" * 65_536, "damaged PAX header"),
    ],
)
@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_long_headers_that_lie(compiled: Path, kind: bytes, content: bytes, error: str):
    (reading,) = read_on_device(
        compiled, [member(b"first", b"1") + extended(kind, content) + member(b"a", b"x") + END]
    )
    assert reading.error == "can not apply: bad archive, " + error
    assert named(reading.members) == ["/first"]


HEAP = """
import gc
from ota.tarfile_lite import TarReader

class File:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.most = 0
    def readinto(self, buffer, n):
        gc.collect()
        self.most = max(self.most, gc.mem_alloc())
        return self.file.readinto(buffer, n)

def most(path):
    source = File(path)
    reader = TarReader(source)
    while reader.next():
        pass
    return source.most

for path in PATHS:
    most(path)
print(*[most(path) for path in PATHS])
"""


def test_a_long_header_is_not_held(compiled: Path, tmp_path: Path):
    sizes = (700, 3000, 65_000)  # each is more than one block
    paths = []
    for size in sizes:
        paths.append(str(tmp_path / f"{size}.tar"))
        value = random.Random(size).randbytes(size)
        Path(paths[-1]).write_bytes(of_macos({"main.py": b"x"}, value))
    result = run_code(f"PATHS = {paths!r}\n" + HEAP, path=[compiled], heap="256K")
    small, *others = map(int, result.output.split())
    assert max(others) - small <= 3 * 1024, result.output  # what is read past, block by block
    assert max(others) - min(others) <= 1024, result.output


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_a_package_from_a_mac_updates_a_node(make_site: MakeSite, form: str):
    site = make_site()
    package = of_macos(TREE, random.Random(5).randbytes(60_000))
    if form == "tar.gz":
        package = gzip.compress(package)
    fuid = site.ask(package, "p." + form)
    assert "check: confirmed" in site.run().output
    assert site.reports() == [{"e": 1, "i": fuid, "m": None}]
    new = {"/" + name: content for name, content in TREE.items()}
    assert site.flash_files() == site.files | new


def test_a_signed_package_that_was_packed_anew_on_a_mac(make_site: MakeSite):
    """Its manifest lists no attributes: they are passed over before it is asked."""
    key = signing.key(1)
    text = signing.manifest(TREE, key, sequence=3)
    tree = {".ota-manifest": text, **TREE}
    config = {"keys": ["/a.pub"], "require_signature": True}
    site = make_site(config=config, extra={"a.pub": key.modulus})
    site.ask(of_macos(tree, prefix=""), "p.tar")
    assert "check: confirmed" in site.run().output
    # What the manifest does list has to come, whatever it is called.
    listed = {"main.py": sample.main_py(3), "._x": b"x"}
    named_so = [(name.encode(), content) for name, content in listed.items()]
    text = signing.manifest(listed, key, sequence=4)
    site.ask(archive([(b".ota-manifest", text), *named_so]), "p.tar")
    assert "reason: manifest: /._x is missing" in site.run().output


def test_an_archive_of_attributes_only_is_empty(make_site: MakeSite):
    site = make_site()
    site.ask(member(b"._main.py", APPLE_DOUBLE) + END, "p.tar")
    assert "reason: can not apply: bad archive, it is empty" in site.run().output


# -- the packager -------------------------------------------------------------------------------


def on_a_mac(folder: Path) -> Path:
    """A folder as the Finder and a disk of another kind leave it."""
    litter = {"._main.py": APPLE_DOUBLE, "lib/._driver.py": APPLE_DOUBLE, ".DS_Store": b"Bud1"}
    litter |= {"lib/.DS_Store": b"Bud1", "__MACOSX/._lib": APPLE_DOUBLE, "__MACOSX/x/y": b"z"}
    return sample.write_tree({**TREE, **litter}, folder)


def test_the_packager_leaves_them_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    source, out = on_a_mac(tmp_path / "app"), tmp_path / "p.tar"
    assert main(["build", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "left out: 6 files of macOS (._*, .DS_Store, __MACOSX)" in said.out + said.err
    clean = sample.write_tree(TREE, tmp_path / "clean")
    assert main(["build", str(clean), "--out", str(tmp_path / "c.tar")]) == 0
    assert "left out" not in "".join(capsys.readouterr())
    assert out.read_bytes() == (tmp_path / "c.tar").read_bytes()
    with tarfile.open(out) as package:
        files = [each.name for each in package if each.isfile()]
    assert files == [".ota-manifest", *sorted(TREE)]


def test_a_link_among_them_stops_nobody(tmp_path: Path):
    """What nobody can see can not be asked to be taken away."""
    source = on_a_mac(tmp_path / "app")
    (source / "__MACOSX" / "link").symlink_to("/etc")
    (source / "._link").symlink_to("/etc")
    assert main(["build", str(source), "--out", str(tmp_path / "p.tar")]) == 0


@pytest.mark.parametrize("command", ["tar", "bsdtar"])
def test_a_folder_of_a_mac_packed_by_real_programs(tmp_path: Path, compiled: Path, command: str):
    need(command)
    source = on_a_mac(tmp_path / "app")
    out = tmp_path / "p.tar"
    subprocess.run([command, "-cf", out, "-C", source, "."], check=True, timeout=60)
    (reading,) = read_on_device(compiled, [out.read_bytes()])
    assert reading.error is None
    assert sorted(named(reading.members)) == sorted("/" + name for name in TREE)
