# ruff: noqa: UP031 - MicroPython, as on the node
"""Archives: mutated headers, sequences of them, whole streams, and compressed ones."""

from chance import mangle, overwrite, resize
from ota.download import Body
from ota.errors import Refused
from ota.inflate import open_archive
from ota.tarfile_lite import TarReader
from rules import Source, Violation, vetted

_BLOCK = 512
_buffer = bytearray(600)
_TYPES = b"0\x0075xgLK0x0xL0123456SNVMDXA"
# Start and length of the fields of a header: name, mode, uid, gid, size, mtime, check sum, type,
# link name, magic, user, group, device numbers, prefix.
_FIELDS = (
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (148, 8),
    (156, 1),
    (157, 100),
    (257, 8),
    (265, 32),
    (297, 32),
    (329, 16),
    (345, 155),
)


# -- mutation ------------------------------------------------------------------------------------


def put(data, at, length, text):
    """Text into a field of a header, cut to its length or filled up with NUL."""
    text = text[:length]
    data[at : at + length] = text + bytes(length - len(text))


def repair(data, at, signed=False):
    """A right check sum for the header at data[at:]."""
    data[at + 148 : at + 156] = b"        "
    block = data[at : at + _BLOCK]
    total = sum(block)
    if signed:
        total -= 256 * sum(b >> 7 for b in block)
    put(data, at + 148, 8, b"%06o\0 " % max(total, 0))


def mutate_header(data, at, chance, corpus):
    """One to three changes of the header at data[at:], which mostly gets its check sum back."""
    for _ in range(1 + chance.below(3)):
        kind = chance.below(9)
        if kind < 2:
            put(data, at, 100, _name(chance, corpus))
        elif kind == 2:
            put(data, at + 124, 12, chance.pick(corpus["number"]))
        elif kind == 3:
            data[at + 156] = chance.pick(_TYPES)
        elif kind == 4:
            put(data, at + 345, 155, _name(chance, corpus))
        elif kind == 5:
            put(data, at + 257, 8, chance.pick(corpus["magic"]))
        elif kind == 6:
            start, length = chance.pick(_FIELDS)
            put(data, at + start, length, chance.pick(corpus["number"]))
        else:
            start, length = chance.pick(_FIELDS)
            overwrite(data, chance, at + start, at + start + length)
    kind = chance.below(24)
    if kind == 0:
        return
    repair(data, at, kind == 1)
    if kind == 2:
        put(data, at + 148, 8, chance.pick(corpus["number"]))


def extension(chance, corpus):
    """A PAX or GNU extended header with its content, mostly well formed."""
    kind = chance.pick(b"xxxgLK")
    if kind in b"LK":
        content = _name(chance, corpus) + b"\0" * chance.below(3)
    else:
        content = b""
        for _ in range(1 + chance.below(3)):
            content += _record(chance, corpus)
        if chance.one_in(6):
            content = bytearray(content)
            overwrite(content, chance, 0, len(content))
    data = bytearray(corpus["extension"][0])
    put(data, 124, 12, b"%011o\0" % (len(content) + (chance.one_in(16) and chance.below(5) - 2)))
    data[156] = kind
    repair(data, 0)
    return data + content + bytes(-len(content) % _BLOCK)


def _record(chance, corpus):
    key = chance.pick(corpus["key"])
    value = chance.pick(corpus["number"]) if key == b"size" else _name(chance, corpus)
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    if chance.one_in(8):
        length += chance.pick((-3, -2, -1, 1, 2, 9, 490, 1 << 31))
    return (b"0" * (chance.one_in(16) and chance.below(12))) + b"%d" % length + rest


def _name(chance, corpus):
    name = chance.pick(corpus["name"])
    while chance.one_in(3):
        name += chance.pick((b"/", b"", b"./", b"\0")) + chance.pick(corpus["name"])
    return name[:5000]


# -- cases ---------------------------------------------------------------------------------------


def header_case(chance, corpus):
    """A member of the corpus with its header mutated, and sometimes its content."""
    data = bytearray(chance.pick(corpus["item"]))
    mutate_header(data, 0, chance, corpus)
    if len(data) > _BLOCK and chance.one_in(3):
        overwrite(data, chance, _BLOCK, min(len(data), _BLOCK + 64))
    if chance.one_in(4):
        data += chance.pick(corpus["item"])
    return data + bytes(_BLOCK * chance.pick((0, 1, 2, 2, 2, 3)))


