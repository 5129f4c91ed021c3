"""The journal while it is written: one line for each touched path, and which names it has."""

import binascii
import json
import os

from micropython import const

from .errors import Refused

_PATH = const("/.ota/journal")
_FILTER = const(2048)


class Journal:
    """The lines that recovery will follow; their format stands in recovery.py.

    A name twice, or one as file and as folder, would make it ambiguous. Remembering all names
    takes memory that grows with the package, so a filter of fixed size remembers that a name *may*
    have been seen, and then the journal itself is asked. Kinds of names are "f", a file, "m", a
    folder, and "t", one that is staged as such. Raises OSError when flash fails. Call close() in
    any case. `file` is open until then. head: list, what recovery.py says of it; file: an open one
    in the place of the journal on flash, for what is not to be installed.
    """

    def __init__(self, head, file=None):
        self._seen = bytearray(_FILTER)
        self._sum = 0
        if not file:
            try:
                os.mkdir("/.ota")
            except OSError:
                pass  # it is there, or open() tells
            file = open(_PATH, "wb")
        self.file = file
        self._write(json.dumps(head) + "\n")

    def line(self, kind, place, depth, path, sum_="-"):
        """Write a line."""
        self._write("%s %s %d %s %s\n" % (kind, place, depth, sum_, path))

    def end(self):
        """Write the last line: no byte of the journal may change from here on."""
        self._write("=")
        self._write(self._sum.to_bytes(4, "little"))
        self.close()

    def _write(self, text):
        self._sum = binascii.crc32(text, self._sum)
        self.file.write(text)

    def unchanged(self, path):
        """Write that path has been seen and needs nothing, in few bytes."""
        self.line("u", "0", 0, _sum(path))

    def close(self):
        """Close the file, in whatever state."""
        self.file.close()

    def meet(self, path):
        """Remember a file. Raises Refused when the name was there already."""
        if self.knows(path, "f") or self.knows(path, "m"):
            raise Refused("can not apply", "the same name twice: " + path)
        self.mark(path, "f")

    def mark(self, path, kind):
        """Remember a name."""
        for bit in _bits(path, kind):
            self._seen[bit >> 3] |= 1 << (bit & 7)

    def may_know(self, path, kind):
        """False when the name was never marked; True when it may have been. Costs no flash."""
        for bit in _bits(path, kind):
            if not self._seen[bit >> 3] & 1 << (bit & 7):
                return False
        return True

    def knows(self, path, kind):
        """The kind of its line (or of one inside it) when it was marked and written, or None.

        Of kind "t", a folder that is staged as such, where it waits.
        """
        if not self.may_know(path, kind):
            return None
        self.file.flush()
        unchanged = _sum(path)
        inside = path + "/"
        with open(_PATH) as file:
            for line in file:
                line_kind, place, depth, _, name = line[:-1].split(" ", 4)
                if kind == "t":
                    if line_kind == "m" and depth == "1" and name == path:
                        return place
                elif kind == "m":
                    if name.startswith(inside) or (line_kind == "m" and name == path):
                        return line_kind
                elif line_kind == "u":
                    if name == unchanged:
                        return line_kind
                elif line_kind != "m" and name == path:
                    return line_kind
        return None


def _bits(path, kind):
    code = binascii.crc32(kind + path)
    return code & 0x3FFF, code >> 14 & 0x3FFF


def _sum(path):
    return "%08x" % binascii.crc32(path)
