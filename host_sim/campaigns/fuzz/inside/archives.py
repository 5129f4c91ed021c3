"""Cases: mutated headers, sequences of them, whole archives, and compressed ones."""

import binascii

from chance import character, mangle, overwrite, resize

_BLOCK = 512
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
    if chance.one_in(4):
        name += character(chance)
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
    data = bytearray(chance.pick(corpus["plain"]))
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
    """A compressed archive with bytes of it changed, or a changed archive soundly compressed."""
    kind = chance.below(8)
    if kind < 2:
        data = bytearray(compress(stream_case(chance, corpus), chance))
        if kind == 0:
            return data
    else:
        data = bytearray(chance.pick(corpus["item"]))
    if kind == 1 or kind == 2:
        overwrite(data, chance, 0, min(len(data), 20))
    elif kind == 3:
        overwrite(data, chance, len(data) - 12, len(data))
    else:
        if kind == 4:
            data += chance.pick(corpus["item"])
        for _ in range(1 + chance.below(3)):
            overwrite(data, chance, 10, len(data))
    if chance.one_in(6):
        mangle(data, chance, corpus["item"])
    return data


def compress(data, chance):
    """The data in one of the formats with all sums right; nothing gets smaller, though."""
    kind = chance.below(3)
    if kind == 0:
        cut = chance.below(len(data) + 1) if chance.one_in(3) else len(data)
        return _gzip(data[:cut], chance) + (_gzip(data[cut:], chance) if data[cut:] else b"")
    first = chance.below(8) << 4 | 8  # any size of window
    a = 1
    b = 0
    for byte in data:
        a += byte
        b += a
    stream = bytes((first, 31 - (first << 8) % 31)) + _stored(data, chance)
    stream += (b % 65521 << 16 | a % 65521).to_bytes(4, "big")
    if kind == 1:
        return stream
    return b"\x1f\x8b\x08" + bytes(5) + stream + binascii.crc32(stream).to_bytes(4, "big")


def _gzip(data, chance):
    head = b"\x1f\x8b\x08\0" + bytes(6)
    sums = binascii.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return head + _stored(data, chance) + sums


def _stored(data, chance):
    """Deflate's blocks without compression, one or two."""
    cut = chance.below(len(data) + 1) if chance.one_in(2) else 0
    blocks = b""
    for final, part in ((0, data[:cut]), (1, data[cut:])):
        if final or part:
            size = len(part)
            blocks += bytes((final,)) + size.to_bytes(2, "little")
            blocks += (size ^ 0xFFFF).to_bytes(2, "little") + part
    return blocks
