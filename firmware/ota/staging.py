"""Where members go: path policy, space, unchanged files, and the journal of what will be moved.

Nothing outside /.ota is written here. Until recovery.commit() all of it is litter to be discarded.
"""

import os

from micropython import const

from .errors import Refused
from .journal import Journal
from .space import BLOCK, RESERVE, free_blocks
from .vetting import (
    check_content,
    check_path,
    check_runs,
    clean_path,
    on_boot_path,
    starts_recovery,
)

_DIR = const("/.ota")
_CHUNK = const(1024)
_FOLDER_BLOCKS = const(2)
# What a rename costs littlefs grows with what is in the folder that the file leaves: it reads the
# folder's log several times over. Members and what they replace wait in folders of so many, as
# long as there is flash for more folders: one for so many free blocks.
_GROUP = const(8)
_BLOCKS_A_GROUP = const(32)
# What the install adds to folders by moving entries there: a block for so many bytes of them. A
# staged member is called `7`; it takes the space for its own name only when it gets it.
_GROWTH = const(768)
_INLINE = const(128)
_ENTRY = const(40)
# What stands at a path.
_NOTHING = const(0)
_FILE = const(1)
_FOLDER = const(2)


class Staging:
    """One package on its way to flash.

    progress: called as progress("file", path) for each staged member; protected: list of paths
    that no package may touch, beside the usual ones; feed: called for each piece that is written.
    What an earlier attempt left has been discarded: it must not be taken for this one's. Raises
    Refused; OSError when flash itself fails. Call close() in any case.
    """

    def __init__(self, progress, protected, feed):
        self.staged = 0
        self.bytes = 0
        self._progress = progress
        self._protected = protected
        self._feed = feed
        self._number = 0
        self._groups = 0
        self._last_folder = ""
        self._last_missing = 0
        self._buffer = bytearray(_CHUNK)
        self._live_buffer = bytearray(_CHUNK)
        self._promised = 0  # blocks that only the install will use
        self._growth = 0
        self._ask()
        if _mode(_DIR) == _NOTHING:
            os.mkdir(_DIR)
        self._journal = Journal(_DIR + "/journal")
        self._free = free_blocks()
        self._most_groups = self._free // _BLOCKS_A_GROUP + 1

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
        if kind in ("d", "x"):
            return  # as the twin of a new file
        if kind:
            raise Refused("can not apply", "brought and deleted: " + path)
        mode = _mode(path)
        if mode == _FOLDER:
            raise Refused("can not apply", "a folder is not deleted: " + path)
        if mode == _FILE:
            # Its folder exists. This sees to it that no card is mounted there.
            self._missing(path[: path.rfind("/")])
            self._retire(path)

    def finish(self):
        """All members are staged and verified: close what the commit relies on."""
        self._journal.close()
        self._ask()

    def close(self):
        """Close files, in whatever state. Leaves the litter to recovery.discard()."""
        self._journal.close()

    def _add_folder(self, path):
        depth = self._missing(path)
        if depth:
            self._journal.line("m", "0", depth, path)
            self.staged += 1

    def _add_file(self, path, member, digest):
        depth = self._missing(path[: path.rfind("/")])
        mode = _NOTHING if depth else _mode(path)
        if mode == _FOLDER:
            raise Refused("can not apply", "a file where a folder is: " + path)
        self._journal.meet(path)
        self._retire_twin(path, depth)
        place = self._place()
        new = _DIR + "/" + place
        same = mode == _FILE and os.stat(path)[6] == member.size
        if self._copy(member, path, new, same):
            self._journal.unchanged(path)
            return
        check_content(path, new)
        if path == "/boot.py" and not starts_recovery(new):
            # Today's packages bring a boot.py that knows nothing of recovery. It must not take its
            # place at the front, so our boot.py stays and runs theirs last.
            path = "/boot_user.py"
            check_path(path, self._protected)
            mode = _mode(path)
            self._journal.meet(path)
            if mode == _FILE and self._equal(path, new):
                os.remove(new)
                # Under this name, which may come once more.
                self._journal.unchanged(path)
                return
        self._number += 1
        self.staged += 1
        self._grow(path if mode == _NOTHING else "", member.size)
        if mode == _NOTHING:
            self._journal.line("a", place, depth, path)
        elif on_boot_path(path) or _in_root(path):
            # There must be no moment without this file, so the old one can not be moved away
            # first: it is copied, now, while nothing depends on it. In the root this holds for
            # every file: after a cut inside a rename out of a folder, littlefs also hides the next
            # entry there until something is written, and that could be boot.py or .ota.
            self._copy_aside(path, new + "~")
            self._journal.line("b", place, 0, path)
        else:
            self._journal.line("r", place, 0, path)
        if digest:
            self._journal.line("h", place, 0, digest)
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
        if not depth and _mode(twin) == _FILE:
            check_path(twin, self._protected)
            self._retire(twin)

    def _retire(self, path):
        self._journal.mark(path, "f")
        place = self._place()
        if _in_root(path):
            self._copy_aside(path, _DIR + "/" + place + "~")
            self._journal.line("x", place, 0, path)
        else:
            self._make_group()
            self._journal.line("d", place, 0, path)
        self._number += 1
        self.staged += 1

    def _copy(self, member, path, new, same):
        """Write the member's content to new. True, and nothing written, when path has it already.

        same: whether path has the member's size. As long as the content agrees with path's nothing
        is written; at the first difference what agreed is taken from there.
        """
        live = open(path, "rb") if same else None
        out = None
        done = 0
        buffer = self._buffer
        try:
            if not same:
                out = self._create(new, member.size)
            while done < member.size:
                n = self._read_chunk(member)
                if not out:
                    if self._agrees(live, n):
                        done += n
                        continue
                    out = self._create(new, member.size)
                    live.seek(0)
                    self._copy_bytes(live, out, done)
                out.write(buffer if n == _CHUNK else memoryview(buffer)[:n])
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
                raise OSError(5)  # it shrank under our hands
            n = min(n, left)
            out.write(buffer if n == _CHUNK else memoryview(buffer)[:n])
            self._feed()
            left -= n

    def _copy_aside(self, path, old):
        size = os.stat(path)[6]
        with open(path, "rb") as source, self._create(old, size) as out:
            self._copy_bytes(source, out, size)

    def _place(self):
        """Where the next one waits, in /.ota: `<folder>/<n>`."""
        return "%d/%d" % (self._group(), self._number)

    def _group(self):
        return self._number // _GROUP % self._most_groups

    def _make_group(self):
        if self._group() == self._groups:
            self._take(2 * _FOLDER_BLOCKS)  # as statvfs counts it
            os.mkdir("%s/%d" % (_DIR, self._groups))
            self._groups += 1

    def _create(self, path, size):
        self._make_group()
        # littlefs keeps some pointers in each block; one more for the journal and the folders.
        self._take(size // (BLOCK - 16) + 1)
        return open(path, "wb")

    def _take(self, blocks):
        """Count blocks as used. Raises Refused when that would eat the reserve."""
        if self._free - blocks < RESERVE:
            # The running count is pessimistic (littlefs keeps tiny files inside their folder);
            # asking walks all of flash, so only when it matters.
            self._free = free_blocks() - self._promised
            if self._free - blocks < RESERVE:
                raise Refused("not enough space", "%d blocks are free" % max(0, self._free))
        self._free -= blocks

    def _ask(self):
        """Count what is free anew. Raises Refused as _take() does."""
        self._free = 0
        self._take(0)

    def _grow(self, path, size):
        """Count what an entry adds to its folder when it is moved there."""
        self._growth += len(path.encode()) - path.rfind("/") + min(size, _INLINE) + _ENTRY
        blocks = self._growth // _GROWTH
        self._growth %= _GROWTH
        self._take(blocks)
        self._promised += blocks

    def _missing(self, folder):
        """How many of folder ("" for the root) and the folders above it do not exist yet."""
        if folder == self._last_folder:
            return self._last_missing
        try:
            # Neither exists. No rename reaches what is mounted (a card), nor does boot.py.
            os.rename(_DIR + "/~", folder + "/~")
        except OSError as error:
            if error.args[0] == 1:  # EPERM
                raise Refused("can not apply", "another filesystem: " + folder)
        last = self._last_folder + "/"
        missing = new = 0
        path = folder
        while path:
            mode = _mode(path)
            if mode == _FOLDER:
                break
            if mode == _FILE or self._journal.knows(path, "f"):
                raise Refused("can not apply", "a folder where a file is: " + path)
            missing += 1
            # The filter alone: asking the journal writes it to flash, which costs a block each
            # time. When it errs, two blocks are not counted, which the reserve is good for.
            if not last.startswith(path + "/") and not self._journal.may_know(path, "m"):
                self._journal.mark(path, "m")
                new += 1
                self._grow(path, 0)
            path = path[: path.rfind("/")]
        if new:
            # The install will make them; it must not find flash full.
            self._take(_FOLDER_BLOCKS * new)
            self._promised += _FOLDER_BLOCKS * new
        self._last_folder, self._last_missing = folder, missing
        return missing


def _mode(path):
    try:
        return _FOLDER if os.stat(path)[0] & 0x4000 else _FILE
    except OSError:
        return _NOTHING


def _in_root(path):
    return path.rfind("/") == 0
