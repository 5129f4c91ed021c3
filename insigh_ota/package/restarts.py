"""Restart points: places of a .tar.gz where a node that was cut off can begin to inflate.

A full flush of zlib empties the window and ends in `00 00 FF FF`. What follows needs nothing of
what came before: a raw inflate can begin there, and whoever reads the whole file sees no
difference. A node sees no more than that mark. So nothing may look like a restart point that is
none, be it by accident (docs/signing.md says what is promised).
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise

from insigh_ota.package import archive
from insigh_ota.package.errors import PackageError

#: The least distance of two points, in bytes of the package, is 2, 3, 4, 6, 8, 12, 16, … KB: the
#: first at which all of them together cost little enough.
_LEAST = 2 << 10, 3 << 10
_MOST = 1.05  # times the size without points
#: Inside a file a node looks where its filesystem has filled a block of the file: a note there
#: costs no copy of the block. Not where so little or less is left of the file: in front of the
#: next member is the better place.
_BLOCK, _SHORT = 4096, 2048
_POINT = b"\0\0\xff\xff"
_MARK = re.compile(_POINT)
#: How many bytes further on a mark is still seen from a place. Between the two of a flush are the
#: end of a block (at most 15 bits), the head of the empty one (3), and what fills up the byte.
_SIGHT = 4
_TRIES = 10

#: Where a point may stand in the tar archive, and whether it is a good place.
Places = dict[int, bool]


@dataclass(frozen=True)
class Point:
    """Inflated from byte `at` of the package on, comes the tar archive from `offset` on."""

    at: int
    offset: int


def compress(content: bytes, window: int, *, signed: bool = False) -> bytes:
    """A tar archive as gzip, with restart points if they cost little enough.

    With `signed` the first of them stands behind the first member, the manifest.
    """
    without = archive.compress(content, window)
    places = _places(content)
    first = [member.offset for member in _members(content)[1:2]] if signed else []
    for least in (size << doubled for doubled in count() for size in _LEAST):
        if least >= len(without):
            break
        made = _with_points(content, window, places, least, set(first))
        if made and len(made) <= len(without) * _MOST:
            return made
    return without


def compress_with_index(
    content: bytes, window: int, must: set[int], stored: range
) -> tuple[bytes, list[Point]]:
    """As compress(), with points at `must`, and its points. `stored` takes as many bytes in it.

    Raises PackageError where the content looks like a point that is none, and nothing helps.
    """
    places = dict(sorted((_places(content) | dict.fromkeys(must, False)).items()))
    # An index names no place inside a file: to a node that goes on behind a large one, the points
    # in it are none.
    must = must | _behind_large(content)
    best = _with_points(content, window, places, len(content), must, stored)
    if best is None:
        raise PackageError("the content looks like restart points: use no --since")
    most = len(best) * _MOST
    for least in (size << doubled for doubled in count() for size in _LEAST):
        if least >= len(best):
            break
        made = _with_points(content, window, places, least, must, stored)
        if made and len(made) <= most:
            best = made
            break
    return best, _look(best, places)[0]


def find(raw: bytes) -> list[Point]:
    """The restart points of a .tar.gz whose header promises them; each has been tried.

    Raises PackageError where a node would take for one what is none.
    """
    if not archive.promises(raw)[1]:
        return []
    points, strays = _look(raw, _places(gzip.decompress(raw)))
    if strays:
        raise PackageError(
            f"what looks like a restart point at byte {strays[0]} of the archive is none: "
            "build the package again"
        )
    return points


def points(raw: bytes, more: set[int]) -> list[Point]:
    """The points of a package, those at more places of the tar archive than usual included."""
    places = _places(gzip.decompress(raw)) | dict.fromkeys(more, False)
    return _look(raw, dict(sorted(places.items())))[0]


def members(content: bytes) -> Iterator[tuple[tarfile.TarInfo, list[int]]]:
    """Each member of a tar archive, and where each of its headers begins."""
    border = 0
    for member in _members(content):
        yield member, list(headers(content, border, member.offset_data))
        border = member.offset_data
        if member.isreg():
            border += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def distances(points: list[Point], raw: bytes) -> list[int]:
    """How far it is from one to the next in bytes of the package, beginning and end included."""
    return [b - a for a, b in pairwise([0, *(point.at for point in points), len(raw)])]


def price(raw: bytes) -> float:
    """What the points of a package add to its size, in percent."""
    window, _ = archive.promises(raw)
    return 100 * (len(raw) / len(archive.compress(gzip.decompress(raw), window)) - 1)


def _with_points(
    content: bytes,
    window: int,
    places: Places,
    least: int,
    must: set[int],
    stored: range = range(-1, -1),
) -> bytes | None:
    """The package with points so far apart, and at `must`; None where there are none."""
    for _ in range(_TRIES):
        stream, front = _flushed(content, window, places, least, must, stored)
        if stream is None:
            break
        made = archive.wrap(stream, content, window, restarts=True, front=front)
        _, strays = _look(made, places)
        if not strays:
            return made
        # What was packed looks like a mark, as a package in the package does: now it gets one.
        must = must.union(strays)
    return None


def _flushed(
    content: bytes,
    window: int,
    places: Places,
    least: int,
    must: set[int],
    stored: range = range(-1, -1),
) -> tuple[bytes | None, int]:
    """A deflate stream with points so far apart, and at `must`; None where there are none.

    And where the package has come to behind `stored`.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -window, 9)
    stream = bytearray()
    last = fed = earliest = front = 0
    for offset, good in places.items():
        if fed <= stored.start < offset:
            # A block as it is: what it says of places must not move them.
            stream += deflate.compress(content[fed : stored.start])
            stream += deflate.flush(zlib.Z_FULL_FLUSH)
            size = len(stored).to_bytes(2, "little")
            stream += b"\0" + size + bytes(255 - byte for byte in size)
            stream += content[stored.start : stored.stop]
            fed, front = stored.stop, archive.BEGIN + len(stream)
        if offset not in must and (not good or offset < earliest):
            continue
        stream += deflate.compress(content[fed:offset])
        fed = offset
        if offset not in must:
            size = len(stream) - last + len(deflate.copy().flush(zlib.Z_FULL_FLUSH))
            if size < least:
                earliest = offset + least - size  # a byte of content makes one at most
                continue
        stream += deflate.flush(zlib.Z_FULL_FLUSH)
        last, earliest = len(stream), offset + least
    stream += deflate.compress(content[fed:]) + deflate.flush()
    return (bytes(stream) if last else None), front


