"""Going on with what an earlier wake has staged: all of it is checked on flash before.

No byte counts because a note says so: the application, or the chip, may have changed what lies
there, and the live tree that it was compared with. What does not fit is discarded, all of it.

Lines of the journal for this, beside those in recovery.py, are all of kind u:
    u = 0 - <what start.mark_of() says>
    u 0 0 <sum> <path>                  what is there already is the member's content
The sum of a file of which nothing is signed is `-<CRC-32>`, or `-<seed><CRC-32>`, each of eight
digits: it goes on from the seed (staging.py).
"""

import json
import os
from binascii import crc32

from micropython import const

from ..recovery import crc_of, exists, lines, remove
from .start import mark_of
from .transaction import KEPT, discard, read_mark

_DIR = const("/.ota/")
_JOURNAL = const("/.ota/journal")
# As many beside it as journal.py keeps there.
_PARTS = const(("journal", "j0", "j1", "j2", "j3", "j4", "j5"))
_FOLDER = const(0x4000)
_FILE = const(0x8000)
# Where one waits that is unchanged, as recovery.lines() has it.
_UNCHANGED = const("/.ota/0")
# As in staging.py and journal.py.
_ENTRY = const(160)
_GROUP = const(8)


def look(agent, request):
    """What stage() needs to go on with this request, or None: then all of it is discarded.

    A tuple: the mark's first seven numbers; the entity tag (bytes); where the archive begins, as
    open_archive() has it; how many files are staged; whether there is a manifest; how many lines
    change something; the bytes of folders that a roll back brings back; 0 where the package has
    no index, 2 where that says what is fetched next, 1 where a member is begun; (where it waits,
    size, path, what its CRC-32 begins with) of that member, or None. Raises OSError.
    """
    mark = read_mark()
    found = None
    if mark and mark[0] and not agent.open_stream and _cut(mark[1], mark[2]):
        found = _check(agent, request, mark)
    if not found:
        discard(agent.feed)
    return found


def _cut(size, sum_):
    """Make the journal of so many bytes again. False when they are not what they were.

    It may be longer, or what follows lies beside it (journal.py).
    """
    total = 0
    aside = _DIR + "~"
    buffer = memoryview(bytearray(256))
    copy = exists(_JOURNAL) == _FILE and os.stat(_JOURNAL)[6] != size and open(aside, "wb")
    try:
        left = size
        for name in _PARTS:
            if not left or exists(_DIR + name) != _FILE:
                break
            with open(_DIR + name, "rb") as file:
                n = left
                while n and left:
                    n = file.readinto(buffer[:left])
                    left -= n
                    total = crc32(buffer[:n], total)
                    if copy:
                        copy.write(buffer[:n])
    finally:
        if copy:
            copy.close()
    if left or total != sum_:
        return False
    if copy:
        os.rename(aside, _JOURNAL)
    return True


def _check(agent, request, mark):
    with open(_JOURNAL) as file:
        head = json.loads(file.readline())
        said = file.readline()[:-1].split(" ", 4)[4]
    etag = said.rpartition(" ")[2].encode()
    signed = exists(_DIR + "manifest") == _FILE
    sum_ = crc_of(_DIR + "manifest", agent.feed) if signed else 0
    if head[1] != request.file_id or said != mark_of(agent.config, request, etag, sum_):
        return None
    files = staged = returns = number = 0
    for kind, waits, depth, sum_, path in lines(_JOURNAL, agent.feed):
        there = exists(path)
        if kind == "u":
            if waits == _UNCHANGED:
                if there != _FILE or not _has(path, sum_, agent.feed):
                    return None
                files += 1
        else:
            if not _as_it_was(kind, waits, sum_, path, there, agent.feed):
                return None
            above = path[: path.rfind("/")]
            if kind == "m" and depth == 1 and above and exists(above) != _FOLDER:
                return None  # it would have to wait in the tree of that one
            staged += 1
            number += not depth or (kind == "m" and depth == 1)
            if kind == "d":
                returns += len(path.encode()) - path.rfind("/") + _ENTRY
            elif kind != "m":
                files += 1
    begun = None
    if mark[3]:
        size, seed, waits, path = mark[8:]
        # Where it agrees with the old one so far, what waits there may be a later member.
        if _begins(path, mark, agent.feed) and os.stat(path)[6] == size:
            if exists(waits) == _FILE:
                os.remove(waits)
        elif not _begins(waits, mark, agent.feed) or os.stat(waits)[6] > size:
            return None
        begun = waits, size, path, seed
    _sweep(number, begun and waits[len(_DIR) :], agent.feed)
    bits = 0
    while head[8][0] >> bits > 1:
        bits += 1
    restart = (bits, mark[5], mark[6]) if bits else ()
    indexed = exists(_DIR + "index") == _FILE and 2 - bool(begun)
    return tuple(mark[:7]), etag, restart, files, signed, staged, returns, indexed, begun


def _as_it_was(kind, waits, sum_, path, there, feed):
    """Whether what a line tells of is still what the install expects."""
    if kind == "m":
        return exists(waits) == _FOLDER and not there
    if there != (0 if kind == "a" else _FILE):
        return False
    if kind != "d" and (exists(waits) != _FILE or not _has(waits, sum_, feed)):
        return False
    if kind == "a":
        return True
    # A copy of the old file has to be one of what is there now.
    from ..package.vetting import on_boot_path

    copy = waits + "~"
    if exists(copy) != _FILE:
        return path.rfind("/") > 0 and (kind == "d" or not on_boot_path(path))
    return crc_of(copy, feed) == crc_of(path, feed)


def _sweep(number, begun, feed):
    """Remove what waits behind so many places, but for the one that is begun.

    The live tree may have changed: a file would come where a folder waits.
    """
    for entry in os.ilistdir(_DIR):
        name = entry[0]
        path = _DIR + name
        if name in KEPT or name in ("journal", "manifest", "mark", "index"):
            continue
        if entry[1] == _FOLDER and name.isdigit() and int(name) >= _GROUP:
            for inside in os.ilistdir(path):
                _remove_behind(number, begun, name + "/", inside[0])
                feed()
        else:
            _remove_behind(number, begun, "", name)
        feed()


def _remove_behind(number, begun, folder, name):
    place = name.rstrip("~")
    if not place.isdigit() or (int(place) >= number and folder + name != begun):
        remove(_DIR + folder + name)


def _has(path, stated, feed):
    """Whether a file has the CRC-32 that its line states, what it begins with in front of it."""
    seed = int(stated[:-8].lstrip(b"-") or b"0", 16)
    return _crc_of_first(path, os.stat(path)[6], seed, feed) == int(stated[-8:], 16)


def _begins(path, mark, feed):
    return exists(path) == _FILE and _crc_of_first(path, mark[3], mark[9], feed) == mark[4]


def _crc_of_first(path, size, total, feed):
    piece = bytearray(512)
    with open(path, "rb") as file:
        while size:
            n = file.readinto(memoryview(piece)[:size])
            if not n:
                return None
            total = crc32(memoryview(piece)[:n], total)
            size -= n
            feed()
    return total
