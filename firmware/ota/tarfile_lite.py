"""Streaming tar reader: what is in the archive, never where it goes.

Reads v7, ustar (POSIX.1-1988), GNU (long names, base-256 numbers) and PAX (POSIX.1-2001, `path`
and `size`) archives from a source with `readinto(buffer, n)`, with one 512-byte buffer of its own.
Anything but regular files and folders refuses the archive: a link could lead out of the root, and
no node needs a device. What macOS puts beside files is passed over: nobody there sees it.
"""

from micropython import const

from . import drop
from .errors import Refused

_BLOCK = const(512)
# What a PAX header of most archives says, before each member.
_NOTHING = const(b"mtime atime ctime uid gid uname gname ")
# Ends of parts that are mostly zeros, as what is behind a name or instead of a link's, or not.
_ENDS = const((32, 64, 100, 157, 257, 265, 329, 345, 512))


def bad(detail):
    """The Refused for an archive that is damaged or unknown."""
    return Refused("can not apply", "bad archive, " + detail)


class TarReader:
    """Walks an archive from a source: `next()`, then `readinto()` until the member is read.

    After `next()` returned True: `name` (str, as the archive spells it), `is_folder` (bool) and
    `size` (bytes of content). `left` (bytes of content not read yet), `globals` and `ahead` (how
    many bytes of an extended header wait in `header`) are for pax.py, `left` and `padding` for
    again.py. `tick` is called for each piece of the zeros behind the end, of which GNU tar writes
    up to 10 KB. Between two calls of next() `header`, a bytearray of 512 bytes, is anybody's.
    Raises Refused on anything damaged, ambiguous or not allowed.
    """

    def __init__(self, source):
        self.name = None
        self.size = 0
        self.is_folder = False
        self._source = source
        self.header = bytearray(_BLOCK)
        self.left = 0
        self.padding = 0
        self.globals = {}
        self.tick = None
        self.ahead = 0

    def next(self):
        """Go to the next member, past what is unread of this one. False at the archive's end.

        After False the source has been read to its own end.
        """
        while self._next():
            # Attributes of a file (AppleDouble), and what the Finder keeps of a folder.
            name = self.name
            if not ("._" in name or ".DS_Store" in name or "__MACOSX" in name):
                return True
            name = "/%s/" % name
            if not ("/._" in name or "/.DS_Store/" in name or "/__MACOSX/" in name):
                return True
        return False

    def _next(self):
        override = dict(self.globals)
        extended = ""  # the kinds of extended headers that this member has
        while self.next_header():
            header = self.header
            kind = chr(header[156])
            size = override.get("size")
            if size is None or kind in "xgLK":
                size = number(header, 124, 136)
            self.left = size
            self.padding = -size % _BLOCK
            if kind in "xLK":
                # Programs differ in which of two names they take: one could hide from a check.
                if kind in extended or (kind != "K" and extended.strip("K")):
                    raise bad("two extended headers for one member")
                extended += kind
            if kind in "xgLK":
                if not (kind == "x" and 0 < size <= _BLOCK and self._says_nothing(size)):
                    self._extend(kind, override, extended)
            elif kind in "0\x007":
                self._member(override, size)
                return True
            elif kind == "5":
                # Some programs announce a size with a folder; there is no content behind it.
                self.left = self.padding = 0
                self._member(override, 0)
                self.is_folder = True
                return True
            else:
                raise bad("member of type %r is neither file nor folder" % kind)
        if extended:
            raise bad("ends after an extended header")
        return False

    def readinto(self, buffer, n):
        """Read at most n bytes of this member's content into buffer; 0 at its end.

        buffer: bytearray or memoryview of at least n bytes.
        """
        if n > self.left:
            n = self.left
        if n:
            n = self._source.readinto(buffer, n)
            if not n:
                raise bad("ends inside a member")
            self.left -= n
        return n

    def _says_nothing(self, size):
        """True when a PAX header is only about times and owners. Else it waits in `header`."""
        if not self._block():
            raise bad("ends inside a member")
        self.left = self.padding = 0
        header = self.header
        at = 0
        while at < size:
            # So much has the longest of these names; a copy of all may find no room. An end of
            # one of them means nothing either.
            length, _, record = bytes(header[at : at + 16]).partition(b" ")
            end = at + int(length) if length.isdigit() else 0
            key, stands, _ = record.partition(b"=")
            known = stands and key + b" " in _NOTHING
            if end < at + 5 or end > size or header[end - 1] != 10 or not known:
                self.left = self.ahead = size
                return False
            at = end
        return True

    def _extend(self, kind, override, extended):
        from .package.pax import extend

        extend(self, kind, override, extended)
        self.ahead = 0
        del extend
        drop("package.pax")  # loaded again for each, but not in RAM while the content comes

    def _member(self, override, size):
        name = override.get("path")
        if name is None:
            name = _name(self.header)
        self.name = name
        self.size = size
        # v7 has no type for folders: a slash at the end says it.
        self.is_folder = name.endswith("/") and not size
        if name.endswith("/") and size:
            raise bad("a folder has content")

    def next_header(self):
        """Go to the next header, past what is unread; False behind the last one."""
        self.skip()
        zero_blocks = 0
        while self._block():
            header = self.header
            if not any(header):
                zero_blocks += 1
                if zero_blocks == 2:
                    self._only_zeros_left()
                    return False
                continue
            if zero_blocks:
                raise bad("data after a zero block")
            check_sum(header)
            return True
        # Cut between two members it looks whole, and half a package would be installed. What real
        # programs write ends in two zero blocks.
        raise bad("it has no end")

    def _block(self):
        """Fill the header buffer. False at the source's end, which must be on a block boundary."""
        n = self._source.readinto(self.header, _BLOCK)
        if not n:
            return False
        if n < _BLOCK:
            view = memoryview(self.header)
            while n < _BLOCK:
                more = self._source.readinto(view[n:], _BLOCK - n)
                if not more:
                    if self.left:  # an extended header's content
                        raise bad("ends inside a member")
                    raise bad("ends inside a block")
                n += more
        return True

    def _only_zeros_left(self):
        """Read the source to its end. What a program that looks further would find is refused."""
        while True:
            n = self._source.readinto(self.header, _BLOCK)
            if not n:
                return
            if memoryview(self.header)[:n] != bytes(n):
                raise bad("data after its end")
            if self.tick:
                self.tick()

    def skip(self):
        """Read past the rest of this member: what comes next is another one's header."""
        left = self.left + self.padding
        self.left = self.padding = 0
        while left:
            n = self._source.readinto(self.header, min(left, _BLOCK))
            if not n:
                raise bad("ends inside a member")
            left -= n


