"""What real programs write, with every format and option that users have, the device reads."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from host_sim import sample
from tests.package.archives.programs import output_of
from tests.package.archives.readers import Member, read_on_device

_DEEP = "very/deep/folders/that/somebody/likes/to/have/here/" * 3
_NOISE = random.Random(5).randbytes(70_000)
_SHORT: sample.Tree = {
    "main.py": b"print('hello')\n",
    "empty.txt": b"",
    "lib/driver/__init__.py": b"# one block exactly\n".ljust(512, b"#"),
    "lib/driver/table.bin": _NOISE,
    "lib/repeats.txt": b"The window matters when this comes again far behind. " * 4000,
    "δεδομένα/θερμοκρασία °C.csv": "größe\n".encode() * 100,
    "データ/温度.txt": b"\x00\xff\xfe" * 171,
    "with space/and 'quote'.txt": b"x" * 513,
    "a/b/c/d/e/f/g/h/i/j/k/l/deep.txt": b"deep",
}
# The longest that ustar's two fields hold, 155 bytes and 100, with ./ in front.
_SPLIT: sample.Tree = {
    **_SHORT,
    f"{'p' * 75}/{'q' * 77}/{'n' * 100}": b"at both limits",
    f"{_DEEP[:140].rstrip('/')}/file.txt": b"more than 100 bytes in all",
}
_LONG: sample.Tree = {
    **_SPLIT,
    f"{_DEEP}{_DEEP}long.txt": b"more than 256 bytes in all",
    f"{'n' * 150}.txt": b"a name of more than 100 bytes",
    f"lib/{'m' * 255}": b"the longest name that there is",
    f"{'größe/' * 30}ä.txt": b"long and not ASCII",
}
#: Which names a format can hold: v7 has 99 bytes, ustar a prefix more.
TREES = {"v7": _SHORT, "v7tar": _SHORT, "ustar": _SPLIT}
_EMPTY_FOLDERS = ("empty folder", "lib/also/empty")

GNU_FORMATS = ("v7", "oldgnu", "gnu", "ustar", "posix")
BSD_FORMATS = ("v7tar", "ustar", "pax", "gnutar", "default")
PYTHON_FORMATS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}


def laid_down(tmp_path: Path, tree: sample.Tree) -> Path:
    """The tree as files in a folder of its own, with empty folders beside them."""
    root = sample.write_tree(tree, tmp_path / "root")
    for name in _EMPTY_FOLDERS:
        (root / name).mkdir(parents=True)
    for number, path in enumerate(sorted(root.rglob("*"))):
        # Fractional times, as files have that nobody made for a test.
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_987_654_321 + number))
    return root


def expected(tree: sample.Tree, *, folders: bool) -> list[Member]:
    """The members that have to be found, sorted."""
    members = [
        Member("/" + name, False, len(content), hashlib.sha256(content).hexdigest())
        for name, content in tree.items()
    ]
    if folders:
        parents = {parent for name in tree for parent in Path("/", name).parents}
        parents |= {Path("/", name) for name in _EMPTY_FOLDERS}
        parents |= {parent for name in _EMPTY_FOLDERS for parent in Path("/", name).parents}
        members += [Member(str(parent), True, 0, None) for parent in parents - {Path("/")}]
    return sorted(members)


def read(agent: Path, archives: dict[str, bytes]) -> dict[str, list[Member]]:
    """The sorted members of each archive, without the root itself. None may be refused."""
    noises = range(1, len(archives) + 1)  # in pieces of many sizes
    readings = read_on_device(agent, list(archives.values()), list(noises))
    assert {name: r.error for name, r in zip(archives, readings, strict=True) if r.error} == {}
    return {
        name: sorted(member for member in reading.members if member.path != "/")
        for name, reading in zip(archives, readings, strict=True)
    }


def all_equal(members: dict[str, list[Member]], tree: sample.Tree, *, folders: bool) -> None:
    """Fail unless every archive has just the members of the tree."""
    wanted = expected(tree, folders=folders)
    for name, got in members.items():
        assert got == wanted, name


def top_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def file_names(root: Path) -> bytes:
    """All files, as `find` would list them: in no order that a program promises."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return "".join(name + "\n" for name in reversed(names)).encode()


