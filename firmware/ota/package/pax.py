"""Names and sizes that stand in headers of their own: PAX records, and GNU's long names.

Most packages have none, so it is only in RAM where one comes.
"""

from micropython import const

from ..tarfile_lite import bad, utf8

_BLOCK = const(512)
# Of a record: its length and its key, in most.
_START = const(128)
# A GNU header, or a record of PAX, longer than this is no name: a path has at most 1024 bytes.
_LONGEST = const(4096)


def extend(reader, kind, override, extended):
    """Read the extended header that a TarReader has come to.

    kind: its type, "x", "g", "L" or "K"; override: dict that gets `path` (str) and `size` (int) of
    the member that follows; extended: the kinds that this member has. Raises Refused.
    """
    if kind == "g":
        if extended:
            raise bad("a global header between an extended one and its member")
        reader.globals.update(_records(reader))
        override.update(reader.globals)
    elif kind == "x":
        override.update(_records(reader))
    else:
        name = _read(reader, reader.left).split(b"\0", 1)[0]
        if kind == "L":  # "K" is the target of a link, which will be refused anyway
            override["path"] = utf8(name)


def _read(reader, size):
    """size bytes of the header, or all that is left of it."""
    if size > _LONGEST:
        raise bad("extended header of %d bytes" % size)
    size = min(size, reader.left)
    if reader.ahead:
        start = reader.ahead - reader.left
        reader.left -= size
        return bytes(memoryview(reader.header)[start : start + size])
    content = bytearray(size)
    view = memoryview(content)
    n = 0
    while n < len(content):
        n += reader.readinto(view[n:], len(content) - n)
    return bytes(content)


def _records(reader):
    """The records of a PAX header that matter here: {"path": str, "size": int}.

    Others are read past: macOS has attributes of 64 KB there, more than a node can hold.
    """
    found = {}
    ahead = b""
    while True:
        ahead += _read(reader, max(_START - len(ahead), 0))
        if b"=" not in ahead:  # attributes of Linux may have names of 255 bytes
            ahead += _read(reader, _BLOCK - len(ahead))
        if not ahead:
            return found
        length = _decimal(ahead.split(b" ", 1)[0])
        key, equals, value = ahead[:length].partition(b" ")[2].partition(b"=")
        left = length - len(ahead)
        if length < 5 or not equals or left > reader.left:
            raise bad("damaged PAX header")
        matters = key in (b"path", b"size")
        while left > 0:
            ahead = _read(reader, left if matters else min(left, _BLOCK))
            length = len(ahead)
            left -= length
            if matters:
                value += ahead
        if ahead[length - 1] != 10:
            raise bad("damaged PAX header")
        ahead = ahead[length:]
        _keep(found, key, value)


def _keep(found, key, value):
    # An empty value takes back a global one: the header's own holds again.
    if key == b"path":
        if b"\0" in value:
            raise bad("damaged PAX header")
        found["path"] = utf8(value[:-1]) or None
    elif key == b"size":
        found["size"] = _decimal(value[:-1]) if value[1:] else None
    elif key.startswith(b"GNU.sparse."):
        raise bad("sparse file")


def _decimal(text):
    if not text or not text.isdigit() or len(text) > 10:
        raise bad("damaged PAX header")
    return int(text)
