"""Only what this node lacks of a package, by its index (docs/patches.md): files, or patches.

Only in RAM for a package that has an index. Nothing that the index says is believed: it is not
signed. What comes out has to be what the manifest says, file by file.
"""

import gc
import hashlib
import os
from array import array
from binascii import crc32

from micropython import const

from ..errors import Refused, Transient
from ..recovery import exists
from ..tarfile_lite import TarReader, bad
from ..tarfile_lite import number as number_of
from .ahead import ReadAhead
from .inflate import Gzip
from .manifest import Lines

INDEX = "/.ota/index"
_MANIFEST = const("/.ota/manifest")
_FILE = const(0x8000)
_VERSION = const(1)
_BASE = const(6)
_BLOCK = const(512)
# Of the index: older agents read no longer header either.
_LONGEST = const(4096)
# How many files may come one by one. With more, nearly all is fetched in any case.
_MOST = const(256)
# Ranges of files that lie no farther apart are asked for as one: a request costs about as much.
_NEAR = const(512)


def choose(download, archive, tar, signed, staging, feed, left):
    """What walks the rest of a package with an index: a Wanted, or signed where all may come.

    archive, tar: as they are behind the manifest; left: what resume.look() says, or None.
    """
    if left:
        # What has been chosen is gone on with: nothing else knows where.
        bits, begun, most = left[2][0], left[3] + (left[-1] is not None), _LONGEST
    else:
        if not signed:
            raise bad("an index without a manifest")
        receive(tar)
        bits, begun, most = 0, 0, _MOST
        while archive.window >> bits > 1:
            bits += 1
    walk = Wanted(download, bits, signed, staging, tar.header, feed, most, begun)
    if left:
        return walk
    ahead = archive.source
    if ahead.failed:
        raise ahead.failed
    if walk.jobs is None:
        os.remove(INDEX)  # or the next wake would go on by it
        download.stop = download.request.size
        ahead.source, ahead.until = download, 0
        ahead.fill()
        return signed
    if archive.window:
        archive.forget()  # the old window has to go before the new one: two may not fit
    while download.readinto(tar.header, len(tar.header)):
        pass  # then the connection takes the next request
    return walk


def receive(tar):
    """Put the index on flash; the TarReader is in front of it. Raises Refused, OSError."""
    if not tar.next_header() or tar.header[156] != 103:  # "g"
        raise bad("its index is missing")
    # Where all is fetched in the end, its next() goes on behind this header.
    tar.left = number_of(tar.header, 124, 136)
    tar.padding = -tar.left % _BLOCK
    size = _record(tar)
    if size > _LONGEST:
        raise bad("its index is too long")
    buffer = tar.header
    with open(INDEX, "wb") as file:
        while size:
            n = tar.readinto(buffer, min(size, len(buffer)))
            if not n:
                raise bad("its index is damaged")
            file.write(buffer if n == len(buffer) else memoryview(buffer)[:n])
            size -= n


def _record(source):
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


