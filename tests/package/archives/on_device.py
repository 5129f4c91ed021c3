# Runs inside MicroPython: read every archive of a pack. Prints a line of JSON for each member, and
# one for each archive's end: null, or the text of the error.
# PACK is a file of archives, each behind its length and a number that says in what pieces it
# arrives (four bytes each, big-endian).

# ruff: noqa: F821, PTH123

import binascii
import hashlib
import json

from ota.errors import OtaError
from ota.install.staging import Staging
from ota.package.archive import open_archive
from ota.tarfile_lite import TarReader


class Pieces:
    """One archive of the pack, in pieces as a link gives them: a byte, some, all there is."""

    def __init__(self, file, size, noise):
        self.left = size
        self._file = file
        self._noise = noise
        # A byte at a time is the hardest; for long archives only now and then, as it takes time.
        self._longest = (1 if size < 4000 else 3, 17, 600, 1500, 4096)[noise % 5]

    def readinto(self, buffer, n=0):
        self._noise = (self._noise * 1103515245 + 12345) & 0x7FFFFFFF
        n = min(n or len(buffer), self.left, 1 + (self._noise >> 8) % self._longest)
        if not n:
            return 0
        got = self._file.readinto(buffer, n)
        self.left -= got
        return got


def _nothing():
    pass


class Listing(Staging):
    """The policy of the real one; where that would write, this prints.

    It keeps nothing of a member: small objects all over the heap would leave no room for the
    window of the next gzip member.
    """

    def __init__(self, noise):
        self.count = 0
        self.sizes = 0  # their CRC-32
        self.protected = []
        self._feed = _nothing
        self._piece = (700, 512, 1024, 37)[noise % 4]

    def print(self, path, is_folder, size, digest):
        self.count += 1
        self.sizes = binascii.crc32(str(size), self.sizes)
        print(json.dumps([path, is_folder, size, digest]))

    def _add_folder(self, path):
        self.print(path, True, 0, None)

    def _add_file(self, path, member):
        digest = hashlib.sha256()
        left = member.size
        while True:
            n = member.readinto(BUFFER, self._piece)
            if not n:
                break
            digest.update(memoryview(BUFFER)[:n])
            left -= n
        if left:
            raise ValueError("size and content differ")
        self.print(path, False, member.size, binascii.hexlify(digest.digest()).decode())


BUFFER = bytearray(1024)


def read(source, listing):
    """Print all members. Returns the error's text, or None."""
    try:
        archive = open_archive(source)
        reader = TarReader(archive)
        while reader.next():
            before = listing.count
            listing.add(reader)
            if listing.count == before:
                listing.print("/", True, 0, None)  # the root itself, which the node has
        if archive.readinto(BUFFER, 512) or source.left:
            return "crash: not read to its end"
    except OtaError as error:
        return str(error)
    except Exception as error:
        return "crash: " + repr(error)
    return None


def skip(source):
    """The CRC-32 of all members' sizes, none of their content read."""
    reader = TarReader(open_archive(source))
    sizes = 0
    while reader.next():
        sizes = binascii.crc32(str(reader.size), sizes)
    return sizes


with open(PACK, "rb") as pack:
    while True:
        head = pack.read(8)
        if not head:
            break
        size = int.from_bytes(head[:4], "big")
        noise = int.from_bytes(head[4:], "big")
        start = pack.tell()
        listing = Listing(noise)
        error = read(Pieces(pack, size, noise), listing)
        if error is None and noise % 3 == 0:
            pack.seek(start)
            if skip(Pieces(pack, size, noise + 1)) != listing.sizes:
                error = "crash: skipping differs from reading"
        print(json.dumps(error))
        pack.seek(start + size)
