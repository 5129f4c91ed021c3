"""What a package may do, whatever else is right: its names, what they hold, and how much flash."""

import os
import sys

from micropython import const

from ..errors import Refused

# A package that could rewrite these could take the node from its owner, or its way back. The
# configuration's `ca` is protected as well, and from unsigned packages the keys are. A manifest
# is one only where it comes first.
_PROTECTED = const(("/.ota", "/ota.json", "/ota.sequence", "/.ota-manifest"))
_LONGEST_PATH = const(1024)
# The next boot runs these before it can repair anything.
_BOOT_PATH = const(("/boot.py", "/ota/", "/lib/ota/"))
_BLOCK = const(4096)
# Blocks that must stay free: the journal's and the folders' own growth, and what renaming needs to
# rewrite folders; an install that began must never find flash full.
_RESERVE = const(12)
_FOLDER = const(2)
# What the install adds to folders by moving entries there: a block for so many bytes of them. A
# staged member is called `7`; it takes the space for its own name only when it gets it.
_GROWTH = const(768)
_INLINE = const(128)
_ENTRY = const(40)


def clean_path(name):
    """The absolute path on flash for a name in an archive.

    name: str; `./` and a leading `/` mean the root. Raises Refused for what leaves the root.
    """
    # In bytes: each new str is looked for among all names that there are.
    path = b""
    raw = b"/" + name.encode()
    # In most nothing has to be looked at part by part.
    plain = not (b"//" in raw or b"/." in raw or raw[-1] == 47 or len(raw) > 255)
    for part in (raw[1:],) if plain else raw.split(b"/"):
        if part == b"" or part == b".":
            continue
        if part == b"..":
            raise Refused("can not apply", "a path leaves the root")
        if len(part) > 255:
            raise Refused("can not apply", "a name is longer than 255 bytes")
        if min(part) < 32 or b"\\" in part or b"\x7f" in part:
            raise Refused("can not apply", "a name has a character not allowed in it")
        path += b"/" + part
    if len(path) > _LONGEST_PATH:
        raise Refused("can not apply", "a path is longer than %d bytes" % _LONGEST_PATH)
    return path.decode() or "/"


def check_path(path, more, is_folder=False):
    """Raise Refused when path is protected, or a file where the folder of a protected one belongs.

    more: list of further protected paths.
    """
    size = len(path)
    for paths in _PROTECTED, more:
        for protected in paths:
            # No path + "/": each new str is looked for among all names that there are.
            end = len(protected)
            if (path.startswith(protected) and path[end : end + 1] in ("", "/")) or (
                not is_folder and protected.startswith(path) and protected[size : size + 1] == "/"
            ):
                raise Refused("can not apply", "protected path " + path)


def on_boot_path(path):
    """True when the next boot runs this file before it can repair anything."""
    for start in _BOOT_PATH:
        if path == start or (start[-1] == "/" and path.startswith(start)):
            return True
    return False


def check_content(path, staged):
    """Raise Refused when what is staged for path could not be loaded by this interpreter."""
    if path.endswith(".mpy"):
        _check_mpy(path, staged)
    elif path.endswith(".py") and on_boot_path(path):
        from .source import check_source

        check_source(path, staged)


def _check_mpy(path, new):
    """Raise Refused when this interpreter does not load this file (py/persistentcode.c)."""
    ours = getattr(sys.implementation, "_mpy", 0)
    with open(new, "rb") as file:
        header = file.read(4)
    if len(header) < 4 or header[0] != 77:
        raise Refused("can not apply", "incompatible .mpy: %s is none" % path)
    arch = header[2] >> 2 & 0x2F
    native_differs = arch != ours >> 10 & 0x2F or header[2] & 3 != ours >> 8 & 3
    # The last byte is how many bits the compiler took for a small integer.
    small_int_fits = not header[3] or sys.maxsize >> header[3] - 1
    if header[1] != ours & 0xFF or (arch and native_differs) or not small_int_fits:
        raise Refused("can not apply", "incompatible .mpy: " + path)


def free_blocks(uncounted=0):
    """Free blocks of flash, of 4096 bytes, and so many that littlefs takes for used."""
    info = os.statvfs("/")
    free = info[3]
    if free > info[2]:
        # A full littlefs may count more used blocks than there are, and wraps round below zero.
        free -= 1 << 32
    return max(0, (free + uncounted) * info[0] // _BLOCK)


def enough_for(size):
    """True when `size` bytes, an archive's, are free. What it holds is counted as it arrives."""
    return (free_blocks() - _RESERVE) * _BLOCK >= size


class Space:
    """Free blocks while a package is staged: less what is written, and what the install will take.

    All but count() raise Refused where the reserve would be eaten into.
    """

    def __init__(self):
        self.free = 0
        self._promised = 0  # blocks that only the install will use
        self._growth = 0
        self.folders = 0
        self.count()

    def count(self):
        """Ask the filesystem again. It walks all of flash for that."""
        # It counts the blocks of a folder twice.
        self.free = free_blocks(_FOLDER * self.folders) - self._promised

    def take(self, blocks):
        """Count blocks as used."""
        if self.free - blocks < _RESERVE:
            # The running count is too high (littlefs keeps tiny files inside their folder);
            # asking takes long, so only when it matters.
            self.count()
            if self.free - blocks < _RESERVE:
                raise Refused("not enough space", "%d blocks are free" % max(0, self.free))
        self.free -= blocks

    def file(self, size):
        """A file of size bytes will be written."""
        # littlefs keeps some pointers in each block; one more for the journal and the folders.
        self.take(size // (_BLOCK - 16) + 1)

    def folder(self):
        """A folder will be made, in which members wait."""
        self.take(_FOLDER)
        self.folders += 1

    def promise_entry(self, path, size):
        """The install will add an entry of path's name, of a file of size bytes, to its folder."""
        self._growth += len(path.encode()) - path.rfind("/") + min(size, _INLINE) + _ENTRY
        blocks = self._growth // _GROWTH
        self._growth %= _GROWTH
        self._promise(blocks)

    def _promise(self, blocks):
        self.take(blocks)
        self._promised += blocks
