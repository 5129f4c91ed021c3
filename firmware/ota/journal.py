"""The journal while it is written: one line for each touched path, and which names it has."""

import binascii

from micropython import const

from .errors import Refused

_FILTER = const(2048)


class Journal:
    """The lines that recovery will follow; their format stands in recovery.py.

    A name twice, or one as file and as folder, would make it ambiguous. Remembering all names
    takes memory that grows with the package, so a filter of fixed size remembers that a name *may*
    have been seen, and then the journal itself is asked. Kinds of names are "f", a file, "m", a
    folder, and "t", one that is staged as such. Raises OSError when flash fails. Call close() in
    any case. `file` is open until then.
    """

    def __init__(self, path):
        self._path = path
        self._seen = bytearray(_FILTER)
        self.file = open(path, "w")

    def line(self, kind, place, depth, path):
        """Write a line."""
        self.file.write("%s %s %d %s\n" % (kind, place, depth, path))

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
        with open(self._path) as file:
            for line in file:
                line_kind, place, _, name = line[:-1].split(" ", 3)
                if kind == "t":
                    if line_kind == kind and name == path:
                        return place
                elif kind == "m":
                    if name.startswith(inside) or (line_kind in "mt" and name == path):
                        return line_kind
                elif line_kind == "u":
                    if name == unchanged:
                        return line_kind
                elif line_kind not in "mt" and name == path:
                    return line_kind
        return None


def _bits(path, kind):
    code = binascii.crc32(kind + path)
    return code & 0x3FFF, code >> 14 & 0x3FFF


def _sum(path):
    return "%08x" % binascii.crc32(path)
