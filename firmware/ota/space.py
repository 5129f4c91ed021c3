"""How much flash is free."""

import os

from micropython import const

BLOCK = const(4096)
# Blocks that must stay free: the journal's and the folders' own growth, and what renaming needs to
# rewrite folders; an install that began must never find flash full.
RESERVE = const(12)


def free_blocks():
    """Free blocks of flash, of 4096 bytes."""
    info = os.statvfs("/")
    # A full littlefs may count more used blocks than there are, and wrap round below zero.
    return info[3] * info[0] // BLOCK if 0 < info[3] <= info[2] else 0


def enough_for(size):
    """True when `size` bytes, an archive's, are free. What it holds is counted as it arrives."""
    return (free_blocks() - RESERVE) * BLOCK >= size
