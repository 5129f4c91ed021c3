"""Memory in pieces, as after weeks of an application."""

import gc


def cut(pieces, whole=0):
    """Cut free memory, but for a last part of `whole` bytes, into pieces of equal size.

    Returns what holds them apart.
    """
    gc.collect()
    size = (gc.mem_free() - whole) // pieces
    spare, pins = [None] * pieces, [None] * pieces
    n = 0
    while n < pieces:
        try:
            spare[n] = bytearray(size)
            pins[n] = bytearray(32)
            n += 1
        except MemoryError:  # what is free is in pieces already
            size = size * 31 // 32
            spare[:], pins[:], n = [None] * pieces, [None] * pieces, 0
            gc.collect()
    spare = None
    gc.collect()
    return pins