def sequence_case(chance, corpus):
    """Up to six headers, known, mutated and made up, with their contents."""
    data = bytearray()
    for _ in range(1 + chance.below(6)):
        kind = chance.below(8)
        at = len(data)
        if kind < 3:
            data += extension(chance, corpus)
        else:
            data += chance.pick(corpus["item"])
        if kind == 2 or kind == 7:
            mutate_header(data, at, chance, corpus)
        elif kind == 6 and chance.one_in(4):
            data += bytes(_BLOCK)
    data += bytes(_BLOCK * chance.pick((0, 1, 2, 2, 2, 2, 5)))
    if chance.one_in(12):
        resize(data, chance, corpus["number"])
    return data


def stream_case(chance, corpus):
    """A whole archive with some of its headers, and sometimes bytes anywhere, changed."""
    data = bytearray(chance.pick(corpus["item"]))
    for _ in range(1 + chance.below(3)):
        kind = chance.below(8)
        at = chance.below(len(data) // _BLOCK) * _BLOCK
        if kind < 4:
            while at and data[at + 257 : at + 262] != b"ustar":
                at -= _BLOCK
            mutate_header(data, at, chance, corpus)
        elif kind == 4:
            data[at : at + _BLOCK] = b""
        elif kind == 5:
            data[at:at] = bytes(data[at : at + _BLOCK])
        elif kind == 6:
            data[at:at] = extension(chance, corpus)
        else:
            mangle(data, chance, corpus["number"])
        if len(data) < _BLOCK:
            break
    return data


def compressed_case(chance, corpus):
    """A compressed archive with bytes of it, mostly of the deflate data, changed."""
    data = bytearray(chance.pick(corpus["item"]))
    kind = chance.below(8)
    if kind == 0:
        overwrite(data, chance, 0, 20)
    elif kind == 1:
        overwrite(data, chance, len(data) - 12, len(data))
    elif kind == 2:
        data += chance.pick(corpus["item"])
    if kind:
        for _ in range(1 + chance.below(3)):
            overwrite(data, chance, 10, len(data))
    if chance.one_in(6):
        mangle(data, chance, corpus["item"])
    return data


# -- reading -------------------------------------------------------------------------------------


def read_headers(data, chance):
    """Walk through the archive with the reader alone; the content has to be the data's own."""
    source = Source(data, chance, chance.pick((4096, 4096, 512, 100)))
    # A name that is refused would hide what comes after it.
    strict = chance.one_in(2)
    return _walk(TarReader(source), chance, strict, data, source)


def read_archive(data, chance):
    """Do with the archive what the agent does with a download."""
    size = len(data)
    if chance.one_in(8):
        size = max(1, size + chance.below(9) - 4)
    source = Source(data, chance, chance.pick((1, 13, 1024, 4096, 4096)) if size < 3000 else 1400)
    body = Body(source, size, _ignore)
    archive = open_archive(body)
    reader = TarReader(archive)
    outcome = _walk(reader, chance, True, None, None)
    # The agent does not look further either, so the check sums must have been reached by now.
    if archive.readinto(_buffer, 256):
        raise Violation("the reader stops before the archive's end")
    body.end()
    if source.at != size or size != len(data):
        raise Violation("%d bytes announced, %d read, %d sent" % (size, source.at, len(data)))
    if reader.name is None:
        return "empty"
    return outcome


def _ignore(count):
    pass


def _walk(reader, chance, strict, data, source):
    members = 0
    while reader.next():
        members += 1
        if type(reader.name) is not str or type(reader.size) is not int or reader.size < 0:
            raise Violation("name %r, size %r" % (reader.name, reader.size))
        if reader.is_folder and reader.size:
            raise Violation("a folder of %d bytes" % reader.size)
        try:
            vetted(reader.name)
        except Refused:
            if strict:
                raise
        _read_content(reader, chance, data, source)
    return "read" if members else "no member"


def _read_content(reader, chance, data, source):
    how = chance.below(4)
    if how == 0:
        return
    most = 600 if chance.one_in(2) else 1 + chance.below(600)
    total = 0
    start = source.at if source else 0
    while True:
        n = reader.readinto(_buffer, most)
        if type(n) is not int or n < 0 or n > most:
            raise Violation("%r bytes of %d" % (n, most))
        if not n:
            break
        if data and _buffer[:n] != data[start + total : start + total + n]:
            raise Violation("content that does not stand there, of %r" % reader.name)
        total += n
        if total > reader.size:
            raise Violation("content beyond the announced size, of %r" % reader.name)
        if how == 1 and chance.one_in(3):
            return
    if total != reader.size:
        raise Violation("content shorter than announced, of %r" % reader.name)
