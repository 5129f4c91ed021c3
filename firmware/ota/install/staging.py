"""Where members go: path policy, space, unchanged files, and the journal of what will be moved.

Nothing outside /.ota is written here. Until transaction.commit() all of it is litter.
"""

import os
from binascii import crc32

from micropython import const

from ..errors import Refused
from ..package.vetting import (
    Space,
    check_content,
    check_path,
    check_runs,
    clean_path,
    on_boot_path,
    starts_itself,
    starts_recovery,
)
from .journal import Places, found

_DIR = const("/.ota")
_CHUNK = const(1024)
# An entry of a folder beside its name, with the content of a small file; so much of them for each
# folder that is kept in reserve, which is less than half of what fits.
_ENTRY = const(160)
_INLINE = const(128)
_BYTES_A_FOLDER = const(1024)


class Staging:
    """One package on its way to flash.

    progress: called as progress("file", path) for each staged member; protected: list of paths
    that no package may touch, beside the usual ones; feed: called for each piece that is written;
    journal: a Journal, of which this class is the owner from here on.
    What an earlier attempt left has been discarded: it must not be taken for this one's. Raises
    Refused; OSError when flash itself fails. Call close() in any case.
    """

    def __init__(self, progress, protected, feed, journal):
        self.staged = 0
        self.bytes = 0
        self._progress = progress
        self._protected = protected
        self._feed = feed
        self._buffer = bytearray(_CHUNK)
        self._live_buffer = bytearray(_CHUNK)
        self._sum = 0  # CRC-32 of the last member
        self._returns = 0  # bytes of folders that a roll back brings back
        self._space = Space()
        self._journal = journal
        self._places = Places(self._space, self._journal)

    def add(self, member, digest=None):
        """Stage one member of a TarReader. digest: its SHA-256 as hex digits, for the install."""
        path = clean_path(member.name)
        if path == "/":
            if member.is_folder:
                return
            raise Refused("can not apply", "a file without a name")
        check_runs(path)
        check_path(path, self._protected, member.is_folder)
        if member.is_folder:
            self._add_folder(path)
        else:
            self._add_file(path, member, digest)

    def delete(self, path):
        """Delete a file of the old tree with the install. Nothing when there is none."""
        self._feed()
        check_path(path, self._protected)
        if path == "/boot.py":
            raise Refused("can not apply", "nothing would start without " + path)
        kind = self._journal.knows(path, "f")
        if kind == "d":
            return  # as the twin of a new file
        if kind:
            raise Refused("can not apply", "brought and deleted: " + path)
        kind = found(path)
        if kind == "m":
            raise Refused("can not apply", "a folder is not deleted: " + path)
        if kind:
            # Its folder exists. This sees to it that no card is mounted there.
            self._places.missing(path[: path.rfind("/")])
            self._retire(path)

    def finish(self):
        """All members are staged and verified: close what the commit relies on."""
        self._journal.end()
        size = os.stat(_DIR + "/journal")[6]
        if size > _INLINE:
            self._space.file(size)  # its copy
        if self._returns:
            self._reserve()
        self._space.check()

    def close(self):
        """Close files, in whatever state. Leaves the litter to transaction.discard()."""
        self._journal.close()

    def leave_open(self):
        """In place of close() after an error of flash: what has to be kept until the reset.

        Closing the journal would write, and so would a collection that finds it (see
        recovery.install()).
        """
        return self._journal.file

    def _reserve(self):
        """Keep what a roll back may need to bring files back into folders, on a full flash.

        Folders in a folder: each takes two blocks, of which nothing is programmed but a line.
        """
        path = _DIR + "/reserve"
        for _ in range(2 + self._returns // _BYTES_A_FOLDER):
            self._space.folder()
            os.mkdir(path)
            path += "/r"

    def _add_folder(self, path):
        depth = self._places.missing(path)
        if depth:
            self._places.make(path)
            if depth > 1:  # else it has its line
                self._space.file(0)  # what the journal takes of it
                self._journal.line("m", self._places.tree, depth, path)
            self.staged += 1

    def _add_file(self, path, member, digest):
        folder = path[: path.rfind("/")]
        places = self._places
        depth = places.missing(folder)
        old = not depth and found(path)
        if old == "m":
            raise Refused("can not apply", "a file where a folder is: " + path)
        self._journal.meet(path)
        self._retire_twin(path, depth)
        if depth:
            places.make(folder)
            new = places.inside(path)
            self._copy(member, path, new, False)
            check_content(path, new)
            self._note("a", places.tree, depth, path, digest)
            return
        place = places.next()
        new = _DIR + "/" + place
        same = old and os.stat(path)[6] == member.size
        if self._copy(member, path, new, same):
            self._journal.unchanged(path)
            return
        check_content(path, new)
        if path == "/boot.py" and not starts_recovery(new):
            # Today's packages bring a boot.py that knows nothing of recovery. It must not take its
            # place at the front, so our boot.py stays and runs theirs last.
            if starts_itself(new):
                raise Refused("can not apply", "/boot.py would start itself")
            path = "/boot_user.py"
            check_path(path, self._protected)
            old = found(path)
            if old == "m":  # opening it would look like a flash that fails, wake after wake
                raise Refused("can not apply", "a file where a folder is: " + path)
            self._journal.meet(path)
            if old and self._equal(path, new):
                os.remove(new)
                # Under this name, which may come once more.
                self._journal.unchanged(path)
                return
        places.number += 1
        self._space.promise_entry("" if old else path, member.size)
        kind = "r"
        if not old:
            kind = "a"
        elif on_boot_path(path) or _in_root(path):
            # There must be no moment without this file, so the old one can not be moved away
            # first: it is copied, now, while nothing depends on it. In the root this holds for
            # every file: after a cut inside a rename out of a folder, littlefs also hides the next
            # entry there until something is written, and that could be boot.py or .ota.
            self._copy_aside(path, new + "~")
        self._note(kind, place, 0, path, digest)

    def _note(self, kind, place, depth, path, digest):
        self.staged += 1
        # All of it has been compared with its digest; the install looks whether flash has it.
        sum_ = "%08x" % self._sum if digest else "-"
        self._journal.line(kind, place, depth, path, sum_)
        self._progress("file", path)

    def _retire_twin(self, path, depth):
        """A stale x.py would be imported instead of a new x.mpy, and lie useless the other way."""
        if path.endswith(".mpy"):
            twin = path[:-3] + "py"
        elif path.endswith(".py"):
            twin = path[:-2] + "mpy"
        else:
            return
        if self._journal.knows(twin, "f"):
            raise Refused("can not apply", "both source and .mpy of " + path)
        if not depth and found(twin) == "f":
            check_path(twin, self._protected)
            self._retire(twin)

    def _retire(self, path):
        self._journal.mark(path, "f")
        place = self._places.next()
        self._returns += len(path.encode()) - path.rfind("/") + _ENTRY
        if _in_root(path):
            self._copy_aside(path, _DIR + "/" + place + "~")
        else:
            self._places.make_group()
        self._journal.line("d", place, 0, path)
        self._places.number += 1
        self.staged += 1

    def _copy(self, member, path, new, same):
        """Write the member's content to new. True, and nothing written, when path has it already.

        same: whether path has the member's size. As long as the content agrees with path's nothing
        is written; at the first difference what agreed is taken from there.
        """
        live = open(path, "rb") if same else None
        out = None
        done = self._sum = 0
        buffer = self._buffer
        try:
            if not same:
                out = self._create(new, member.size)
            while done < member.size:
                n = self._read_chunk(member)
                piece = buffer if n == _CHUNK else memoryview(buffer)[:n]
                self._sum = crc32(piece, self._sum)
                if not out:
                    if self._agrees(live, n):
                        done += n
                        continue
                    out = self._create(new, member.size)
                    live.seek(0)
                    self._copy_bytes(live, out, done)
                out.write(piece)
                self._feed()
                done += n
                self.bytes += n
        finally:
            if live:
                live.close()
            if out:
                out.close()
        return out is None

    def _read_chunk(self, member):
        """Fill the buffer from the member, or to the member's end. Returns bytes read."""
        n = member.readinto(self._buffer, _CHUNK)
        if n < _CHUNK:
            view = memoryview(self._buffer)
            while n < _CHUNK:
                more = member.readinto(view[n:], _CHUNK - n)
                if not more:
                    break
                n += more
        return n

    def _agrees(self, live, n):
        if live.readinto(self._live_buffer) < n:
            return False
        return self._same(n)

    def _same(self, n):
        """True when both buffers begin with the same n bytes."""
        if n == _CHUNK:
            return self._live_buffer == self._buffer
        return memoryview(self._live_buffer)[:n] == memoryview(self._buffer)[:n]

    def _equal(self, path, other):
        if os.stat(path)[6] != os.stat(other)[6]:
            return False
        with open(path, "rb") as a, open(other, "rb") as b:
            while True:
                n = a.readinto(self._live_buffer)
                if n != b.readinto(self._buffer) or not self._same(n):
                    return False
                if not n:
                    return True

    def _copy_bytes(self, source, out, left):
        buffer = self._live_buffer
        while left:
            n = source.readinto(buffer)
            if not n:
                raise OSError(5)  # it became shorter while it was read
            n = min(n, left)
            out.write(buffer if n == _CHUNK else memoryview(buffer)[:n])
            self._feed()
            left -= n

    def _copy_aside(self, path, old):
        size = os.stat(path)[6]
        with open(path, "rb") as source, self._create(old, size) as out:
            self._copy_bytes(source, out, size)

    def _create(self, path, size):
        self._space.file(size)
        try:
            return open(path, "wb")
        except OSError as error:
            if error.args[0] != 2:  # ENOENT
                raise
        self._places.make_group()
        return open(path, "wb")


def _in_root(path):
    return path.rfind("/") == 0
