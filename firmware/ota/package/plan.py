"""What a node lacks of a package, by its index (docs/patches.md): files, or patches.

Only in RAM until that is known. Nothing that the index says is believed: it is not signed. What
comes out has to be what the manifest says, file by file.
"""

import os
from array import array
from binascii import crc32

from micropython import const

from ..recovery import exists
from ..tarfile_lite import bad, number
from .manifest import Lines
from .wanted import Wanted, digest, record, there, varint

_INDEX = const("/.ota/index")
_MANIFEST = const("/.ota/manifest")
_FILE = const(0x8000)
_VERSION = const(1)
_BASE = const(6)
_BLOCK = const(512)
# Of the index: older agents read no longer header either.
_LONGEST = const(4096)
# How many files may come one by one. With more, nearly all is fetched in any case.
_MOST = const(256)
# What a connection costs, in bytes: nearly all of it is TLS.
_CONNECTION = const(4096)
_OF_A_JOB = const(4)


def choose(download, archive, tar, signed, feed, left):
    """The Wanted that walks the rest of a package with an index; None where all may come.

    archive, tar: as they are behind the manifest; left: what resume.look() says, or None.
    """
    if left:
        # What has been chosen is gone on with: nothing else knows where.
        bits, begun, most, inside = left[2][0], left[3], _LONGEST, left[-1]
    else:
        if not (signed and archive.window):
            raise bad("an index without a manifest")
        tar.skip()  # the manifest's padding
        receive(tar)
        ahead = archive.source
        if ahead.failed:
            raise ahead.failed
        bits, begun, most, inside = 0, 0, _MOST, None
        while archive.window >> bits > 1:
            bits += 1
    size = download.request.size
    jobs = Plan(tar.header, feed, most, inside).made(size, begun)
    if not left and jobs and not download.response.stays:
        # Each would need a connection of its own.
        jobs = jobs if len(jobs) // _OF_A_JOB * _CONNECTION < size else None
    if jobs is None:
        os.remove(_INDEX)  # or the next wake would go on by it
        download.stop = size
        response = download.response
        if response and response.left == 0:
            download.fetch()  # on the same connection
        ahead.source, ahead.until = download, 0
        ahead.fill()
        return None
    if not left:
        archive.forget()  # the old window has to go before the new one: two may not fit
        while download.readinto(tar.header, len(tar.header)):
            pass  # then the connection takes the next request
    walk = Wanted(download, bits, signed, tar.header, feed, jobs, begun, inside)
    if inside:
        # Not a byte of what comes behind it: a server that does not know Range sends that once.
        download.stop = max(download.done, jobs[2])
    if not left:
        walk.begin()
    return walk


def receive(tar):
    """Put the index on flash; the TarReader is in front of it. Raises Refused, OSError."""
    if not tar.next_header() or tar.header[156] != 103:  # "g"
        raise bad("its index is missing")
    # Where all is fetched in the end, its next() goes on behind this header.
    tar.left = number(tar.header, 124, 136)
    tar.padding = -tar.left % _BLOCK
    size = record(tar)
    if size > _LONGEST:
        raise bad("its index is too long")
    buffer = tar.header
    with open(_INDEX, "wb") as file:
        while size:
            n = tar.readinto(buffer, min(size, len(buffer)))
            if not n:
                raise bad("its index is damaged")
            file.write(buffer if n == len(buffer) else memoryview(buffer)[:n])
            size -= n


class Plan:
    """Of each file that comes: twice its number, and one more for a patch; begin; end; and the
    first four bytes of the SHA-256 of what a patch begins with.

    buffer: a bytearray to read through; most: how many files may come one by one; inside: whether
    the first one is begun, and comes whole.
    """

    def __init__(self, buffer, feed, most, inside=None):
        self._inside = inside
        self._buffer = buffer
        self._feed = feed
        self._most = _OF_A_JOB * most
        self.jobs = array("I")

    def made(self, size, begun):
        """Those that the index has; None where more files are wanted, so that all may come.

        size: of the package; begun: how many files are staged. Raises Refused, OSError.
        """
        lines = Lines(_MANIFEST)
        try:
            with open(_INDEX, "rb") as file:
                sum_ = digest(_MANIFEST, self._buffer, self._feed)[1]
                index = _Index(file, sum_, size)
                self._walk(lines, index, begun)
        finally:
            lines.close()
        return self.jobs if len(self.jobs) <= self._most else None

    def _walk(self, lines, index, begun):
        jobs = self.jobs
        open_ = 0  # the first of those whose end is not known: it is the next higher place
        for n in range(index.count):
            listed = lines.next_file()
            if not listed:
                raise bad("its index is another package's")
            places = index.next()
            open_ = self._end(open_, places[0][1])
            if n < begun or len(jobs) > self._most:
                continue
            base = None if self._inside and n == begun else self._base(listed, places)
            self._feed()
            if base == b"":
                continue
            i = 0
            while places[i][0] not in (base, b""):
                i += 1
            name, at = places[i]
            jobs.append(n << 1 | bool(name))
            jobs.append(at)
            jobs.append(0)
            jobs.append(int.from_bytes(name[:4], "little"))
            if name:
                open_ = self._end(open_, places[i + 1][1])
        if lines.next_file():
            raise bad("its index is another package's")
        open_ = self._end(open_, index.number())
        index.check()
        if open_ < len(jobs):
            raise bad("its index is damaged")  # that of the last one would have no end

    def _end(self, open_, place):
        jobs = self.jobs
        while open_ < len(jobs) and place > jobs[open_ + 1]:
            jobs[open_ + 2] = place
            open_ += _OF_A_JOB
        return open_

    def _base(self, listed, places):
        """What a patch may begin with; b"" where the file is there already."""
        path, size, stated = listed
        if exists(path) != _FILE:
            return None
        if len(places) == 1 and os.stat(path)[6] != size and path != "/boot.py":
            return None
        found = there(path, stated, self._buffer, self._feed)[1]
        return b"" if found == stated else found[:_BASE] or None


class _Index:
    def __init__(self, file, manifest, most):
        self._file = file
        self._most = most
        self._sum = 0
        self._at = 0
        if self._take(1)[0] != _VERSION or int.from_bytes(self._take(4), "little") != manifest:
            raise bad("its index is another package's")
        self.count = self._number()

    def next(self):
        """(what it begins with, where) of each patch of the next file, and (b"", where) of it."""
        found = []
        for _ in range(self._number()):
            name = self._take(_BASE)
            found.append((name, self.number()))
        found.append((b"", self.number()))
        return found

    def number(self):
        """The next place."""
        self._at += self._number()
        if not 0 < self._at <= self._most:
            raise bad("its index is damaged")
        return self._at

    def check(self):
        """Raise Refused unless all of it was right."""
        stated = self._sum
        if int.from_bytes(self._take(4), "little") != stated or self._file.read(1):
            raise bad("its index is damaged")

    def _number(self):
        return varint(self._take)

    def _take(self, n):
        piece = self._file.read(n)
        if len(piece) != n:
            raise bad("its index is damaged")
        self._sum = crc32(piece, self._sum)
        return piece
