"""Bodies that are no package, or not all of one, or more than one."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
import zlib

from tests.package.hostile.raw import FIRST, member, package
from tests.package.hostile.registry import BAD, hostile

TAR = package(member(b"lib/new.txt", b"content\n" * 100))
NEITHER = BAD + "neither tar nor a known compression"
LONGER = "can not download: the body is longer than announced"
SHORTER = "can not download: the archive is shorter than announced"
EARLY = "can not download: the body ended early"


@hostile(NEITHER, length=True)
def random_noise() -> bytes:
    """Nothing at all."""
    return random.Random(1).randbytes(5000)


@hostile(BAD)
def random_noise_behind_a_gzip_header() -> bytes:
    """The first bytes are right."""
    return gzip.compress(b"")[:10] + random.Random(2).randbytes(5000)


@hostile(BAD)
def random_noise_behind_a_zlib_header() -> bytes:
    """The first two bytes are right."""
    return b"\x78\x9c" + random.Random(3).randbytes(5000)


@hostile(BAD)
def random_noise_behind_a_member() -> bytes:
    """The first member is right."""
    return FIRST + random.Random(4).randbytes(5120)


@hostile(NEITHER, length=True)
def one_byte() -> bytes:
    """As little as can be announced."""
    return b"\x1f"


@hostile(NEITHER, length=True)
def page_of_an_error() -> bytes:
    """A proxy's apology, with status 200."""
    return b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head></html>\n" * 8


@hostile(NEITHER, length=True)
def answer_in_json() -> bytes:
    """The platform's own words for an error, with status 200."""
    return json.dumps({"error": "no such file"}).encode()


@hostile(NEITHER, length=True)
def bzip2() -> bytes:
    """A compression that the node does not have."""
    return bz2.compress(TAR)


@hostile(NEITHER, length=True)
def xz() -> bytes:
    """Another one."""
    return lzma.compress(TAR)


@hostile(NEITHER, length=True)
def lzma_alone() -> bytes:
    """Its older format."""
    return lzma.compress(TAR, format=lzma.FORMAT_ALONE)


@hostile(NEITHER, length=True)
def zstandard() -> bytes:
    """Only its first bytes: Python has it since 3.14."""
    return b"\x28\xb5\x2f\xfd\x04\x00" + random.Random(5).randbytes(600)


@hostile(NEITHER, length=True)
def unix_compress() -> bytes:
    """What `.tar.Z` begins with; gunzip reads it."""
    return b"\x1f\x9d\x90" + random.Random(6).randbytes(600)


@hostile(NEITHER, length=True)
def zip_archive() -> bytes:
    """Another archive altogether."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("main.py", "print(2)\n" * 100)
    return out.getvalue()


@hostile(NEITHER, length=True)
def cpio_archive() -> bytes:
    """The archive that tar once competed with."""
    return b"070701" + b"00000000" * 13 + b"main.py\0" + b"print(2)\n" * 100


@hostile(NEITHER, length=True)
def elf_program() -> bytes:
    """An image of whole firmware, uploaded by mistake."""
    return b"\x7fELF\x01\x01\x01" + random.Random(7).randbytes(2000)


@hostile(NEITHER, length=True)
def deflate_without_a_wrapping() -> bytes:
    """Nothing says what it is, nothing proves it."""
    return zlib.compress(TAR)[2:-4]


@hostile(BAD)
def gzip_in_gzip() -> bytes:
    """Compressed twice."""
    return gzip.compress(gzip.compress(TAR))


@hostile(BAD)
def zip_in_gzip() -> bytes:
    """Something else, compressed."""
    return gzip.compress(zip_archive())


@hostile(EARLY, announced=1)
def body_one_byte_short() -> bytes:
    """The link broke at the very end."""
    return gzip.compress(TAR)


@hostile("can not download: neither tar nor a known compression")
def page_without_a_length() -> bytes:
    """Nothing says that it is the package."""
    return b"<!DOCTYPE html>\n<html><head><title>Back soon</title></head></html>\n" * 8


@hostile(EARLY, announced=512)
def body_one_block_short() -> bytes:
    """The end blocks alone are missing, of a plain tar that would be sound without them."""
    return TAR[:-512]


@hostile(EARLY, announced=2000)
def body_ends_between_members() -> bytes:
    """What came would be a sound archive."""
    return FIRST


@hostile(LONGER, announced=-1)
def body_one_byte_long() -> bytes:
    """More than was announced."""
    return gzip.compress(TAR) + b"\0"


@hostile("can not apply: bad archive, it has no end", announced=-1024)
def body_longer_by_the_end() -> bytes:
    """The announced part ends behind the last member, where an archive without an end would."""
    return TAR


@hostile("can not download: ", announced=100, length=True)
def server_tells_less_than_announced() -> bytes:
    """The server's own length and the request's differ."""
    return gzip.compress(TAR)


@hostile("can not download: ", announced=-100, length=True)
def server_tells_more_than_announced() -> bytes:
    """The other way round."""
    return gzip.compress(TAR)


@hostile("not enough space: ", announced=1 << 40)
def terabyte_announced() -> bytes:
    """Refused before a byte of it is fetched."""
    return TAR
