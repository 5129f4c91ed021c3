"""Where another wake could go on with the download, in RAM and, now and then, on flash.

/.ota/mark holds eleven numbers of four bytes each, little endian: the place in the archive; how
many bytes of the journal are behind it, and their CRC-32; how many bytes of the last member, and
their CRC-32; the archive's `sum` and `length` there (archive.open_archive()); how many bytes were
fetched in all wakes; and of a member that is not all there its size, what its CRC-32 begins with
(staging.py), and how many characters of its path are the end of where it waits as well. Behind
them, in UTF-8: where it waits without these, a zero, its path. Then the CRC-32 of it all.
"""

import struct
from binascii import crc32

from micropython import const

# In bytes that a reset would lose, and as many as the least that tar makes: such an archive has no
# mark. The next place for a mark on flash may be some KB further on, in gzip further than in tar;
# with them it has to be less than 16 KB.
_STEP = const(10 * 1024)
_SOONER = const(9 * 1024)
_TWO_BLOCKS = const(1024)
_NONE = const(("", 0, "", 0))


class Marks:
    """The marks of one package.

    download, archive: what it comes through; archive is None where no other wake could go on;
    stop: none is noted any more as soon as this is true; fetched: bytes that earlier wakes have
    fetched; last: the mark that they have left, and begun: as resume.look() has it. `journal` is
    the Journal that goes with them; `member` is (where it waits, size, path, what its CRC-32
    begins with) of the one that comes.
    """

    def __init__(self, download, archive, stop, fetched, last=None, begun=None):
        self._download = download
        self.archive = archive
        self._stop = stop
        self._fetched = fetched
        self._last = last or (0,) * 7
        self._begun = begun or _NONE
        self._saved = 0
        self.journal = self.member = None

    def note(self, done=0, sum_=0, file=None, full=True, back=0):
        """Another wake could go on from here, if the archive can.

        done, sum_: how many bytes of a member are staged, and their CRC-32, 0 between two members;
        file: the open one that they are in; full: whether littlefs has filled a block with them;
        back: not from here, but so many bytes before, in a plain tar.
        """
        archive, download = self.archive, self._download
        if not archive or self._stop or (archive.window and not full):
            return
        ahead = archive.ahead()
        if ahead < 0 or (back and archive.window):
            return
        at = download.done - ahead - back
        journal = self.journal
        self._begun = self.member if done else _NONE
        self._last = at, journal.size, journal.sum, done, sum_, archive.sum, archive.length
        # What lies ahead in RAM would be fetched again as well. Only at the end of a block: from
        # within one, littlefs would copy it for what comes next, with an erase.
        if full and download.fetched - self._saved > (_SOONER if archive.window else _STEP):
            # What it tells of comes first: a cut in between leaves the mark before.
            if file:
                file.flush()
            journal.keep()
            self.save()
            # What lies ahead in RAM is lost as well.
            self._saved = download.fetched - ahead - back

    def tick(self):
        """Behind the end of a tar, and a block of zeros: as note()."""
        # Not quite: two blocks of zeros have to follow.
        self.note(0, 0, None, True, _TWO_BLOCKS)

    def save(self):
        """Write the last mark to flash. All that it tells of is there."""
        if not self._download.done:
            # The server has not what the index is of: the next wake begins anew.
            self._last, self._begun = (0,) * 7, _NONE
        waits, size, path, seed = self._begun
        fetched = self._fetched + self._download.fetched
        same = 0
        while same < len(path) and path[-same - 1 :] == waits[-same - 1 :]:
            same += 1
        waits = waits[: len(waits) - same]
        data = struct.pack("<11I", *(self._last + (fetched, size, seed, same)))
        data += ("%s\0%s" % (waits, path)).encode()
        # littlefs replaces it in one commit. Up to 128 bytes it keeps inside the folder; with a
        # very long path it takes a block, and an erase.
        with open("/.ota/mark", "wb") as file:
            file.write(data + crc32(data).to_bytes(4, "little"))
