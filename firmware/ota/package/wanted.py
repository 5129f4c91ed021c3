"""Only what a node lacks of a package with an index (docs/patches.md), as plan.py says."""

import gc
import hashlib
from binascii import crc32

from micropython import const

from ..errors import Refused, Transient
from ..tarfile_lite import TarReader, bad
from .ahead import ReadAhead
from .inflate import Gzip

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
    through; jobs: as plan.py makes them; begun: how many files are staged; inside: whether the
    first one is begun. `staging` has to be set: a Staging, which is told of what is there already.
    For marks it is an archive as well, as open_archive() says. Raises as these.
    """

    def __init__(self, download, bits, signed, buffer, feed, jobs, begun, inside=None):
        self.window = 1 << bits
        self._buffer = buffer
        self._download = download
        self._bits = bits
        self._signed = signed
        self.staging = None
        self._feed = feed
        self._gzip = self._tar = self._file = None
        self._number = begun + bool(inside) - 1  # of the last one
        self._ahead = ReadAhead(download)
        self._at = self._stop = 0
        self._jobs = jobs
        self._next = _OF_A_JOB if inside else 0

    # -- as an archive

    def ahead(self):
        """Between two files the place does not matter."""
        if self._file:
            return -1
        inside = self._tar and self._tar.left
        # Of what gzip has given since the last seek.
        self.sum, self.length = (self._gzip.sum, self._gzip.length) if inside else (0, 0)
        return self._gzip.ahead() if inside else 0

    # -- as a TarReader

    def next(self):
        """Go to the next file that is to be staged; False behind the last one."""
        signed = self._signed
        while True:
            listed = signed.lines.next_file()
            if not listed:
                return False
            name, size, stated = listed
            jobs, at = self._jobs, self._next
            self._number += 1
            if at < len(jobs) and jobs[at] >> 1 == self._number:
                self._next += _OF_A_JOB
                self._fetch(at)
                make = self._patch if jobs[at] & 1 else self._whole
                signed.begin(listed, make(name, size, jobs[at + 3]))
                return True
            path, found, sum_ = there(name, stated, self._buffer, self._feed)
            _check(found == stated, name)
            self.take(name, path, sum_)

    def take(self, name, path, sum_):
        """Take a file that is there already, at path, for the next member. sum_: its CRC-32."""
        staging = self.staging
        staging.check(name)
        staging.check(path)
        staging.places.missing(path[: path.rfind("/")])  # raises for another filesystem
        staging.journal.meet(path)
        staging.sum, staging.seed = sum_, 0
        staging.unchanged(path)
        staging.retire(name)

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
        self._tar = self._gzip = self._signed.source = None
        gc.collect()
        self._stop = stop
        self._ask(at, stop)
        self._at = at
        self._ahead.begin(self._download)
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
        found = digest(path, self._buffer, self._feed)[0]
        _check(int.from_bytes(found[:4], "little") == base, path)
        length = record(self._gzip)
        self._file = open(path, "rb")
        return Patched(self._gzip, length, self._file, path, size)


def _check(same, path):
    # The application may write to a file between the look at all and its turn.
    if not same:
        raise Transient("can not apply", path + " has changed meanwhile")


def there(path, stated, buffer, feed):
    """(path, SHA-256, CRC-32) of the file that may be a listed one, whose SHA-256 is stated.

    Another boot.py than ours is on a node as /boot_user.py (boot_file.py).
    """
    found = digest(path, buffer, feed)
    if path == "/boot.py" and found[0] != stated:
        own = digest("/boot_user.py", buffer, feed)
        if own[0] == stated:
            path, found = "/boot_user.py", own
    return (path,) + found


def digest(path, buffer, feed):
    """(SHA-256, CRC-32) of a file; (b"", 0) where there is none any more."""
    sha = hashlib.sha256()
    sum_ = 0
    view = memoryview(buffer)
    try:
        with open(path, "rb") as file:
            while True:
                n = file.readinto(view)
                if not n:
                    return sha.digest(), sum_
                sha.update(view[:n])
                sum_ = crc32(view[:n], sum_)
                feed()
    except OSError as error:
        if error.args[0] not in _GONE:
            raise
        return b"", 0


def record(source):
    """Be at the content of a record `<length> comment=…`, and return how long that is."""
    byte = bytearray(1)
    head = b""
    while not head.endswith(b"="):
        if len(head) > 16 or not source.readinto(byte, 1):
            raise bad("damaged PAX header")
        head += byte
    digits = head[:-9]
    if head[-9:] != b" comment=" or not digits.isdigit() or int(digits) <= len(head):
        raise bad("damaged PAX header")
    return int(digits) - len(head) - 1


def varint(take):
    """A number of seven bits to a byte, lowest first. take: called with 1, gives a byte."""
    value = shift = 0
    while shift < 29:
        byte = take(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value
        shift += 7
    raise bad("a number that is too large")


class Patched:
    """A file made of the old one by a patch, as TarReader has a member (package/patches.py).

    source: what gives the patch, of `length` bytes; old: the open file; path, size: of the new
    one. Raises Refused for a patch that does not fit.
    """

    is_folder = False

    def __init__(self, source, length, old, path, size):
        self.name = path[1:]
        self.size = self._left = size
        self._source = source
        self._patch = length
        self._old = old
        old.seek(0, 2)
        self._most = old.tell()
        self._at = self._step = 0
        self._fresh = False

    def readinto(self, buffer, n):
        """Read at most n bytes of the new file; 0 at its end."""
        n = min(n, self._left)
        if not n:
            if self._patch:
                raise bad("a patch goes on behind its file")
            return 0
        if not self._step:
            self._begin()
        n = min(n, self._step)
        got = self._take(buffer, n) if self._fresh else self._old.readinto(memoryview(buffer)[:n])
        if not got:
            raise bad("a patch ends early")
        self._step -= got
        self._left -= got
        if not self._left and self._patch:
            raise bad("a patch goes on behind its file")
        return got

    def _begin(self):
        step = varint(self._byte)
        self._fresh = step & 1
        self._step = step >> 1
        if not 0 < self._step <= self._left:
            raise bad("a patch makes more than its file")
        if not self._fresh:
            far = varint(self._byte)
            self._at += -((far + 1) >> 1) if far & 1 else far >> 1
            if not 0 <= self._at <= self._most - self._step:
                raise bad("a patch takes what is not there")
            self._old.seek(self._at)
            self._at += self._step

    def _byte(self, n):
        byte = bytearray(n)
        if not self._take(byte, n):
            raise bad("a patch ends early")
        return byte

    def _take(self, buffer, n):
        n = min(n, self._patch)
        got = n and self._source.readinto(buffer, n)
        self._patch -= got
        return got