def check_sum(header):
    """Raise Refused where the check sum of these 512 bytes is not that of a header."""
    stated = number(header, 148, 156)
    if not stated:  # compressed bytes may well sum up to nothing
        raise bad("header check sum differs")
    # The sum is taken with its own field as eight spaces; some old programs summed signed bytes.
    total = _sum(header) - sum(header[148:156]) + 256
    if total != stated:
        negative = sum(1 for b in header if b > 127) - sum(1 for b in header[148:156] if b > 127)
        if total - 256 * negative != stated:
            raise bad("header check sum differs")


def _sum(header):
    # Most of it is zeros, and comparing is quicker than adding.
    header = memoryview(header)
    total = at = 0
    for end in _ENDS:
        part = header[at:end]
        if part != bytes(end - at):
            total += sum(part)
        at = end
    return total


def number(header, start, end):
    """A header's number: octal text, or base-256 when the top bit is set (GNU)."""
    first = header[start]
    if first & 0x80:
        value = int.from_bytes(header[start + 1 : end], "big")
        if first != 0x80:
            raise bad("negative or huge number")
        return value
    text = bytes(header[start:end])
    # As nearly all are, and it is quicker.
    plain = text.rstrip(b"\0 ")
    if plain and not plain.strip(b"01234567"):
        return int(plain, 8)
    text = _until_nul(text).strip()
    if text.strip(b"01234567"):
        raise bad("number is not octal")
    return int(text or b"0", 8)


def _name(header):
    name = _until_nul(bytes(header[:100]))
    # "ustar\0" is POSIX, with a prefix; "ustar  \0" is GNU, which keeps other things there.
    if header[257:263] == b"ustar\0" and header[345]:
        name = _until_nul(bytes(header[345:500])) + b"/" + name
    return utf8(name)


def _until_nul(raw):
    return raw.split(b"\0", 1)[0]


def utf8(raw):
    """The text of bytes that are UTF-8 and nothing else. Raises Refused."""
    try:
        text = str(raw, "utf-8")
    except UnicodeError:
        raise bad("name is not UTF-8")
    if max(raw or b" ") < 128:
        return text
    from .package.utf8 import is_utf8

    if not is_utf8(raw):
        raise bad("name is not UTF-8")
    return text
