"""Streaming tar reader: what is in the archive, never where it goes.

Reads v7, ustar (POSIX.1-1988), GNU (long names, base-256 numbers) and PAX (POSIX.1-2001, `path`
and `size`) archives from a source with `readinto(buffer, n)`, with one 512-byte buffer of its own.
Anything but regular files and folders refuses the archive: a link could lead out of the root, and
no node needs a device. What macOS puts beside files is passed over: nobody there sees it.
"""

from micropython import const

from .errors import Refused

_BLOCK = const(512)
# A GNU header, or a record of PAX, longer than this is no name: a path has at most 1024 bytes.
_LONGEST_EXTENSION = const(4096)


def bad(detail):
    """The Refused for an archive that is damaged or unknown."""
    return Refused("can not apply", "bad archive, " + detail)


class TarReader:
    """Walks an archive from a source: `next()`, then `readinto()` until the member is read.

    After `next()` returned True: `name` (str, as the archive spells it), `is_folder` (bool) and
    `size` (bytes of content). Raises Refused on anything damaged, ambiguous or not allowed.
    """

    def __init__(self, source):
        self.name = None
        self.size = 0
        self.is_folder = False
        self._source = source
        self._header = bytearray(_BLOCK)
        self._left = 0  # bytes of content not read yet
        self._padding = 0
        self._global = {}

    def next(self):
        """Go to the next member, past what is unread of this one. False at the archive's end.

        After False the source has been read to its own end.
        """
        while self._next():
            # Attributes of a file (AppleDouble), and what the Finder keeps of a folder.
            name = "/%s/" % self.name
            if not ("/._" in name or "/.DS_Store/" in name or "/__MACOSX/" in name):
                return True
        return False

    def _next(self):
        override = dict(self._global)
        extended = ""  # the kinds of extended headers that this member has
        while self._next_header():
            header = self._header
            kind = chr(header[156])
            size = override.get("size")
            if size is None or kind in "xgLK":
                size = _number(header, 124, 136)
            self._left = size
            self._padding = -size % _BLOCK
            if kind in "xLK":
                # Programs differ in which of two names they take: one could hide from a check.
                if kind in extended or (kind != "K" and extended.strip("K")):
                    raise bad("two extended headers for one member")
                extended += kind
            if kind == "x":
                override.update(self._pax())
            elif kind == "g":
                if extended:
                    raise bad("a global header between an extended one and its member")
                self._global.update(self._pax())
                override.update(self._global)
            elif kind == "L":
                override["path"] = utf8(_until_nul(self._extension(size)))
            elif kind == "K":
                self._extension(size)  # the target of a link, which will be refused anyway
            elif kind in "0\x007":
                self._member(override, size)
                return True
            elif kind == "5":
                # Some programs announce a size with a folder; there is no content behind it.
                self._left = self._padding = 0
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
        if n > self._left:
            n = self._left
        if n:
            n = self._source.readinto(buffer, n)
            if not n:
                raise bad("ends inside a member")
            self._left -= n
        return n

    def _member(self, override, size):
        name = override.get("path")
        if name is None:
            name = _name(self._header)
        self.name = name
        self.size = size
        # v7 has no type for folders: a slash at the end says it.
        self.is_folder = name.endswith("/") and not size
        if name.endswith("/") and size:
            raise bad("a folder has content")

    def _next_header(self):
        self._skip()
        zero_blocks = 0
        while self._block():
            header = self._header
            if not any(header):
                zero_blocks += 1
                if zero_blocks == 2:
                    self._only_zeros_left()
                    return False
                continue
            if zero_blocks:
                raise bad("data after a zero block")
            _check_sum(header)
            return True
        # Cut between two members it looks whole, and half a package would be installed. What real
        # programs write ends in two zero blocks.
        raise bad("it has no end")

    def _block(self):
        """Fill the header buffer. False at the source's end, which must be on a block boundary."""
        n = self._source.readinto(self._header, _BLOCK)
        if not n:
            return False
        if n < _BLOCK:
            view = memoryview(self._header)
            while n < _BLOCK:
                more = self._source.readinto(view[n:], _BLOCK - n)
                if not more:
                    raise bad("ends inside a block")
                n += more
        return True

    def _only_zeros_left(self):
        """Read the source to its end. What a program that looks further would find is refused."""
        while True:
            n = self._source.readinto(self._header, _BLOCK)
            if not n:
                return
            if any(memoryview(self._header)[:n]):
                raise bad("data after its end")

    def _skip(self):
        left = self._left + self._padding
        self._left = self._padding = 0
        while left:
            n = self._source.readinto(self._header, min(left, _BLOCK))
            if not n:
                raise bad("ends inside a member")
            left -= n

    def _extension(self, size):
        """size bytes of an extended header, or all that is left of it."""
        if size > _LONGEST_EXTENSION:
            raise bad("extended header of %d bytes" % size)
        content = bytearray(min(size, self._left))
        view = memoryview(content)
        n = 0
        while n < len(content):
            n += self.readinto(view[n:], len(content) - n)
        return bytes(content)

    def _pax(self):
        """The records of a PAX header that matter here: {"path": str, "size": int}.

        Others are read past: macOS has attributes of 64 KB there, more than a node can hold.
        """
        found = {}
        ahead = b""
        while True:
            ahead += self._extension(_BLOCK - len(ahead))
            if not ahead:
                return found
            length = _decimal(ahead.split(b" ", 1)[0])
            key, equals, value = ahead[:length].partition(b" ")[2].partition(b"=")
            left = length - len(ahead)
            if length < 5 or not equals or left > self._left:
                raise bad("damaged PAX header")
            matters = key in (b"path", b"size")
            while left > 0:
                ahead = self._extension(left if matters else min(left, _BLOCK))
                length = len(ahead)
                left -= length
                if matters:
                    value += ahead
            if ahead[length - 1] != 10:
                raise bad("damaged PAX header")
            ahead = ahead[length:]
            if key == b"path":
                if b"\0" in value:
                    raise bad("damaged PAX header")
                # An empty value takes back a global one: the header's own holds again.
                found["path"] = utf8(value[:-1]) or None
            elif key == b"size":
                found["size"] = _decimal(value[:-1]) if value[1:] else None
            elif key.startswith(b"GNU.sparse."):
                raise bad("sparse file")


