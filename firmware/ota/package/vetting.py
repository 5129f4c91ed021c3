"""What a package may do, whatever else is right: its names, what they hold, and how much flash.

And whether RAM will do for an update.
"""

import gc
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
# Each boot has to compile it, in whatever RAM is left.
_LARGEST_BOOT = const(16 * 1024)
_ON_TRIAL = const(4608)
_BLOCK = const(4096)
# Blocks that must stay free: the journal's and the folders' own growth, and what renaming needs to
# rewrite folders; an install that began must never find flash full.
_RESERVE = const(12)
# Where so many are free at the end by our own count, it is not asked how many others have used.
_PLENTY = const(128)
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
    parts = []
    for part in name.split("/"):
        if part == "" or part == ".":
            continue
        if part == "..":
            raise Refused("can not apply", "a path leaves the root")
        raw = part.encode()
        if len(raw) > 255:
            raise Refused("can not apply", "a name is longer than 255 bytes")
        if min(raw) < 32 or b"\\" in raw or b"\x7f" in raw:
            raise Refused("can not apply", "a name has a character not allowed in it")
        parts.append(part)
    path = "/" + "/".join(parts)
    if len(path.encode()) > _LONGEST_PATH:
        raise Refused("can not apply", "a path is longer than %d bytes" % _LONGEST_PATH)
    return path


def check_path(path, more, is_folder=False):
    """Raise Refused when path is protected, or a file where the folder of a protected one belongs.

    more: list of further protected paths.
    """
    inside = path + "/"
    for paths in _PROTECTED, more:
        for protected in paths:
            protected += "/"
            if inside.startswith(protected) or (not is_folder and protected.startswith(inside)):
                raise Refused("can not apply", "protected path " + path)


def check_runs(path):
    """Raise Refused for what would replace the source that MicroPython starts."""
    if path in ("/boot.mpy", "/main.mpy", "/boot_user.mpy"):
        raise Refused("can not apply", "nothing runs " + path)


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
        _check_source(path, staged)


def starts_recovery(new):
    """True when a new boot.py begins with the live one's code, up to what comes after recovery.

    One that fails before that could not be undone by anything on the node. And where the
    application gets its sys.path back it must not differ either: a boot without a transaction goes
    another way through these lines than one on trial, so no trial would find what is wrong. Only
    comment lines and empty ones may differ; what _code() can not be sure of is another code.
    """
    started = False
    try:
        live = open("/boot.py", "rb")
    except OSError:
        return False
    with live, open(new, "rb") as file:
        while True:
            line = _code(live)
            if not line or line != _code(file):
                return False
            started = started or b"recovery.boot()" in line
            if started and b"sys.path[:] = _path" in line:
                return True


def starts_itself(new):
    """True when this boot.py would run itself as /boot_user.py: one of ours of an earlier release.

    On trial that may end well, and in the boot after the confirm no main.py runs.
    """
    with open(new, "rb") as file:
        for line in file:
            if line.strip().startswith(b'execfile("/boot_user.py")'):
                return True
    return False


def _code(file):
    """The next line of code. Empty at the end, and where a line is not what it seems to be.

    MicroPython also ends a line at a lone CR, so that code can stand behind `# x`; and what looks
    like a comment is none in a string over several lines, or behind a backslash.
    """
    while True:
        line = file.readline()
        text = line[:-1]
        if line[-1:] != b"\n" or min(text or b" ") < 32 or max(text or b" ") > 126:
            return b""
        text = text.strip()
        if text and text[0] != 35:
            plain = not (b'"""' in text or b"'''" in text or text.endswith(b"\\"))
            return line if plain else b""


def _check_source(path, new):
    """Raise Refused when the next boot could not even compile this file."""
    if path == "/boot.py" and os.stat(new)[6] > _LARGEST_BOOT:
        raise Refused("can not apply", "/boot.py is too large")
    try:
        with open(new) as file:
            compile(file.read(), path, "exec")
    except Exception as error:  # the compiler has more than SyntaxError, and memory may run out
        raise Refused("can not apply", "%s does not compile, %s" % (path, type(error).__name__))


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


def no_room(piece, need):
    """Why RAM is too small for an update, as str; None where it is not.

    piece, need: bytes that the last one took in one piece, and in all.
    """
    gc.collect()
    # What a boot on trial has in RAM, and others have not: names, the deadline, twice as much
    # where words have 64 bits.
    free = gc.mem_free() + (_ON_TRIAL << (sys.maxsize > 1 << 31))
    if free < need:
        return "out of memory: %d bytes are free, %d needed" % (free, need)
    try:
        bytearray(piece)
    except MemoryError:
        return "out of memory: no piece of %d bytes" % piece


class Space:
    """Free blocks while a package is staged: less what is written, and what the install will take.

    All but count() raise Refused where the reserve would be eaten into.
    """

    def __init__(self):
        self.free = 0
        self._promised = 0  # blocks that only the install will use
        self._growth = 0
        self._folders = 0
        self.count()

    def count(self):
        """Ask the filesystem again. It walks all of flash for that."""
        # It counts the blocks of a folder twice.
        self.free = free_blocks(_FOLDER * self._folders) - self._promised

    def check(self):
        """See to it that the reserve is there, whatever else has been written meanwhile."""
        if self.free < _PLENTY:
            self.count()
        self.take(0)

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
        self._folders += 1

    def promise_entry(self, path, size):
        """The install will add an entry of path's name, of a file of size bytes, to its folder."""
        self._growth += len(path.encode()) - path.rfind("/") + min(size, _INLINE) + _ENTRY
        blocks = self._growth // _GROWTH
        self._growth %= _GROWTH
        self._promise(blocks)

    def _promise(self, blocks):
        self.take(blocks)
        self._promised += blocks
