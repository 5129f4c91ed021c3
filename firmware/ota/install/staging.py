"""Where members go: path policy, space, unchanged files, and the journal of what will be moved.

Nothing outside /.ota is written here. Until transaction.commit() all of it is litter.
"""

import gc
import os
from binascii import crc32

from micropython import const

from .. import drop
from ..errors import Refused
from ..package.vetting import (
    Space,
    check_content,
    check_path,
    clean_path,
    on_boot_path,
)
from .journal import Places, found

_DIR = const("/.ota/")
_CHUNK = const(1024)
# Where much is, as in arrival.py.
_LARGE_CHUNK = const(2048)
_MUCH = const(16 * 1024)
# Where little memory is free, as in journal.py.
_SMALL_CHUNK = const(512)
_LITTLE = const(24 * 1024)
# A file of no more is begun again in another wake.
_SMALL = const(2048)
_BLOCK = const(4096)


class Staging:
    """One package on its way to flash.

    progress: called as progress("file", path) for each staged member; protected: list of paths
    that no package may touch, beside the usual ones; feed: called for each piece that is written;
    journal: a Journal; scratch: bytearray, for what is read of files that are there. It may be a
    TarReader's, which has no use for it meanwhile. `returns` counts bytes of folders that a roll
    back brings back. finish.py has what comes at the end, again.py how an earlier wake is gone on
    with. What an earlier attempt left has been discarded, or checked: it must not be taken for
    this one's. marks: Marks, where another wake may go on with what this one has staged. archive:
    what open_archive() says, None for a signed package. Where it has a running CRC-32 of all that
    it gives, that of a file begins with that of what came before it: no byte is summed twice.
    Raises Refused; OSError when flash fails.
    """

    def __init__(self, progress, protected, feed, journal, scratch, marks=None, archive=None):
        self.staged = 0
        self.bytes = 0
        self._progress = progress
        self.protected = protected
        self._feed = feed
        size = _CHUNK if gc.mem_free() > _LITTLE else _SMALL_CHUNK
        self._buffer = bytearray(_LARGE_CHUNK if gc.threshold() > _MUCH else size)
        self._scratch = scratch
        # The CRC-32 of the last member, and what it goes on from; the member may have no hash.
        self.sum = self.seed = 0
        self._sums = archive if archive and archive.window and archive.sum is not None else None
        self._signed = not archive
        # Of one that an earlier wake has begun: bytes that wait, and where; how groups are named
        # depends on what is free.
        self.left, self.place = 0, None
        self._marks = marks
        self.returns = 0
        self.space = Space()
        self.journal = journal
        self.places = Places(self.space, self.journal)

    def add(self, member):
        """Stage one member of a TarReader."""
        self._feed()  # unchanged ones may come fast, and the journal may be read for each
        path = clean_path(member.name)
        if path == "/":
            if member.is_folder:
                return
            raise Refused("can not apply", "a file without a name")
        self.check(path, member.is_folder)
        if member.is_folder:
            self._add_folder(path)
        else:
            self._add_file(path, member)

    def check(self, path, is_folder=False):
        if path in ("/boot.mpy", "/main.mpy", "/boot_user.mpy"):
            # It would replace the source that MicroPython starts.
            raise Refused("can not apply", "nothing runs " + path)
        check_path(path, self.protected, is_folder)

    def _add_folder(self, path):
        depth = self.places.missing(path)
        if depth:
            self.places.make(path)
            if depth > 1:  # else it has its line
                self.space.file(0)  # what the journal takes of it
                self.journal.line("m", self.places.tree, depth, path)
            self.staged += 1

    def _add_file(self, path, member):
        place, self.place = self.place, None
        folder = path[: path.rfind("/")]
        places = self.places
        depth = places.missing(folder)
        old = not depth and found(path)
        if old == "m":
            raise Refused("can not apply", "a file where a folder is: " + path)
        self.journal.meet(path)
        name = path
        if depth:
            places.make(folder)
            new = places.inside(path)
            self._copy(member, path, new, False)
            check_content(path, new)
            self._check_twin(path)
            self._note("a", places.tree, depth, path)
            return
        place = place or places.next()
        new = _DIR + place
        same = old and os.stat(path)[6] == member.size
        if self._copy(member, path, new, same):
            self.unchanged(path)
            self.retire(path)
            return
        check_content(path, new)
        if path == "/boot.py":
            from .boot_file import instead

            path, old = instead(self, new, old)
            del instead
            drop("install.boot_file", "package.source")
            if not path:
                return
        places.number += 1
        self.space.promise_entry("" if old else path, member.size)
        kind = "r"
        if not old:
            kind = "a"
        elif on_boot_path(path) or _in_root(path):
            # There must be no moment without this file, so the old one can not be moved away
            # first: it is copied, now, while nothing depends on it. In the root this holds for
            # every file: after a cut inside a rename out of a folder, littlefs also hides the next
            # entry there until something is written, and that could be boot.py or .ota.
            self.copy_aside(path, new + "~")
        self._note(kind, place, 0, path)
        self.retire(name)

    def unchanged(self, path):
        """Note that the file there is the last member already."""
        self.journal.line("u", "0", 0, path, self._stated())

    def _note(self, kind, place, depth, path):
        self.staged += 1
        self.journal.line(kind, place, depth, path, self._stated())
        self._progress("file", path)

    def _stated(self):
        # A signed file is compared once more at the install, which takes its time; of others only
        # whoever goes on from here looks whether flash still has it.
        if self.seed:
            return "-%08x%08x" % (self.seed, self.sum)
        return ("%08x" if self._signed else "-%08x") % self.sum

    def retire(self, path):
        """A stale x.py would be imported instead of a new x.mpy, and lie useless the other way."""
        twin = self._check_twin(path)
        if twin and found(twin) == "f":
            check_path(twin, self.protected)
            from .finish import retire

            retire(self, twin)
            del retire
            drop("install.finish")

    def _check_twin(self, path):
        if path.endswith(".mpy"):
            twin = path[:-3] + "py"
        elif path.endswith(".py"):
            twin = path[:-2] + "mpy"
        else:
            return None
        if self.journal.knows(twin, "f"):
            raise Refused("can not apply", "both source and .mpy of " + path)
        return twin

    def _copy(self, member, path, new, same):
        """Write the member's content to new. True, and nothing written, when path has it already.

        same: whether path has the member's size. As long as the content agrees with path's
        nothing is written; at the first difference what agreed is taken from there.
        """
        live = open(path, "rb") if same else None
        out = None
        begun, self.left = self.left, 0
        done = 0
        buffer = self._buffer
        size = member.size
        sums = self._sums
        noted = self._marks and size > _SMALL
        full = blocks = 0
        try:
            if begun:
                from .again import skip

                out, done = skip(self.space, member, live, new, begun, buffer)
            else:
                self.seed = self.sum = sums.sum if sums else 0
                if not same:
                    out = self._create(new, size)
            if noted:
                self._marks.member = new, size, path, self.seed
            while done < size:
                # The next place where littlefs has filled a block: each but the first begins with
                # pointers of four bytes, one, and one for each power of two in its number.
                while full <= done:
                    full += _BLOCK
                    pointers = blocks
                    while pointers:
                        full -= 4
                        pointers = 0 if pointers & 1 else pointers >> 1
                    blocks += 1
                n = self._read_chunk(member, full - done)
                piece = buffer if n == len(buffer) else memoryview(buffer)[:n]
                self.sum = sums.sum if sums else crc32(piece, self.sum)
                if out or not self._agrees(live, n):
                    if not out:
                        out = self._create(new, size)
                        live.seek(0)
                        self._copy_bytes(live, out, done)
                        live.close()
                        live = None  # its buffers make room for the mark's
                    out.write(piece)
                    self._feed()
                    self.bytes += n
                done += n
                if noted and done < size:
                    self._marks.note(done, self.sum, out, done == full)
        finally:
            if live:
                live.close()
            if out:
                out.close()
        return out is None

    def _read_chunk(self, member, size):
        """Fill the buffer, or so many bytes of it, or to the member's end. Returns bytes read."""
        size = min(size, len(self._buffer))
        n = member.readinto(self._buffer, size)
        while 0 < n < size:
            more = member.readinto(memoryview(self._buffer)[n:], size - n)
            if not more:
                break
            n += more
        return n

    def _agrees(self, live, n):
        """True when live goes on with the first n bytes of the buffer."""
        scratch = memoryview(self._scratch)
        done = 0
        while done < n:
            got = live.readinto(scratch[: n - done])
            if not got or scratch[:got] != memoryview(self._buffer)[done : done + got]:
                return False
            done += got
        return True

    def _copy_bytes(self, source, out, left):
        scratch = memoryview(self._scratch)
        while left:
            n = source.readinto(scratch)
            if not n:
                raise OSError(5)  # it became shorter while it was read
            n = min(n, left)
            out.write(scratch[:n])
            self._feed()
            left -= n

    def copy_aside(self, path, old):
        """Copy a file of the old tree to old."""
        size = os.stat(path)[6]
        with open(path, "rb") as source, self._create(old, size) as out:
            self._copy_bytes(source, out, size)

    def _create(self, path, size):
        self.space.file(size)
        try:
            return open(path, "wb")
        except OSError as error:
            if error.args[0] != 2:  # ENOENT
                raise
        self.places.make_group()
        return open(path, "wb")


def _in_root(path):
    return path.rfind("/") == 0