@pytest.mark.few(1)
@pytest.mark.parametrize("tar_format", GNU_FORMATS)
def test_gnu_tar(tmp_path: Path, compiled: Path, tar_format: str):
    tree = TREES.get(tar_format, _LONG)
    root = laid_down(tmp_path, tree)
    tar = ["tar", f"--format={tar_format}", "-c"]
    archives = {
        "from .": output_of([*tar, "."], root),
        "by names": output_of([*tar, *top_names(root)], root),
        "from /": output_of([*tar, "-P", "--transform=s,^[.]/,/,", "."], root),
        **{f"-b {n}": output_of([*tar, "-b", str(n), "."], root) for n in (1, 2, 63)},
    }
    all_equal(read(compiled, archives), tree, folders=True)
    files = output_of([*tar, "--no-recursion", "-T", "-"], root, file_names(root))
    all_equal(read(compiled, {"files only": files}), tree, folders=False)


@pytest.mark.few(1)
@pytest.mark.parametrize("tar_format", BSD_FORMATS)
def test_bsdtar(tmp_path: Path, compiled: Path, tar_format: str):
    tree = TREES.get(tar_format, _LONG)
    root = laid_down(tmp_path, tree)
    tar = ["bsdtar", *([] if tar_format == "default" else ["--format", tar_format]), "-c"]
    archives = {
        "from .": output_of([*tar, "-f", "-", "."], root),
        "by names": output_of([*tar, "-f", "-", *top_names(root)], root),
        "-b 1": output_of([*tar, "-b", "1", "-f", "-", "."], root),
        "-z": output_of([*tar, "-z", "-f", "-", "."], root),
    }
    all_equal(read(compiled, archives), tree, folders=True)
    files = output_of([*tar, "-n", "-T", "-", "-f", "-"], root, file_names(root))
    all_equal(read(compiled, {"files only": files}), tree, folders=False)


def test_busybox(tmp_path: Path, compiled: Path):
    root = laid_down(tmp_path, _LONG)
    tar = ["busybox", "tar", "-c", "-f", "-"]
    archives = {
        "from .": output_of([*tar, "."], root),
        "by names": output_of([*tar, *top_names(root)], root),
        "-z": output_of([*tar, "-z", "."], root),
    }
    all_equal(read(compiled, archives), _LONG, folders=True)
    files = output_of([*tar, *file_names(root).decode().splitlines()], root)
    all_equal(read(compiled, {"files only": files}), _LONG, folders=False)


@pytest.mark.parametrize("tar_format", PYTHON_FORMATS)
def test_python(tmp_path: Path, compiled: Path, tar_format: str):
    tree = TREES.get(tar_format, _LONG)
    root = laid_down(tmp_path, tree)
    archives = {}
    for mode in ("w", "w:gz"):
        for prefix in ("", "./", "/"):
            out = io.BytesIO()
            options = {"format": PYTHON_FORMATS[tar_format]}
            with tarfile.open(fileobj=out, mode=mode, **options) as archive:
                for name in top_names(root):
                    archive.add(root / name, prefix + name)
            archives[mode + prefix] = out.getvalue()
    all_equal(read(compiled, archives), tree, folders=True)


def test_git_archive(tmp_path: Path, compiled: Path):
    """It puts a global PAX header in front, and long names into PAX headers."""
    root = laid_down(tmp_path, _LONG)
    archives = {
        "tar": git_archive(root),
        "tar.gz": output_of(["git", "archive", "--format=tar.gz", "HEAD"], root),
    }
    for members in read(compiled, archives).values():
        files = [member for member in members if not member.is_folder]
        assert files == expected(_LONG, folders=False)


def git_archive(root: Path) -> bytes:
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=false"]
    output_of(["git", "init", "-q"], root)
    output_of(["git", "add", "."], root)
    output_of(["git", *author, "commit", "-q", "-m", "All of it"], root)
    return output_of(["git", "archive", "HEAD"], root)


ENDS = {
    "GNU tar": ["tar", "-c", "file.bin"],
    "GNU tar -b1": ["tar", "-c", "-b1", "file.bin"],
    "bsdtar": ["bsdtar", "-c", "-f", "-", "file.bin"],
    "bsdtar -b1": ["bsdtar", "-c", "-b", "1", "-f", "-", "file.bin"],
    "busybox": ["busybox", "tar", "-c", "-f", "-", "file.bin"],
    "Python": None,
    "git archive": None,
}


@pytest.mark.parametrize("program", ENDS)
def test_the_end_that_real_programs_write(tmp_path: Path, compiled: Path, program: str):
    """Two zero blocks, also where the members fill the last record, or all of it but a block.

    Without them, and with one of them, the archive is refused.
    """
    archives = {}
    for blocks in range(15, 21):
        root = sample.write_tree({"file.bin": _NOISE[: 512 * blocks]}, tmp_path / str(blocks))
        if program == "git archive":
            data = git_archive(root)
        elif program == "Python":
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                archive.add(root / "file.bin", "file.bin")
            data = out.getvalue()
        else:
            data = output_of(ENDS[program], root)
        end = len(data.rstrip(b"\0")) + 511 & ~511
        archives |= {(blocks, n): data[: end + 512 * n] for n in (0, 1, 2)}
        archives[blocks, "whole"] = data
    readings = read_on_device(compiled, list(archives.values()))
    for (blocks, end), reading in zip(archives, readings, strict=True):
        cut = end in (0, 1)
        wanted = "can not apply: bad archive, it has no end" if cut else None
        assert reading.error == wanted, (blocks, end)
        assert [member.size for member in reading.members] == [512 * blocks], (blocks, end)


