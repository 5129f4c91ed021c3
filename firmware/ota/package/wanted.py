"""Only what this node lacks of a package with an index (docs/patches.md), as plan.py says."""

import gc
import hashlib
from binascii import crc32

from micropython import const

from ..errors import Refused, Transient
from ..tarfile_lite import TarReader
from .ahead import ReadAhead
from .inflate import Gzip
from .patched import Patched, record

# Ranges of files that lie no farther apart are asked for as one: a request costs about as much.
_NEAR = const(512)
_OF_A_JOB = const(4)
# Of a file that is not there, and of a folder.
_GONE = const((2, 20, 21))
# Of a record with a patch there are no more bytes to look back to.
_PATCH_BITS = const(12)


class Wanted:
    """In the place of a TarReader: walks the manifest, and gets what the live tree has not.

    download: a Download of a server that knows Range; bits: of the window, as its logarithm;
    signed: its SignedReader, behind the files that are staged; buffer: a bytearray to read
    through; jobs: as plan.py makes them; begun: how many files are staged. `staging` has to be
    set: a Staging, which is told of what is there already. For marks it is an archive as well, as
    open_archive() says. Raises as these.
    """

    def __init__(self, download, bits, signed, buffer, feed, jobs, begun):
        self.window = 1 << bits
        self._buffer = buffer
        self._download = download
        self._bits = bits
        self._signed = signed
        self.staging = None
        self._feed = feed
        self._gzip = self._tar = self._file = None
        self._number = begun
        self._ahead = ReadAhead(download)
        self._at = self._stop = 0
        self._jobs = jobs
        self._next = 0

    # -- as an archive

    @property
    def sum(self):
        """Of what gzip has given since the last seek."""
        return self._gzip.sum if self._gzip else 0

    @property
    def length(self):
        """The same."""
        return self._gzip.length if self._gzip else 0

    def ahead(self):
        """Between two files the place does not matter."""
        if self._file:
            return -1
        return self._gzip.ahead() if self._tar and self._tar.left else 0

    # -- as a TarReader

    def next(self):
        """Go to the next file that is to be staged; False behind the last one."""
        signed = self._signed
        while True:
            listed = signed.lines.next_file()
            if not listed:
                return False
            jobs, at = self._jobs, self._next
            number = self._number
            self._number += 1
            if at < len(jobs) and jobs[at] >> 1 == number:
                self._next += _OF_A_JOB
                self._fetch(at)
                make = self._patch if jobs[at] & 1 else self._whole
                signed.begin(listed, make(listed[0], listed[1], jobs[at + 3]))
                return True
            digest, sum_ = sums_of(listed[0], self._buffer, self._feed)
            _check(digest == listed[2], listed[0])
            self.staging.has(listed[0], sum_)

    def skip(self):
        """Be behind the file: the next wake may go on from here. Closes a patch's old file."""
        file, self._file = self._file, None
        if file:
            file.close()

    def begin(self):
        """Ask for the first file now, and take the window, while there is a piece for it."""
        if self._jobs:
            self._fetch(0)

    def _fetch(self, i):
        """Have the reader at the begin of this job, or of the files that come with it."""
        jobs = self._jobs
        at, stop = jobs[i + 1], jobs[i + 2]
        if at == self._at:
            return
        if not jobs[i] & 1:
            if self._tar and at < self._stop:
                return
            for near in range(i + _OF_A_JOB, len(jobs), _OF_A_JOB):
                if jobs[near] & 1 or jobs[near + 1] > stop + _NEAR:
                    break
                stop = max(stop, jobs[near + 2])
        # The old window has to go before the new one: two may not fit.
        self._tar = self._gzip = self._signed.reader = None
        gc.collect()
        self._stop = stop
        self._ask(at, stop)
        self._at = at
        self._ahead.restart(self._download)
        bits = min(self._bits, _PATCH_BITS) if jobs[i] & 1 else self._bits
        self._gzip = Gzip(self._ahead, (bits, 0, 0))

    def _ask(self, at, stop):
        """Go on with the bytes from at up to stop, which is behind at."""
        download = self._download
        download.stop = stop
        response = download.response
        if response and response.status_code == 200 and download.done <= at:
            # The server has forgotten Range: what lies between would come once more.
            while download.done < at:
                download.readinto(self._buffer, min(len(self._buffer), at - download.done))
            return
        download.done = at
        download.fetch()
        if not download.done:  # marks.py tells the next wake
            raise Transient("can not download", "the server has another package by now")

    def _whole(self, path, _size, _base):
        tar = self._tar = self._tar or TarReader(self._gzip)
        while tar.next():
            if not tar.is_folder and "/" + tar.name == path:
                return tar
        raise Refused("manifest", path + " is missing")

    def _patch(self, path, size, base):
        found = sums_of(path, self._buffer, self._feed)[0]
        _check(int.from_bytes(found[:4], "little") == base, path)
        length = record(self._gzip)
        self._file = open(path, "rb")
        return Patched(self._gzip, length, self._file, path, size)


def _check(same, path):
    # The application may write to a file between the look at all and its turn.
    if not same:
        raise Transient("can not apply", path + " has changed meanwhile")


def sums_of(path, buffer, feed):
    """(SHA-256, CRC-32) of a file; (b"", 0) where there is none any more."""
    digest = hashlib.sha256()
    sum_ = 0
    view = memoryview(buffer)
    try:
        with open(path, "rb") as file:
            while True:
                n = file.readinto(view)
                if not n:
                    return digest.digest(), sum_
                digest.update(view[:n])
                sum_ = crc32(view[:n], sum_)
                feed()
    except OSError as error:
        if error.args[0] not in _GONE:
            raise
        return b"", 0
