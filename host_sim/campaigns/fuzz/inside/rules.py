# ruff: noqa: UP031 - MicroPython, as on the node
"""What must hold whatever the input: the judge, which shares no code with the agent."""

from ota.package.vetting import check_path, clean_path

# What the configuration adds: its `ca`.
PROTECTED = ["/ca.der"]


class Violation(Exception):
    """The agent let something through; the text says what."""


class Hang(BaseException):
    """The agent goes on asking. Not an Exception: nothing of the agent's may catch it."""


class Source:
    """`data` as a link gives it: in pieces of 1 to `most` bytes, then nothing.

    Every read takes a byte or is told of the end, so more reads than bytes is a loop.
    """

    def __init__(self, data, chance, most):
        self.at = 0
        self._data = data
        self._chance = chance
        self._most = most
        self._reads_left = len(data) + 32

    def readinto(self, buffer, n):
        """Read at most n bytes into buffer; 0 at the end."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise Hang("reads without end")
        if n < 1 or n > len(buffer):
            raise Violation("a read of %d bytes into a buffer of %d" % (n, len(buffer)))
        at = self.at
        n = min(n, 1 + self._chance.below(self._most), len(self._data) - at)
        buffer[:n] = self._data[at : at + n]
        self.at = at + n
        return n


def vetted(name):
    """The path that the agent would write a member of this name to. Raises its refusals."""
    path = clean_path(name)
    _check_shape(path)
    check_path(path, PROTECTED)
    raw = path.encode() + b"/"
    for protected in (b"/.ota/", b"/ota.json/", b"/ca.der/"):
        if raw.startswith(protected):
            raise Violation("a protected path passes: %r" % path)
    if clean_path(path) != path:
        raise Violation("not the same when cleaned again: %r" % path)
    return path


def _check_shape(path):
    raw = path.encode()
    if raw == b"/":
        return
    if not is_utf8(raw):
        raise Violation("not UTF-8: %r" % raw)
    if len(raw) > 1024:
        raise Violation("a path of %d bytes" % len(raw))
    if raw[0] != 47:
        raise Violation("not absolute: %r" % path)
    if raw.find(b"\\") >= 0 or min(raw) < 32 or raw.find(b"\x7f") >= 0:
        raise Violation("a character that is not allowed: %r" % path)
    framed = raw + b"/"
    for wrong in (b"//", b"/./", b"/../"):
        if framed.find(wrong) >= 0:
            raise Violation("not normalised: %r" % path)
    for part in raw.split(b"/"):
        if len(part) > 255:
            raise Violation("a name longer than 255 bytes: %r" % path)


def is_utf8(raw):
    """Whether these bytes are UTF-8 (RFC 3629), more strictly than MicroPython asks."""
    if not raw or max(raw) < 128:
        return True
    more = least = most = 0
    for byte in raw:
        if more:
            more -= 1
            if not least <= byte <= most:
                return False
            least, most = 0x80, 0xBF
        elif byte >= 0x80:
            if not 0xC2 <= byte <= 0xF4:
                return False
            more = 1 + (byte >= 0xE0) + (byte >= 0xF0)
            # No overlong forms, no surrogates, nothing beyond U+10FFFF.
            least = {0xE0: 0xA0, 0xF0: 0x90}.get(byte, 0x80)
            most = {0xED: 0x9F, 0xF4: 0x8F}.get(byte, 0xBF)
    return not more