COMPRESSORS = {
    "gzip -1": ["gzip", "-1"],
    "gzip -6": ["gzip"],
    "gzip -9": ["gzip", "-9"],
    "pigz": ["pigz"],
    "pigz of small blocks": ["pigz", "-p", "2", "-b", "128"],
    "pigz of independent blocks": ["pigz", "-p", "2", "-b", "128", "-i"],
    "pigz --zlib": ["pigz", "--zlib"],
    "busybox gzip": ["busybox", "gzip", "-c"],
    "GNU tar -z": ["tar", "-z", "-c", "."],
    "zopfli": ["zopfli", "-c", "--i1", "../plain.tar"],
}


@pytest.mark.few(1)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_compressors(tmp_path: Path, compiled: Path, compressor: str):
    root = laid_down(tmp_path, _LONG)
    plain = output_of(["tar", "--format=posix", "-c", "."], root)
    (tmp_path / "plain.tar").write_bytes(plain)
    data = output_of(COMPRESSORS[compressor], root, plain)
    assert len(data) < len(plain) / 2
    all_equal(read(compiled, {compressor: data}), _LONG, folders=True)


def test_gzip_files_one_after_the_other(tmp_path: Path, compiled: Path):
    """`cat a.gz b.gz` is a gzip file; here the archive is cut inside a member."""
    root = laid_down(tmp_path, _LONG)
    plain = output_of(["tar", "-c", "."], root)
    halves = plain[:40_000], plain[40_000:]
    data = b"".join(output_of(["gzip", "-c"], root, half) for half in halves)
    all_equal(read(compiled, {"": data}), _LONG, folders=True)


def test_microfreezer(compiled: Path):
    """Both settings, rebuilt from docs/protocol.md."""
    tree = {**_LONG, "package_md5sum.py": b"MD5 = '0123456789abcdef0123456789abcdef'\n"}
    archives = {"enableZlibCompression: false": sample.tar(tree)}
    archives["enableZlibCompression: true"] = sample.microfreezer(tree)
    # A PAX header before every member, as its fractional times make it.
    plain = archives["enableZlibCompression: false"]
    members = expected(tree, folders=True)
    empty = {"/" + name for name in _EMPTY_FOLDERS}
    members = [m for m in members if m.path not in empty | {"/lib/also"}]
    assert plain.count(b"././@PaxHeader") == len(members)
    for name, got in read(compiled, archives).items():
        assert got == members, name


UNWANTED = {
    "symbolic link": ([], "type '2' is neither file nor folder"),
    "hard link": ([], "type '1' is neither file nor folder"),
    "fifo": ([], "type '6' is neither file nor folder"),
    "sparse": (["-S", "--format=gnu"], "type 'S' is neither file nor folder"),
    "sparse 0.0": (["-S", "--format=posix", "--sparse-version=0.0"], "sparse file"),
    "sparse 0.1": (["-S", "--format=posix", "--sparse-version=0.1"], "sparse file"),
    "sparse 1.0": (["-S", "--format=posix", "--sparse-version=1.0"], "sparse file"),
    "volume label": (["-V", "backup"], "type 'V' is neither file nor folder"),
    "incremental": (["-g", "../snapshot"], "type 'D' is neither file nor folder"),
    "out of the root": (["-P", "--transform=s,^[.]/,../,"], "a path leaves the root"),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("what", UNWANTED)
def test_what_no_package_may_hold(tmp_path: Path, compiled: Path, what: str):
    """As GNU tar writes it; none of this is read as something else."""
    options, reason = UNWANTED[what]
    root = sample.write_tree({"main.py": b"print(1)\n"}, tmp_path / "root")
    if what == "symbolic link":
        (root / "link.py").symlink_to("main.py")
    elif what == "hard link":
        (root / "link.py").hardlink_to(root / "main.py")
    elif what == "fifo":
        os.mkfifo(root / "pipe")
    elif what.startswith("sparse"):
        with (root / "sparse.bin").open("wb") as file:
            file.seek(200_000)
            file.write(b"end")
    (reading,) = read_on_device(compiled, [output_of(["tar", *options, "-c", "."], root)])
    assert reading.error and reason in reading.error
