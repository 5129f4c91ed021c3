"""How much flash is free, and how much of it a package may take; and whether RAM will do."""

import gc
import os
import sys

from micropython import const

from .errors import Refused

_BLOCK = const(4096)
# Blocks that must stay free: the journal's and the folders' own growth, and what renaming needs to
# rewrite folders; an install that began must never find flash full.
_RESERVE = const(12)
# Where so many are free at the end by our own count, it is not asked how many others have used.
_PLENTY = const(128)
_FOLDER = const(2)
# What the install adds to folders by moving entries there: a block for so many bytes of them. A
# staged member is called `7`; it takes the space for its own name only when it gets it.
_GROWTH = const(768)
_INLINE = const(128)
_ENTRY = const(40)
_ON_TRIAL = const(4608)


def free_blocks(uncounted=0):
    """Free blocks of flash, of 4096 bytes, and so many that littlefs takes for used."""
    info = os.statvfs("/")
    free = info[3]
    if free > info[2]:
        # A full littlefs may count more used blocks than there are, and wraps round below zero.
        free -= 1 << 32
    return max(0, (free + uncounted) * info[0] // _BLOCK)


def enough_for(size):
    """True when `size` bytes, an archive's, are free. What it holds is counted as it arrives."""
    return (free_blocks() - _RESERVE) * _BLOCK >= size


def is_full():
    """True when what staging keeps in reserve is not free."""
    return free_blocks() < _RESERVE


def no_room(piece, need):
    """Why RAM is too small for an update, as str; None where it is not.

    piece, need: bytes that the last one took in one piece, and in all.
    """
    gc.collect()
    # What a boot on trial has in RAM, and others have not: names, the deadline, twice as much
    # where words have 64 bits.
    free = gc.mem_free() + (_ON_TRIAL << (sys.maxsize > 1 << 31))
    if free < need:
        return "out of memory: %d bytes are free, %d needed" % (free, need)
    try:
        bytearray(piece)
    except MemoryError:
        return "out of memory: no piece of %d bytes" % piece


class Space:
    """Free blocks while a package is staged: less what is written, and what the install will take.

    All but count() raise Refused where the reserve would be eaten into.
    """

    def __init__(self):
        self.free = 0
        self._promised = 0  # blocks that only the install will use
        self._growth = 0
        self._folders = 0
        self.count()

    def count(self):
        """Ask the filesystem anew. It walks all of flash for that."""
        # It counts the blocks of a folder twice.
        self.free = free_blocks(_FOLDER * self._folders) - self._promised

    def check(self):
        """See to it that the reserve is there, whatever else has been written meanwhile."""
        if self.free < _PLENTY:
            self.count()
        self.take(0)

    def take(self, blocks):
        """Count blocks as used."""
        if self.free - blocks < _RESERVE:
            # The running count is pessimistic (littlefs keeps tiny files inside their folder);
            # asking takes long, so only when it matters.
            self.count()
            if self.free - blocks < _RESERVE:
                raise Refused("not enough space", "%d blocks are free" % max(0, self.free))
        self.free -= blocks

    def file(self, size):
        """A file of size bytes will be written."""
        # littlefs keeps some pointers in each block; one more for the journal and the folders.
        self.take(size // (_BLOCK - 16) + 1)

    def folder(self):
        """A folder will be made, in which members wait."""
        self.take(_FOLDER)
        self._folders += 1

    def promise_entry(self, path, size):
        """The install will add an entry of path's name, of a file of size bytes, to its folder."""
        self._growth += len(path.encode()) - path.rfind("/") + min(size, _INLINE) + _ENTRY
        blocks = self._growth // _GROWTH
        self._growth %= _GROWTH
        self._promise(blocks)

    def _promise(self, blocks):
        self.take(blocks)
        self._promised += blocks
