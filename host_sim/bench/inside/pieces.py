"""Memory in pieces, as after weeks of an application."""

import gc


def cut(pieces, whole=0):
    """Cut free memory, but for a last part of `whole` bytes, into pieces of equal size.

    Returns what holds them apart.
    """
    gc.collect()
    # A little less: what is free is in pieces already.
    size = (gc.mem_free() - whole) // pieces * 7 // 8
    spare, pins = [None] * pieces, [None] * pieces
    for n in range(pieces):
        spare[n] = bytearray(size)
        pins[n] = bytearray(32)
    for n in range(pieces):
        spare[n] = None
    gc.collect()
    return pins
