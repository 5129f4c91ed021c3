"""What power leaves behind on a NOR flash: the torn states of a program, an erase, a write order.

The node logs every operation (8-byte records, see ``inside/_sim.py``). When power fails at one,
the node stops before doing it, and :func:`apply_cut` writes into the image what the chosen kind of
failure leaves of it.
"""

from __future__ import annotations

import mmap
import random
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
PROGRAM, ERASE, SYNC, FAILED = 1, 2, 3, 4

Flash = bytearray | mmap.mmap

#: What is left of the operation at which power fails. For an erase read "erased" for "written".
IN_PLACE_KINDS = {
    "none": "nothing was written",
    "first": "only the first byte",
    "half": "the first half",
    "allbut": "all but the last byte",
    "bits": "a random subset of the bits that had to change",
    "done": "everything; power failed before it was reported",
}
#: Writes since the last sync that a cache in the device lost, or wrote out of order. The order
#: within one block is always kept.
ORDER_KINDS = {
    "lost": "neither this one nor the one before it; earlier ones kept",
    "swap": "this one, but not the one before it",
    "scatter": "a random choice of this one and all others since the last sync",
}
TORN_KINDS: tuple[str, ...] = (*IN_PLACE_KINDS, *ORDER_KINDS)


@dataclass
class Operation:
    """One program or erase of the log; `data` is known only when the log keeps content."""

    kind: int
    at: int
    size: int
    data: bytes = b""  # programmed content, or what stood in an erased block


@dataclass
class Traffic:
    """What the node did to its flash."""

    ops: int = 0
    prog_bytes: int = 0
    erases: int = 0
    syncs: int = 0
    wear: Counter[int] = field(default_factory=Counter)  # erases by block

    def add(self, operations: list[Operation]) -> None:
        """Count `operations` too."""
        for operation in operations:
            if operation.kind == SYNC:
                self.syncs += 1
                continue
            self.ops += 1
            if operation.kind == PROGRAM:
                self.prog_bytes += operation.size
            elif operation.kind == ERASE:
                self.erases += 1
                self.wear[operation.at // BLOCK] += 1


def read_log(log: bytes, with_content: bool) -> Iterator[Operation]:
    """The operations of a log, in order."""
    place = 0
    while place + 8 <= len(log):
        kind, _, size, at = struct.unpack_from("<BBHI", log, place)
        place += 8
        data = b""
        if with_content and kind in (PROGRAM, ERASE):
            data = log[place : place + size]
            place += size
        yield Operation(kind, at, size, data)


def torn(old: bytes, new: bytes, kind: str, chance: random.Random) -> bytes:
    """What stands in the flash when the change from `old` to `new` was torn."""
    if kind == "bits":
        mask = chance.randbytes(len(old))
        return bytes(o ^ (m & (o ^ n)) for o, n, m in zip(old, new, mask, strict=True))
    size = len(old)
    done = {"none": 0, "first": 1, "half": size // 2, "allbut": size - 1, "done": size}[kind]
    return new[:done] + old[done:]


def _change(flash: Flash, operation: Operation, kind: str, chance: random.Random) -> None:
    span = slice(operation.at, operation.at + operation.size)
    old = bytes(flash[span])
    if operation.kind == ERASE:
        new = b"\xff" * operation.size
    else:
        new = bytes(o & n for o, n in zip(old, operation.data, strict=True))
    flash[span] = torn(old, new, kind, chance)


def cut_state(
    flash: Flash, last: Operation, before: list[Operation], kind: str, chance: random.Random
) -> None:
    """Turn `flash` into what a power failure of `kind` at operation `last` leaves.

    `before` are the operations already done since the boot, with their content for ORDER_KINDS.
    """
    if kind in IN_PLACE_KINDS:
        _change(flash, last, kind, chance)
        return
    synced = max((i + 1 for i, op in enumerate(before) if op.kind == SYNC), default=0)
    unsynced = [op for op in before[synced:] if op.kind in (PROGRAM, ERASE)]
    for operation in reversed(unsynced):  # back to the state at the last sync
        blank = b"\xff" * operation.size
        span = slice(operation.at, operation.at + operation.size)
        flash[span] = operation.data if operation.kind == ERASE else blank
    everything = [*unsynced, last]
    if kind == "lost":
        missing = set(range(len(everything))[-2:])
    elif kind == "swap":
        missing = {len(everything) - 2}
    else:
        missing = {i for i in range(len(everything)) if chance.random() < 0.5}
    # No device writes to one block in another order than it was told: an erase that was lost
    # takes with it what was to be programmed there after it.
    unreached: set[int] = set()
    for i, operation in enumerate(everything):
        block = operation.at // BLOCK
        if i in missing or block in unreached:
            unreached.add(block)
        else:
            _change(flash, operation, "done", chance)


def apply_cut(
    image: Path, last: Operation, before: list[Operation], kind: str, seed: object
) -> None:
    """:func:`cut_state` on an image file; the same `seed` gives the same torn bits."""
    chance = random.Random(str(seed))
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as flash:
        cut_state(flash, last, before, kind, chance)