def _members(content: bytes) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as members:
            return members.getmembers()
    except (tarfile.TarError, UnicodeError) as error:
        raise PackageError(f"no tar archive, or a damaged one: {error}") from error


def _places(content: bytes) -> Places:
    """All places where a node looks for a mark, in their order."""
    found: Places = {}
    border = 0
    for member in _members(content):
        found[border] = border > 0
        for at in headers(content, border, member.offset_data):
            found.setdefault(at, False)
        border = member.offset_data
        if member.isreg():
            for at in _block_ends(member.size):
                found[border + at] = at > 0 and member.size - at > _SHORT
            border += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return found


def _behind_large(content: bytes) -> set[int]:
    """Where something begins behind a file in which a point may stand."""
    return {
        member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        for member in _members(content)[:-1]
        if member.isreg() and member.size > _BLOCK + _SHORT
    }


def headers(content: bytes, at: int, end: int) -> Iterator[int]:
    """Where the headers of a member begin, and those that come before."""
    while at < end:
        yield at
        header = tarfile.TarInfo.frombuf(content[at : at + tarfile.BLOCKSIZE], "utf-8", "replace")
        extended = header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE)
        at += tarfile.BLOCKSIZE
        if extended or header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            at += -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _block_ends(size: int) -> Iterator[int]:
    """0, and where a file of so many bytes fills a block of littlefs (SPEC.md, CTZ skip-lists)."""
    at = 0
    for block in count():
        if at >= size:
            break
        yield at
        # All but the first begin with pointers of four bytes: one, and one for each power of two.
        at += _BLOCK - 4 * (block & -block).bit_length()


def _look(raw: bytes, places: Places) -> tuple[list[Point], list[int]]:
    """(points, places from which what is seen only looks like one)"""
    _, begin = archive.promises(raw)
    body = raw[begin:]
    content = zlib.decompressobj(-15).decompress(body)
    ends = [mark.end() for mark in _MARK.finditer(body)]
    made = _made(body, {max(end - back, 0) for end in ends for back in (0, 4, 5 + _SIGHT)})
    offsets = list(places)
    found, strays = {}, []
    for end in ends:
        # The places that are reached in one of the _SIGHT bytes in front of the mark.
        low, high = (bisect_right(offsets, made[max(end - back, 0)]) for back in (5 + _SIGHT, 4))
        for offset in offsets[low:high]:
            if offset == made[end]:
                found[end] = offset
            else:
                strays.append(offset)
    # From the last to the first: where nothing up to the next point needs what came before this
    # one, nothing up to the end does.
    points: list[Point] = []
    behind, until = len(body), len(content)
    for end, offset in reversed(found.items()):
        try:
            holds = zlib.decompressobj(-15).decompress(body[end:behind]) == content[offset:until]
        except zlib.error:
            holds = False
        if holds:
            points.insert(0, Point(begin + end, offset))
            behind, until = end, offset
        else:
            strays.append(offset)
    return points, strays


def _made(body: bytes, places: set[int]) -> dict[int, int]:
    """How many bytes the first n bytes of a deflate stream inflate to, for each of these n."""
    inflate = zlib.decompressobj(-15)
    made, total, fed = {}, 0, 0
    for at in sorted(places):
        total += len(inflate.decompress(body[fed:at]))
        made[at], fed = total, at
    return made
