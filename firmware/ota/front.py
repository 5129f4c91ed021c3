"""The first bytes of a package, which tell whether it has an index. Only loaded for these."""

from micropython import const

# The gzip header counts the bytes up to the end of an index in these.
_FRONT = const(256)


def front(download):
    """Ask for the part of a package up to the end of its index, and return where that is.

    Where there is none 0, and all of it is asked for. Nothing large is in RAM yet: what asks once
    more would not fit beside a window.
    """
    head = b""
    piece = bytearray(download.stop)
    size = download.request.size
    try:
        while len(head) < len(piece):
            head += piece[: download.readinto(piece, len(piece) - len(head))]
        end = 0
        # Without a strong entity tag nobody can tell whether two ranges belong together.
        download.etag = etag = download.etag or None
        # docs/signing.md, "The gzip header"
        if (
            download.etag
            and head.startswith(b"\x1f\x8b\x08\x04")
            and head[10:16] == b"\6\0OW\2\0"
            and head[17] & 1
        ):
            end = (head[17] >> 1) * _FRONT
        download.done = 0
        download.stop = min(end or size, size)
        download.fetch()
        if download.etag != etag:  # all of another package, perhaps
            download.stop, end = size, 0
        return end
    except BaseException:
        download.close()
        raise
