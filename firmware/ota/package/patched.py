"""New files made of old ones: what a patch of a package says (docs/patches.md)."""

from ..tarfile_lite import bad


def record(source):
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
