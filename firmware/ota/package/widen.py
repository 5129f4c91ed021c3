"""Unpacking in larger pieces, where memory is plenty; only loaded there."""

import io

from micropython import const

# As in ahead.py.
_ENOUGH = const(20)
_LARGE_PIECE = const(256)
_LARGE_PART = const(1024)


def widen(archive):
    """Be quicker from here on, if there is memory: read and give out more at a time.

    archive: what open_archive() returns. Raises as its readinto().
    """
    # What unpacks wants more to lie ahead.
    ahead, most = (archive.source, _LARGE_PIECE) if archive.window else (archive, 0)
    stream = ahead.stream or io.BytesIO()
    at = stream.tell()
    part = _LARGE_PART
    if most:
        part *= 2  # each call of the source takes its time; of a tar they would be fetched again
    try:
        buffer = bytearray(part)
        stream.seek(most * _ENOUGH + part)
        stream.write(b"\0")  # so it becomes longer
    except MemoryError:
        return
    finally:
        stream.seek(at)
    ahead.stream, ahead.buffer, ahead.piece, ahead.form = stream, buffer, _LARGE_PIECE, b"256s"
    if most:
        ahead.fill()