def _check_sum(header):
    stated = _number(header, 148, 156)
    if not stated:  # compressed bytes may well sum up to nothing
        raise bad("header check sum differs")
    # The sum is taken with its own field as eight spaces; some old programs summed signed bytes.
    total = sum(header) - sum(header[148:156]) + 256
    if total != stated:
        negative = sum(1 for b in header if b > 127) - sum(1 for b in header[148:156] if b > 127)
        if total - 256 * negative != stated:
            raise bad("header check sum differs")


def _number(header, start, end):
    """A header's number: octal text, or base-256 when the top bit is set (GNU)."""
    first = header[start]
    if first & 0x80:
        value = int.from_bytes(header[start + 1 : end], "big")
        if first != 0x80:
            raise bad("negative or huge number")
        return value
    text = _until_nul(bytes(header[start:end])).strip()
    if text.strip(b"01234567"):
        raise bad("number is not octal")
    return int(text or b"0", 8)


def _decimal(text):
    if not text or not text.isdigit() or len(text) > 10:
        raise bad("damaged PAX header")
    return int(text)


def _name(header):
    name = utf8(_until_nul(bytes(header[:100])))
    # "ustar\0" is POSIX, with a prefix; "ustar  \0" is GNU, which keeps other things there.
    if header[257:263] == b"ustar\0" and header[345]:
        name = utf8(_until_nul(bytes(header[345:500]))) + "/" + name
    return name


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
    # MicroPython lets forms that are too long (0xC0, 0xC1, 0xE080 to 0xE09F, 0xF080 to 0xF08F),
    # surrogates (0xEDA0 to 0xEDBF) and what is beyond Unicode pass (RFC 3629). Bytes are looked
    # at, not characters: each of those would be kept in RAM for good.
    for i in range(len(raw) - 1):
        pair = raw[i] << 8 | raw[i + 1]
        if (
            pair >> 9 == 0x60
            or pair >> 5 in (0x704, 0x76D)
            or pair >> 4 == 0xF08
            or pair >= 0xF490
        ):
            raise bad("name is not UTF-8")
    return text


def looks_like_header(block):
    """True when these 512 bytes are a tar header with a right check sum."""
    try:
        _check_sum(block)
    except Refused:
        return False
    return True
