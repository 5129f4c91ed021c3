# ruff: noqa: B904, UP031 - MicroPython, as on the node
"""Patches, indexes and the records that hold them, made up and mutated, and what becomes of them.

`reference` is what the packager's own reading of them has been made into for this interpreter.
"""

import binascii
import io

import ota.package.plan as plan
import reference
from archives import put, repair
from chance import overwrite, resize
from ota.errors import Refused
from ota.package.plan import Plan
from ota.package.wanted import Patched
from ota.tarfile_lite import TarReader
from rules import Source, Violation

_BASE = 6
_MANIFEST = 0x1234567
_SIZE = 50_000  # of a package
_HAS = b"abcdef"  # what the file begins with that this node has
_buffer = bytearray(600)
# Numbers at the borders of what one byte, or five, can say.
_ODD = (0, 1, 2, 127, 128, 255, 16383, 16384, 1 << 28, (1 << 32) - 1, 1 << 32, 1 << 35, 1 << 40)


def number(value):
    """Seven bits to a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return out


# -- patches -------------------------------------------------------------------------------------


def patch_case(chance, corpus):
    """Size of the new file, size of the old one, this, and a patch, mostly changed."""
    old = chance.pick(corpus["item"])[: chance.below(chance.pick((4, 40, 600)))]
    patch = bytearray()
    size = copied = 0
    for _ in range(chance.below(chance.pick((3, 8, 20)))):
        if old and chance.below(3):
            length = 1 + chance.below(len(old))
            at = chance.below(len(old) - length + 1)
            far = at - copied
            copied = at + length
            if chance.one_in(60):
                far = chance.pick(_ODD)
            patch += number(length << 1) + number(far << 1 if far >= 0 else (-far << 1) - 1)
        else:
            length = 1 + chance.below(chance.pick((3, 20, 200)))
            patch += number(length << 1 | 1) + chance.pick(corpus["item"])[:length]
        size += length
    kind = chance.below(8)
    if kind == 0:
        size = max(0, size + chance.below(5) - 2)
    elif kind == 1:
        at = chance.below(len(patch) + 1)
        patch[at:at] = number(chance.pick(_ODD))
    elif kind < 5 and patch:
        for _ in range(1 + chance.below(3)):
            overwrite(patch, chance, 0, len(patch))
    elif kind == 5:
        resize(patch, chance, corpus["item"])
    return size.to_bytes(3, "little") + len(old).to_bytes(2, "little") + old + patch


def read_patch(data, chance):
    """The same bytes as the packager makes of it, or both refuse it."""
    size, at = int.from_bytes(data[:3], "little"), 5 + int.from_bytes(data[3:5], "little")
    old, patch = data[5:at], data[at:]
    try:
        expected = reference.apply(old, patch, size)
    except reference.PackageError:
        expected = None
    # What comes behind it is another's.
    source = Source(patch + b"\1" * 9, chance, chance.pick((1, 7, 600)))
    made = Patched(source, len(patch), io.BytesIO(old), "/x", size)
    got = bytearray()
    try:
        while True:
            n = made.readinto(_buffer, 1 + chance.below(600))
            if not n:
                break
            got += memoryview(_buffer)[:n]
            if len(got) > size:
                raise Violation("more than the file")
    except Refused:
        if expected is not None:
            raise Violation("the packager makes %d bytes of it" % size)
        raise
    finally:
        if source.at > len(patch):
            raise Violation("read behind the patch")
    if expected is None or got != expected:
        raise Violation("the packager makes something else of it")
    return "read"


# -- indexes -------------------------------------------------------------------------------------


def index_case(chance, corpus):
    """How many files the manifest lists, which of them are there, and an index, mostly changed."""
    count = 1 + chance.below(chance.pick((2, 6, 30)))
    listed = count
    has = chance.below(1 << 32)
    out = bytearray(b"\1") + _MANIFEST.to_bytes(4, "little")
    kind = chance.below(10)
    if kind == 0:
        count = max(0, count + chance.below(3) - 1)
    out += number(count)
    for _ in range(count):
        patches = chance.below(chance.pick((1, 2, 5)))
        out += number(patches)
        for _ in range(patches):
            out += _HAS if chance.one_in(3) else chance.pick(corpus["item"])[:_BASE]
            out += number(_step(chance, kind))
        out += number(_step(chance, kind))
    out += number(_step(chance, kind))
    if kind == 1:
        at = 5 + chance.below(len(out) - 5)
        out[at:at] = number(chance.pick(_ODD))
    elif kind < 4:
        for _ in range(1 + chance.below(3)):
            overwrite(out, chance, 5, len(out))
    elif kind == 4:
        resize(out, chance, corpus["item"])
    out += binascii.crc32(out).to_bytes(4, "little")
    if kind == 5:
        overwrite(out, chance, 0, len(out))
    return bytes((listed,)) + has.to_bytes(4, "little") + out


def _step(chance, kind):
    if kind == 6 and chance.one_in(20):
        return chance.pick(_ODD)
    return chance.below(2) if kind == 7 else 1 + chance.below(700)


class _Listed:
    """Stands in for a manifest."""

    left = 0

    def __init__(self, path):
        self._left = self.left

    def next_file(self):
        self._left -= 1
        return (str(self.left - self._left - 1), 1, b"") if self._left >= 0 else None

    def close(self):
        pass


class _Os:
    """Every file has the size that its successor has."""

    def stat(self, path):
        return (0,) * 6 + (1,)


def _ignore(*_):
    pass


def read_index(data, chance):
    """If the agent takes it so does the packager, and they want the same parts of the package."""
    listed, has, raw = data[0], int.from_bytes(data[1:5], "little"), data[5:]
    _Listed.left = listed
    plan.Lines, plan.os = _Listed, _Os()
    plan.open = lambda path, how: io.BytesIO(raw)
    # Of every four files one is missing, one is there, and two may be patched.
    kinds = [(has >> n % 16 * 2) & 3 for n in range(listed)]
    plan.exists = lambda path: 0x8000 if kinds[int(path)] else 0

    def there(path, stated, buffer, feed):
        return path, b"" if kinds[int(path)] == 1 else _HAS + bytes(26), 0

    plan.digest = lambda *_: (b"", _MANIFEST)
    plan.there = there
    jobs = list(Plan(_buffer, _ignore, 256).made(_SIZE, 0))
    try:
        files, end, of = reference.decode(raw)
    except (reference.PackageError, IndexError):
        raise Violation("the packager refuses it")
    if of != _MANIFEST or len(files) != listed:
        raise Violation("the index of another package")
    places = [end]
    for each in files:
        places += [at for _, at in each.patches] + [each.at]
    borders = sorted(set(places))
    if borders[-1] > _SIZE:
        raise Violation("outside the package")
    wanted_by = []
    for n in range(listed):
        if kinds[n] == 1:
            continue
        at, patched = files[n].at, False
        for name, place in files[n].patches if kinds[n] else ():
            if bytes(name) == _HAS:
                at, patched = place, True
                break
        end = [border for border in borders if border > at]
        # Where another begins at the same place, more may come.
        if places.count(at) > 1:
            end = [border for border in end if jobs[len(wanted_by) + 2 :][:1] == [border]]
        wanted_by += (n << 1 | patched, at)
        wanted_by += end[:1]
        wanted_by.append(int.from_bytes(_HAS[:4], "little") if patched else 0)
    if jobs != wanted_by:
        raise Violation("%r, and the packager %r" % (jobs, wanted_by))
    return "read" if jobs else "nothing"


# -- records -------------------------------------------------------------------------------------


def record_case(chance, corpus):
    """A header with a record in it, mostly changed, and a block behind."""
    content = chance.pick(corpus["item"])[: chance.below(chance.pick((9, 99, 600)))]
    length = len(content) + len(b" comment=\n")
    length += len(b"%d" % (length + len(b"%d" % length)))
    kind = chance.below(8)
    if kind == 0:
        length = max(0, length + chance.pick((-9, -1, 1, 600, 5000, 1 << 30)))
    record = bytearray(b"%d comment=%s\n" % (length, content))
    if kind < 5 and kind:
        for _ in range(1 + chance.below(2)):
            overwrite(record, chance, 0, min(len(record), 16 if kind < 4 else 600))
    elif kind == 5:
        resize(record, chance, corpus["item"])
    size = len(record)
    if chance.one_in(8):
        size = max(0, size + chance.pick((-9, -1, 1, 600)))
    block = bytearray(corpus["extension"][0])
    put(block, 124, 12, b"%011o\0" % size)
    block[156] = 103 if chance.below(20) else 120  # "g", or "x"
    repair(block, 0)
    return block + record + bytes(-len(record) % 512) + bytes(512 * chance.below(3))


class _File:
    """What is written to flash."""

    def __init__(self):
        self.content = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, piece):
        if not len(piece):
            raise Violation("writes nothing")
        self.content += bytes(piece)


def read_record(data, chance):
    """What comes of it stands there, and is as long as it says."""
    file = _File()
    plan.open = lambda path, how: file
    tar = TarReader(Source(data, chance, chance.pick((1, 100, 4096))))
    plan.receive(tar)
    size = int(bytes(data[124:136]).rstrip(b"\0 "), 8)
    text, _, rest = bytes(data[512 : 512 + size]).partition(b" comment=")
    said = int(text) - len(text) - len(b" comment=\n")
    if said != len(file.content) or rest[:said] != file.content or said > 4096:
        raise Violation("%d bytes of %d" % (len(file.content), said))
    return "read"
