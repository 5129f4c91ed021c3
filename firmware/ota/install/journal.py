"""The journal while it is written, and where what it names waits in /.ota.

What a rename costs littlefs grows with what is in the folder that the entry leaves: it reads the
folder's log several times over. So a folder that the old tree does not have is staged as such and
moves at once, with all that is in it. Of the rest the first ones wait in /.ota itself, and then in
folders of eight, as long as there is flash for more of these; what a member replaces comes beside
it.
"""

import binascii
import gc
import json
import os

from micropython import const

from ..errors import Refused

_PATH = const("/.ota/journal")
_FILTER = const(2048)
# Where little memory is free; with hundreds of members the journal is then read again for some.
_SMALL_FILTER = const(256)
_LITTLE = const(24 * 1024)
_DIR = const("/.ota/")
_GROUP = const(8)
_BLOCKS_A_GROUP = const(32)
# Files of no more than 128 bytes littlefs keeps inside the folder: they cost no erase.
_ASIDE = const("/.ota/j%d")
_MOST_ASIDE = const(6)
_INLINE = const(128)
_LONGEST_TAIL = const(256)


class Journal:
    """The lines that recovery will follow; their format stands in recovery.py.

    A name twice, or one as file and as folder, would make it ambiguous. Remembering all names
    takes memory that grows with the package, so a filter of fixed size remembers that a name *may*
    have been seen, and then the journal itself is asked. Kinds of names are "f", a file, "m", a
    folder, and "t", one that is staged as such. Raises OSError when flash fails. Call close() in
    any case. `file` is open until then. head: list, what recovery.py says of it; file: an open one
    in the place of the journal on flash, for what is not to be installed. With `size` and `sum`,
    its bytes so far and their CRC-32, it goes on behind what an earlier wake has written.

    Behind each flush littlefs copies the block that the file has begun, with an erase. So keep()
    puts what has come since the last one beside the journal, in j0 to j5, before it flushes again.
    What these hold is read (resume.py) only as far as the journal on flash is too short.
    """

    def __init__(self, head, file=None, size=0, sum_=0):
        self._seen = bytearray(_FILTER if gc.mem_free() > _LITTLE else _SMALL_FILTER)
        self.size = size
        self.sum = sum_
        # What has come since the last keep(), None where that is long; how many lie aside. The
        # first line is in the file itself: transaction.kept() looks at it.
        self._tail, self._aside = b"" if size else None, 0
        if size:
            self.file = open(_PATH, "ab")
            return
        if not file:
            try:
                os.mkdir("/.ota")
            except OSError:
                pass  # it is there, or open() tells
            file = open(_PATH, "wb")
        self.file = file
        self.write((json.dumps(head) + "\n").encode())

    def line(self, kind, place, depth, path, sum_="-"):
        """Write a line."""
        self.write(("%s %s %d %s %s\n" % (kind, place, depth, sum_, path)).encode())

    def write(self, data):
        """Write bytes."""
        self.sum = binascii.crc32(data, self.sum)
        self.file.write(data)
        self.size += len(data)
        tail = self._tail
        if tail is not None:
            self._tail = tail + data if len(tail) + len(data) <= _LONGEST_TAIL else None

    def keep(self):
        """See to it that another wake has all that is written so far."""
        tail, aside = self._tail, self._aside
        if tail is None or aside * _INLINE + len(tail) > _MOST_ASIDE * _INLINE:
            self._flush()
            return
        while tail:
            with open(_ASIDE % aside, "wb") as file:
                file.write(tail[:_INLINE])
            tail = tail[_INLINE:]
            aside += 1
        self._tail, self._aside = tail, aside

    def _flush(self):
        self.file.flush()
        self._tail, self._aside = b"", 0

    def close(self):
        """Close the file, in whatever state."""
        self.file.close()

    def meet(self, path):
        """Remember a file. Raises Refused when the name was there already."""
        if self.knows(path, "f") or self.knows(path, "m"):
            raise Refused("can not apply", "the same name twice: " + path)
        self.mark(path, "f")

    def mark(self, path, kind):
        """Remember a name."""
        for bit in self._bits(path, kind):
            self._seen[bit >> 3] |= 1 << (bit & 7)

    def may_know(self, path, kind):
        """0 when the name was never marked; 1 when it may have been. Costs no flash."""
        first, second = self._bits(path, kind)
        seen = self._seen
        return seen[first >> 3] >> (first & 7) & seen[second >> 3] >> (second & 7) & 1

    def knows(self, path, kind):
        """The kind of its line (or of one inside it) when it was marked and written, or None.

        Of kind "t", a folder that is staged as such, where it waits.
        """
        if not self.may_know(path, kind):
            return None
        self._flush()
        inside = path + "/"
        with open(_PATH) as file:
            for line in file:
                line_kind, place, depth, _, name = line[:-1].split(" ", 4)
                if kind == "t":
                    if line_kind == "m" and depth == "1" and name == path:
                        return place
                elif kind == "m":
                    if name.startswith(inside) or (line_kind == "m" and name == path):
                        return line_kind
                elif line_kind != "m" and name == path:
                    return line_kind
        return None

    def _bits(self, path, kind):
        code = binascii.crc32(path, binascii.crc32(kind))  # of both in one
        last = len(self._seen) * 8 - 1
        return code & last, code >> 14 & last