class Wanted:
    """In the place of a TarReader: walks the manifest, and gets what the live tree has not.

    download: a Download of a server that knows Range; bits: of the window, as its logarithm;
    signed: its SignedReader, behind the files that are staged; staging: a Staging, which is told
    of what is there already; buffer: a bytearray to read through; most: how many files may come
    one by one; begun: how many are staged. For marks it is an archive as well, as open_archive()
    says. `jobs` is None where more files are wanted, so that all may come. Raises as these.
    """

    def __init__(self, download, bits, signed, staging, buffer, feed, most, begun):
        self._most = 3 * most
        self.window = 1 << bits
        self._buffer = buffer
        self._download = download
        self._bits = bits
        self._signed = signed
        self._staging = staging
        self._feed = feed
        self._gzip = self._tar = self._file = None
        self._number = begun
        self._stop = 0
        # Of each file that comes: twice its number, and one more for a patch; begin; end.
        self.jobs = array("I")
        self._next = 0
        self._plan(begun)

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
        self._close()
        signed = self._signed
        while True:
            listed = signed.lines.next_file()
            if not listed:
                return False
            jobs, at = self.jobs, self._next
            number = self._number
            self._number += 1
            if at < len(jobs) and jobs[at] >> 1 == number:
                self._next += 3
                fetch = self._patch if jobs[at] & 1 else self._whole
                signed.begin(listed, fetch(at, listed[0], listed[1]))
                return True
            # Of what is there now: others may have written to it since the look at all.
            digest, sum_ = sums_of(listed[0], self._buffer, self._feed)
            if digest != listed[2]:
                raise Transient("can not apply", listed[0] + " has changed meanwhile")
            self._staging.has(listed[0], sum_)

    def close(self):
        """Close what is open."""
        self._close()

    def _close(self):
        file, self._file = self._file, None
        if file:
            file.close()

    def _seek(self, at, stop):
        # The old window has to go before the new one.
        self._tar = self._gzip = None
        gc.collect()
        self._download.seek(at, stop)
        self._stop = stop
        self._gzip = Gzip(ReadAhead(self._download), (self._bits, 0, 0))

    def _whole(self, at, path, _size):
        jobs = self.jobs
        if not self._tar or jobs[at + 1] >= self._stop:
            stop = jobs[at + 2]
            for i in range(at + 3, len(jobs), 3):
                if jobs[i] & 1 or jobs[i + 1] > stop + _NEAR:
                    break
                stop = max(stop, jobs[i + 2])
            self._seek(jobs[at + 1], stop)
            self._tar = TarReader(self._gzip)
        tar = self._tar
        while tar.next():
            if not tar.is_folder and "/" + tar.name == path:
                return tar
        raise Refused("manifest", path + " is missing")

    def _patch(self, at, path, size):
        self._seek(self.jobs[at + 1], self.jobs[at + 2])
        length = _record(self._gzip)
        self._file = open(path, "rb")
        return Patched(self._gzip, length, self._file, path, size)

    def _plan(self, begun):
        """Look at what is there, and what of the package is wanted for it."""
        lines = Lines(_MANIFEST)
        try:
            with open(INDEX, "rb") as file:
                sum_ = sums_of(_MANIFEST, self._buffer, self._feed)[1]
                index = _Index(file, sum_, self._download.request.size)
                self._walk(lines, index, begun)
        finally:
            lines.close()

    def _walk(self, lines, index, begun):
        jobs = self.jobs
        open_ = 0  # the first of those whose end is not known: it is the next higher place
        for number in range(index.count):
            listed = lines.next_file()
            if not listed:
                raise bad("its index is another package's")
            places = index.next()
            open_ = self._end(open_, places[0][1])
            if number < begun or len(jobs) > self._most:
                continue
            base = self._base(listed, places)
            self._feed()
            if base == b"":
                continue
            i = 0
            while places[i][0] not in (base, b""):
                i += 1
            name, at = places[i]
            jobs.append(number << 1 | bool(name))
            jobs.append(at)
            jobs.append(0)
            if name:
                open_ = self._end(open_, places[i + 1][1])
        if lines.next_file():
            raise bad("its index is another package's")
        open_ = self._end(open_, index.number())
        index.check()
        if open_ < len(jobs):
            raise bad("its index is damaged")  # that of the last one would have no end
        if len(jobs) > self._most:
            self.jobs = None

    def _end(self, open_, place):
        jobs = self.jobs
        while open_ < len(jobs) and place > jobs[open_ + 1]:
            jobs[open_ + 2] = place
            open_ += 3
        return open_

    def _base(self, listed, places):
        """What a patch may begin with; b"" where the file is there already."""
        path, size, digest = listed
        if exists(path) != _FILE:
            return None
        if len(places) == 1 and os.stat(path)[6] != size:
            return None
        found = sums_of(path, self._buffer, self._feed)[0]
        return b"" if found == digest else found[:_BASE]


class _Index:
    def __init__(self, file, manifest, most):
        self._file = file
        self._most = most
        self._sum = 0
        self._at = 0
        if self._take(1)[0] != _VERSION or int.from_bytes(self._take(4), "little") != manifest:
            raise bad("its index is another package's")
        self.count = self._varint()

    def next(self):
        """(what it begins with, where) of each patch of the next file, and (b"", where) of it."""
        found = []
        for _ in range(self._varint()):
            name = self._take(_BASE)
            found.append((name, self.number()))
        found.append((b"", self.number()))
        return found

    def number(self):
        """The next place."""
        self._at += self._varint()
        if self._at > self._most:
            raise bad("its index is damaged")
        return self._at

    def check(self):
        """Raise Refused unless all of it was right."""
        stated = self._sum
        if int.from_bytes(self._take(4), "little") != stated or self._file.read(1):
            raise bad("its index is damaged")

    def _varint(self):
        return varint(self._take)

    def _take(self, n):
        piece = self._file.read(n)
        if len(piece) != n:
            raise bad("its index is damaged")
        self._sum = crc32(piece, self._sum)
        return piece


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


def sums_of(path, buffer, feed):
    """(SHA-256, CRC-32) of a file."""
    digest = hashlib.sha256()
    sum_ = 0
    view = memoryview(buffer)
    with open(path, "rb") as file:
        while True:
            n = file.readinto(view)
            if not n:
                return digest.digest(), sum_
            digest.update(view[:n])
            sum_ = crc32(view[:n], sum_)
            feed()


class Patched:
    """A file made of the old one by a patch, as TarReader has a member (tools/package/patches.py).

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
