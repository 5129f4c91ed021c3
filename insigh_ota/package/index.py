"""Where things lie in a package, for nodes that fetch only what they lack (docs/patches.md).

The index and the patches are comments for every other program: records `comment` of global PAX
headers (type `g`), which change no member. The first is the index. Firmware that takes any header
for a file's writes them to flash: so the index has the manifest's name, of which it knows nothing,
and the others have that of the file that follows, which overwrites them at once.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from dataclasses import dataclass, field
from itertools import accumulate

from insigh_ota.package.errors import PackageError
from insigh_ota.package.patches import number

#: So many bytes of the SHA-256 of a file that a patch begins with. It only has to tell the
#: versions of one file apart: what comes out is compared with the manifest's whole SHA-256.
BASE = 6
_VERSION = 1
#: Older agents read no longer header, and a record has its length, its key and an end.
_LONGEST = 4096
LONGEST_CONTENT = _LONGEST - len(b"4096 comment=\n")
#: A node asks for the head of a package, up to the end of the index, in units of this.
FRONT = 256
MOST_FRONT = 127
#: What a node asks for before it knows: the gzip header, up to what says where the index ends.
FIRST = 18


@dataclass
class Patched:
    """A file's patches, by what they begin with; `at` of each, and of the file, in the package."""

    patches: list[tuple[bytes, int]] = field(default_factory=list)
    at: int = 0


def base(content: bytes) -> bytes:
    """What a patch calls the file that it begins with."""
    return hashlib.sha256(content).digest()[:BASE]


def comments(name: str, contents: list[bytes]) -> list[tuple[bytes, list[int]]]:
    """Headers with these contents as records, and where in each of them its records begin."""
    found: list[tuple[bytes, list[int]]] = []
    records: list[bytes] = []
    for record in map(_record, contents):
        if sum(map(len, records)) + len(record) > _LONGEST:
            found.append(_header(name, records))
            records = []
        records.append(record)
    return [*found, _header(name, records)] if records else []


def _record(content: bytes) -> bytes:
    length = len(content) + len(b" comment=\n")
    length += len(str(length + len(str(length))))
    return b"%d comment=%b\n" % (length, content)


def _header(name: str, records: list[bytes]) -> tuple[bytes, list[int]]:
    entry = tarfile.TarInfo("package" if len(name.encode()) > 100 else name)
    entry.type, entry.size, entry.mode = tarfile.XGLTYPE, sum(map(len, records)), 0o644
    head = entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    ends = [len(head), *accumulate(map(len, records), initial=len(head))][1:]
    return head + b"".join(records) + bytes(-entry.size % tarfile.BLOCKSIZE), ends[:-1]


def encode(manifest: bytes, files: list[Patched], end: int) -> bytes:
    """The index of a package; manifest: the member; end: where the archive's stream ends."""
    out = bytearray([_VERSION]) + zlib.crc32(manifest).to_bytes(4, "little")
    out += number(len(files))
    last = 0
    for each in files:
        out += number(len(each.patches))
        for name, at in each.patches:
            out += name + number(at - last)
            last = at
        out += number(each.at - last)
        last = each.at
    out += number(end - last)
    return bytes(out + zlib.crc32(out).to_bytes(4, "little"))


def decode(raw: bytes) -> tuple[list[Patched], int, int]:
    """(files, where the stream ends, CRC-32 of the manifest). PackageError for a damaged one."""
    if (
        len(raw) < 10
        or raw[0] != _VERSION
        or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little")
    ):
        raise PackageError("its index is damaged")
    raw, crc = raw[:-4], int.from_bytes(raw[1:5], "little")
    at, last = 5, 0

    def take() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(raw) or shift > 28:
                raise PackageError("its index is damaged")
            byte = raw[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    files = []
    for _ in range(take()):
        one = Patched()
        for _ in range(take()):
            name = raw[at : at + BASE]
            at += BASE
            last += take()
            one.patches.append((name, last))
        last += take()
        one.at = last
        files.append(one)
    end = last + take()
    if at != len(raw):
        raise PackageError("its index is damaged")
    return files, end, crc


def records(content: bytes, header: int) -> list[tuple[range, bytes]]:
    """Where the comments of a global header lie in a tar archive, and what they say.

    Empty for a header of another type. Raises PackageError for a damaged one.
    """
    at = header + tarfile.BLOCKSIZE
    entry = tarfile.TarInfo.frombuf(content[header:at], "utf-8", "replace")
    if entry.type != tarfile.XGLTYPE:
        return []
    stop = at + entry.size
    found = []
    while at < stop:
        said, _, _ = content[at : min(at + 8, stop)].partition(b" ")
        length = int(said) if said.isdigit() else 0
        key, equals, value = content[at : at + length].partition(b"=")
        if not equals or at + length > stop or value[-1:] != b"\n":
            raise PackageError("a global header is damaged")
        if key[len(said) :] == b" comment":
            found.append((range(at, at + length), value[:-1]))
        at += length
    return found