class Places:
    """The places of one package.

    space: Space; journal: Journal. `number` counts the places that are taken; `tree` is that of
    the folder that missing() and make() were last asked about. Raises Refused, OSError.
    """

    def __init__(self, space, journal):
        self.number = 0
        self.tree = ""
        self._space = space
        self._journal = journal
        self._most_groups = space.free // _BLOCKS_A_GROUP + 1
        # What missing() was last asked, and its answer.
        self._folder = ""
        self._missing = 0
        # The highest missing folder whose place is `tree`, and the last one made in there.
        self._top = self._made = ""

    def next(self):
        """The next free place, `<n>` or `<folder>/<n>`."""
        if self.number < _GROUP:
            return str(self.number)
        return "%d/%d" % (self._group(), self.number)

    def make_group(self):
        """Make the folder of the next free place."""
        if self.number >= _GROUP:
            path = "%s%d" % (_DIR, self._group())
            if not found(path):
                self._make(path)

    def missing(self, folder):
        """How many of folder ("" for the root) and the folders above it the old tree has not."""
        if folder == self._folder:
            return self._missing
        if self._top and (folder + "/").startswith(self._top + "/"):
            missing = folder.count("/") - self._top.count("/") + 1
        else:
            missing = 0
            path = folder
            while path:
                kind = found(path)
                if kind == "m":
                    break
                if kind:
                    raise _in_the_way(path)
                missing += 1
                top = path
                path = path[: path.rfind("/")]
            try:
                # Neither exists. No rename reaches what is mounted (a card), nor does boot.py.
                os.rename("/.ota/~", path + "/~")
            except OSError as error:
                if error.args[0] == 1:  # EPERM
                    raise _not_ours(path)
            if missing:
                self._begin_tree(top)
        self._folder, self._missing = folder, missing
        return missing

    def make(self, folder):
        """Make folder, of which missing() has just said that it is missing, where it waits."""
        if (self._made + "/").startswith(folder + "/"):
            return
        end = len(self._top)
        while end > 0:
            end = folder.find("/", end + 1)
            path = folder if end < 0 else folder[:end]
            # Most of those that have been made are above the last one.
            if (self._made + "/").startswith(path + "/"):
                continue
            staged = self.inside(path)
            known = self._journal.may_know(path, "m") or self._journal.may_know(path, "f")
            kind = known and found(staged)
            if kind == "f":
                raise _in_the_way(path)
            if not kind:
                if found(path):
                    # Below a folder that does not exist: a card is mounted there.
                    raise _not_ours(path)
                self._make(staged)
                self._journal.mark(path, "m")
        self._made = folder

    def inside(self, path):
        """Where a path waits that is in the tree."""
        return _DIR + self.tree + path[len(self._top) :]

    def _group(self):
        # Numbers that no member in /.ota itself has.
        return _GROUP + (self.number // _GROUP - 1) % self._most_groups

    def _make(self, path):
        self._space.folder()
        try:
            os.mkdir(path)
        except OSError as error:
            # An earlier wake has made it, behind its last mark.
            if error.args[0] != 17 or found(path) != "m":  # EEXIST
                raise

    def _begin_tree(self, top):
        self._top = self._made = top
        place = self._journal.knows(top, "t")
        if not place:
            if self._journal.knows(top, "f"):
                raise _in_the_way(top)
            place = self.next()
            self.make_group()
            self.number += 1
            self._make(_DIR + place)
            self._space.promise_entry(top, 0)
            self._journal.mark(top, "m")
            self._journal.mark(top, "t")
            self._journal.line("m", place, 1, top)
        self.tree = place


def found(path):
    """What is at path: "f" for a file, "m" for a folder, None for nothing."""
    try:
        return "m" if os.stat(path)[0] & 0x4000 else "f"
    except OSError:
        return None


def _not_ours(path):
    return Refused("can not apply", "another filesystem: " + path)


def _in_the_way(path):
    return Refused("can not apply", "a folder where a file is: " + path)
