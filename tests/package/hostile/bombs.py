"""Small bodies with much in them: all must stop while flash still has its reserve."""

from __future__ import annotations

import gzip
import random
import zlib

from tests.package.hostile.raw import (
    END,
    FIRST,
    extension,
    folder,
    header,
    member,
    package,
    pax,
    record,
)
from tests.package.hostile.registry import BAD, hostile
from tests.package.hostile.streams import freezer

FULL = "not enough space: "
MEGABYTE = 1 << 20


@hostile(FULL)
def gzip_bomb() -> bytes:
    """Sixteen megabytes of zeros in sixteen kilobytes."""
    return gzip.compress(package(member(b"bomb.bin", bytes(16 * MEGABYTE))))


@hostile(FULL)
def zlib_bomb() -> bytes:
    """The same as zlib."""
    return zlib.compress(package(member(b"bomb.bin", bytes(MEGABYTE))))


@hostile(FULL)
def microfreezer_bomb() -> bytes:
    """The same as microfreezer packs it."""
    return freezer(zlib.compress(package(member(b"bomb.bin", bytes(MEGABYTE)))))


@hostile(FULL)
def bomb_of_many_files() -> bytes:
    """No single file is large."""
    files = [member(b"f%d.bin" % n, bytes(9000)) for n in range(200)]
    return gzip.compress(package(*files))


@hostile(FULL)
def bomb_announced_as_tiny() -> bytes:
    """Without an end: the size in its header is all that is known of it."""
    return gzip.compress(FIRST + header(b"bomb.bin", 200 * MEGABYTE) + bytes(MEGABYTE))


@hostile(FULL)
def bomb_of_replaced_files() -> bytes:
    """Each replaced file costs twice, for its copy is kept."""
    files = [
        member(name, bytes(60_000)) for name in (b"main.py", b"boot_user.py", b"data/log.csv")
    ]
    return gzip.compress(package(*files, member(b"more.bin", bytes(300_000))))


@hostile(FULL)
def bomb_of_empty_files() -> bytes:
    """Files of no bytes cost blocks all the same, for their names."""
    return gzip.compress(package(*[member(b"empty/%d" % n) for n in range(5000)]))


@hostile(FULL)
def bomb_of_empty_files_with_long_names() -> bytes:
    """Each name stands in a folder and in the journal."""
    files = [pax(path=b"%0200d" % n) + member(b"x") for n in range(2500)]
    return gzip.compress(package(*files))


@hostile(FULL)
def bomb_of_files_below_long_folders() -> bytes:
    """The journal has the whole path of each, and grows faster than what it is about."""
    above = b"/".join([b"f" * 120] * 7)
    files = [pax(path=above + b"/%d" % n) + member(b"x") for n in range(1000)]
    return gzip.compress(package(*files))


@hostile(FULL)
def bomb_of_empty_folders() -> bytes:
    """Each will take two blocks, when it is made."""
    return gzip.compress(package(*[folder(b"empty/%d" % n) for n in range(5000)]))


@hostile(FULL)
def bomb_of_folders_below_long_folders() -> bytes:
    """Only the journal grows while these are staged."""
    above = b"/".join([b"f" * 120] * 7)
    folders = [pax(path=above + b"/%d" % n) + folder(b"x") for n in range(1500)]
    return gzip.compress(package(*folders))


@hostile(FULL)
def bomb_of_folders_that_only_paths_imply() -> bytes:
    """Hundreds of folders with one empty file in each."""
    return gzip.compress(package(*[member(b"implied/%d/x" % n) for n in range(800)]))


@hostile(FULL)
def bomb_of_depth() -> bytes:
    """One file below five hundred folders, in a path that is not longer than paths may be."""
    return gzip.compress(package(pax(path=b"d/" * 500 + b"x"), member(b"x", b"x")))


@hostile(FULL)
def bomb_of_a_deep_folder() -> bytes:
    """The same as an entry of a folder."""
    return gzip.compress(package(pax(path=b"d/" * 500), folder(b"x")))


@hostile(FULL)
def bomb_of_many_depths() -> bytes:
    """Fifty files, each below twenty folders of its own."""
    files = [member(b"/".join(b"%d" % (n + m) for m in range(20)) + b"/x") for n in range(50)]
    return gzip.compress(package(*files))


@hostile(FULL)
def bomb_of_noise() -> bytes:
    """Nothing to compress: the announced size is small enough, the content is not by a little."""
    rng = random.Random(8)
    files = [member(b"n%d.bin" % n, rng.randbytes(4097)) for n in range(32)]
    return package(*files)


@hostile(BAD + "extended header of ")
def bomb_in_an_extension() -> bytes:
    """Sixteen megabytes of a PAX record: memory, not flash, is what it is after."""
    return gzip.compress(package(extension(b"x", record(b"path", b"n" * 16 * MEGABYTE))))


@hostile(BAD + "data after its end")
def bomb_behind_the_end() -> bytes:
    """An end of sixteen megabytes, and one byte behind it that is no zero."""
    return gzip.compress(FIRST + END + bytes(16 * MEGABYTE) + b"x".ljust(512, b"\0"))
