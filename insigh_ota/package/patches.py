"""A patch makes a file from the one that a node has in its place: copied ranges and new bytes.

It is a row of steps. Each begins with a number, seven bits to a byte, lowest first, the top bit
set in all bytes but the last. Its lowest bit tells the kind, the others a length in bytes:

    0   copy so many bytes of the old file; a second number tells from where, counted from the end
        of the last copy: twice the distance forward, or twice the distance back less one
    1   take so many bytes that follow

Nothing marks the end: the manifest says how long the new file is.
"""

from __future__ import annotations

from collections.abc import Iterator

from insigh_ota.package.errors import PackageError

#: Where so many bytes agree, a copy may begin.
_SEED = 8
#: At most so many places of the old file are looked at for one seed: zeros are everywhere.
_MOST_PLACES = 24
#: A copy from somewhere else than where the last one ended costs a few bytes more.
_FAR = 3
_SHORTEST = 4


def diff(old: bytes, new: bytes) -> bytes:
    """The patch that makes new from old."""
    seeds: dict[bytes, list[int]] = {}
    for at in range(len(old) - _SEED + 1):
        places = seeds.setdefault(old[at : at + _SEED], [])
        if len(places) < _MOST_PLACES:
            places.append(at)
    out, fresh = bytearray(), bytearray()
    done = copied = 0
    while done < len(new):
        best, source = 0, 0
        # Where the last copy ended, and there again if the new bytes stand for as many old ones.
        for near in dict.fromkeys((copied + len(fresh), copied)):
            length = _agree(old, near, new, done)
            if length >= _SHORTEST and length + _FAR > best:
                best, source = length + _FAR, near
        for place in seeds.get(new[done : done + _SEED], ()):
            length = _agree(old, place, new, done)
            if length > best:
                best, source = length, place
        if not best:
            fresh.append(new[done])
            done += 1
            continue
        _take(out, fresh)
        length = _agree(old, source, new, done)
        far = source - copied
        out += number(length << 1) + number(far << 1 if far >= 0 else (-far << 1) - 1)
        copied, done = source + length, done + length
    _take(out, fresh)
    return bytes(out)


def apply(old: bytes, patch: bytes, size: int) -> bytes:
    """What a node makes of it. PackageError: it does not make so many bytes from these."""
    out = bytearray()
    for begin, length, fresh in _steps(patch, size):
        piece = fresh if begin is None else old[begin : begin + length]
        if len(piece) != length:
            raise PackageError("a patch takes what is not there")
        out += piece
    return bytes(out)


def check(patch: bytes, size: int) -> None:
    """Raise PackageError unless it makes so many bytes of some file."""
    for _ in _steps(patch, size):
        pass


def _steps(patch: bytes, size: int) -> Iterator[tuple[int | None, int, bytes]]:
    """(where in the old file, or None; how many bytes; these bytes, where they are new)"""
    at = made = copied = 0

    def take() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(patch) or shift > 28:
                raise PackageError("a patch is damaged")
            byte = patch[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while made < size:
        step = take()
        length = step >> 1
        if not 0 < length <= size - made:
            raise PackageError("a patch makes more than the file, or nothing")
        made += length
        if step & 1:
            fresh = patch[at : at + length]
            if len(fresh) != length:
                raise PackageError("a patch ends early")
            at += length
            yield None, length, fresh
            continue
        far = take()
        begin = copied + (-((far + 1) >> 1) if far & 1 else far >> 1)
        if begin < 0:
            raise PackageError("a patch takes what is not there")
        copied = begin + length
        yield begin, length, b""
    if at != len(patch):
        raise PackageError("a patch goes on behind its file")


def _agree(old: bytes, at: int, new: bytes, begin: int) -> int:
    """How many bytes agree from there on."""
    most = min(len(old) - at, len(new) - begin)
    length = 0
    while (
        length + 64 <= most
        and old[at + length : at + length + 64] == (new[begin + length : begin + length + 64])
    ):
        length += 64
    while length < most and old[at + length] == new[begin + length]:
        length += 1
    return length


def _take(out: bytearray, fresh: bytearray) -> None:
    if fresh:
        out += number(len(fresh) << 1 | 1) + fresh
        fresh.clear()


def number(value: int) -> bytes:
    """Seven bits to a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
