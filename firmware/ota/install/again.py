"""Being where an earlier wake has ended: what staging has in RAM, once more from the journal."""

import os

from micropython import const

from .journal import found

_DIR = const("/.ota/")
_JOURNAL = const("/.ota/journal")
_BLOCK = const(512)


def go_on(staging, left, tar, signed):
    """Put a Staging and its readers where an earlier wake has ended. Returns whether in a member.

    left: what resume.look() returns; tar: a TarReader of the rest; signed: a SignedReader or None.
    The member is staged then. Raises as Staging.add() does.
    """
    mark, _, _, _, _, staging.staged, staging.returns, _, begun = left
    _remember(staging.journal, staging.places, staging.space)
    if begun:
        waits, size, path, staging.seed = begun
        # As next() leaves it, but inside the member.
        tar.name, tar.size, tar.is_folder = path, size, False
        tar.left, tar.padding = size - mark[3], -size % _BLOCK
        if signed:
            signed.go_on()
        staging.place, staging.left, staging.sum = waits[len(_DIR) :], mark[3], mark[4]
        staging.add(signed or tar)
        tar.skip()
    return begun


def skip(space, member, live, new, begun, buffer):
    """Be behind the bytes of a member that have been checked: (file to write or None, begun).

    live: the open file that they agree with, or None; new: where they may wait. Those of a signed
    member have to go through its hash once more.
    """
    out = None
    if not live or (found(new) and os.stat(new)[6] >= begun):
        out = open(new, "r+b")
        space.file(member.size - begun)
    done = 0
    while done < begun:
        n = (out or live).readinto(memoryview(buffer)[: begun - done])
        if not n:
            raise OSError(5)
        if hasattr(member, "again"):
            member.again(buffer, n)
        done += n
    return out, done


def _remember(journal, places, space):
    # What lies there was taken, and each folder of it counts twice.
    for promises in False, True:
        with open(_JOURNAL) as file:
            file.readline()
            for line in file:
                kind, place, depth, _, path = line[:-1].split(" ", 4)
                depth = int(depth)
                folder = kind == "m"
                moves = not depth or (folder and depth == 1)
                if kind == "u":
                    if place == "0":
                        journal.mark(path, "f")
                elif not promises:
                    if folder:
                        space.folders += not journal.may_know(path, "m")
                    journal.mark(path, "m" if folder else "f")
                    if moves:
                        places.number += 1
                        if folder:
                            journal.mark(path, "t")
                    # The folders above it that wait in the same tree.
                    for _ in range(depth - 1):
                        path = path[: path.rfind("/")]
                        space.folders += not journal.may_know(path, "m")
                        journal.mark(path, "m")
                elif moves and kind != "d":
                    size = 0 if folder else os.stat(_DIR + place)[6]
                    space.promise_entry("" if kind == "r" else path, size)
        space.count()
