"""Tar bytes from whatever the platform stores: plain tar, gzip, zlib or microfreezer's format.

The content decides, not the request's `t`. Only in RAM until it has; what unpacks is imported when
it is needed.
"""

from binascii import crc32

from micropython import const

from ..errors import Refused
from ..tarfile_lite import bad, check_sum
from .ahead import ReadAhead

_GZIP_HEADER_LIMIT = const(1024)


def open_archive(source, restart=None):
    """Find out what source holds and return a reader of its tar bytes.

    source: an object with `readinto(buffer, n)`; restart: where it begins in the middle, what
    Gzip() says, or () for a plain tar. The result has `readinto(buffer, n)`, which gives 0 only
    after every check sum and length has been verified and the source is at its end. Its `ahead()`
    is how many bytes of the source lie behind the place where another reader could begin to give
    what comes next; less than 0 where none could. `sum` and `length` are for that.
    Raises Refused on damaged or unknown content, MemoryError with the size of the window (bytes)
    when that does not fit in memory.
    """
    ahead = ReadAhead(source)
    if restart:
        from .inflate import Gzip

        return Gzip(ahead, restart)
    if restart is not None:
        return ahead
    head = ahead.peek(512)
    # A tar header is asked first: a file name may begin with the bytes of a zlib header.
    if len(head) == 512 and (_is_tar(head) or not any(head)):
        return ahead
    if len(head) >= 10 and head[0] == 0x1F and head[1] == 0x8B:
        if head[2] == 8 and not any(head[3:8]) and _is_zlib(head[8], head[9]):
            from .zlib import Zlib

            ahead.take(8)
            return Zlib(ahead, True)
        from .inflate import Gzip

        return Gzip(ahead)
    if len(head) >= 2 and _is_zlib(head[0], head[1]):
        from .zlib import Zlib

        return Zlib(ahead, False)
    # Where the server did not say that it has as many bytes as the package, it may have sent a
    # page that tells of repairs, and that may pass.
    if getattr(source, "length", 0) is None:
        raise Refused("can not download", "neither tar nor a known compression")
    raise bad("neither tar nor a known compression")


def _is_tar(block):
    try:
        check_sum(block)
    except Refused:
        return False
    return True


def _is_zlib(first, second):
    return first & 15 == 8 and first >> 4 < 8 and (first << 8 | second) % 31 == 0


def read_gzip_header(ahead):
    """Read past the header of a gzip member (RFC 1952).

    Returns (bits of its window, whether it has restart points). Raises Refused.
    """
    crc = 0

    def take(n):
        nonlocal crc
        piece = ahead.take(n)
        crc = crc32(piece, crc)
        return piece

    head = take(8)
    take(2)  # XFL and OS say nothing that matters here
    flags = head[3]
    if head[0] != 0x1F or head[1] != 0x8B or head[2] != 8 or flags & 0xE0:
        raise bad("unknown gzip method or flags")
    bits, restarts = 15, 0
    if flags & 4:  # FEXTRA
        size = take(2)
        size = size[0] | size[1] << 8
        if size in (5, 6):
            # Our packager's word for how far back it looked, and where one may begin
            # (docs/signing.md). Too small a window makes DeflateIO fail, not err.
            field = take(size)
            said = field[:2] == b"OW" and field[2] == size - 4 and not field[3]
            if said and 9 <= field[4] <= 15:
                bits = field[4]
                restarts = size > 5 and field[5] & 1
            size = 0
        for _ in range(size):
            take(1)
    for flag in (8, 16):  # FNAME, FCOMMENT
        if flags & flag:
            left = _GZIP_HEADER_LIMIT
            while take(1)[0]:
                left -= 1
                if not left:
                    raise bad("endless name in the gzip header")
    stated = crc & 0xFFFF
    if flags & 2 and int.from_bytes(take(2), "little") != stated:  # FHCRC
        raise bad("CRC of the gzip header differs")
    return bits, restarts
