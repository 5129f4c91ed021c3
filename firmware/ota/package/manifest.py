"""The signed manifest, a package's first member: what the rest may be, and for which node.

Nothing of it but one line is ever in RAM. docs/signing.md has the format.
"""

import hashlib
import sys
from binascii import a2b_base64, crc32, hexlify, unhexlify

from micropython import const

from ..errors import Refused
from ..tarfile_lite import utf8
from .vetting import clean_path, enough_for, free_blocks

#: The member's name.
NAME = ".ota-manifest"

_LONGEST = const(512 * 1024)
# Of lines, the line feed included. A signature has 512 characters of base64.
_LONGEST_LINE = const(401)
_SIGNATURE_LINE = const(523)
_LONGEST_BOARD = const(128)
_MOST = const(0x7FFFFFFF)


class Manifest:
    """What a manifest says of its package; None for what it does not say.

    sequence, mpy, requires: int; board: str; key: the id of the key that it names, str; signed:
    whether it was verified with that key.
    """

    def __init__(self):
        self.sequence = self.sum = 0
        self.board = self.mpy = self.requires = self.key = None
        self.signed = False


def receive(stream, size, path, keys, buffer, feed):
    """Write the manifest's `size` bytes to a file, check it there, and return its Manifest.

    stream: has `readinto(buffer, n)`; keys: paths of public keys, without any no signature is
    looked at; buffer: a bytearray to read through; feed: called for each piece and line. Raises
    Refused; OSError when flash fails.
    """
    if size > _LONGEST:
        raise _refused("longer than %d bytes" % _LONGEST)
    if not enough_for(size):
        # A few bytes of gzip become half a megabyte, and nobody has signed anything yet.
        raise Refused("not enough space", "%d blocks are free" % free_blocks())
    total = 0
    with open(path, "wb") as file:
        while size:
            n = stream.readinto(buffer, min(size, len(buffer)))
            if not n:
                raise _refused("ends early")
            piece = buffer if n == len(buffer) else memoryview(buffer)[:n]
            total = crc32(piece, total)
            file.write(piece)
            feed()
            size -= n
    manifest = check(path, keys, feed)
    manifest.sum = total
    return manifest


def check(path, keys, feed):
    """Check the manifest in a file and return its Manifest; arguments as for receive().

    What is on flash is what is checked, not what was on its way there.
    """
    digest = hashlib.sha256()
    lines = Lines(path, digest)
    try:
        while lines.next_file():
            feed()
        for _ in lines.deletions():
            feed()
        signature = lines.signature()
    finally:
        lines.close()
    manifest = lines.manifest
    if keys and signature:
        _verify(manifest.key, keys, digest.digest(), signature)
        manifest.signed = True
    return manifest


def check_target(manifest, board, floor):
    """Raise Refused when the package is for another node, or older than what this one confirmed.

    board: this node's, "" or None where it has none; floor: the highest sequence confirmed, 0 when
    none ever was. The floor itself is allowed: the same package may be requested again.
    """
    if manifest.board is not None and manifest.board != board:
        raise _refused("for board %s, this is %s" % (manifest.board, board or "none"))
    needs, ours = manifest.mpy, getattr(sys.implementation, "_mpy", 0)
    # The low byte is the version of the format. What is above it, if anything, is machine code's.
    if needs is not None and needs != (ours if needs >> 8 else ours & 0xFF):
        raise _refused("for .mpy %d, this is %d" % (needs, ours))
    if manifest.sequence < floor:
        raise _refused("sequence %d is older than %d" % (manifest.sequence, floor))
    if manifest.requires is not None and manifest.requires > floor:
        raise _refused("requires sequence %d, this is %d" % (manifest.requires, floor))


class Lines:
    """Walks a manifest in a file: `next_file()` until None, `deletions()`, then `signature()`.

    Every line is checked as it is met: Refused for the first that is malformed, missing or in
    another place. path: of the file; digest: a hash to be fed with all that is signed, or None.
    Call close() in any case.
    """

    def __init__(self, path, digest=None):
        self.manifest = Manifest()
        self._digest = digest
        self._number = 0  # of the line that was taken last
        self._file = open(path, "rb")
        try:
            self._read()
            self._header()
        except BaseException:
            self._file.close()
            raise

    def close(self):
        """Close the file."""
        self._file.close()

    def next_file(self):
        """(absolute path, size, SHA-256 as bytes) of the next file, None behind the last one."""
        line = self._take(b"file ")
        if line is None:
            return None
        try:
            digest, size, name = line.split(b" ", 2)
            if name != NAME.encode():
                return _path(name), _decimal(size), _hex(digest, 32)
        except (ValueError, Refused):
            pass
        raise self._malformed(0)

    def deletions(self):
        """Iterate over the absolute paths to delete; not before next_file() returned None."""
        while True:
            line = self._take(b"delete ")
            if line is None:
                return
            try:
                path = _path(line)
            except (ValueError, Refused):
                raise self._malformed(0)
            yield path

    def signature(self):
        """The signature, 384 bytes, or None; not before the deletions have been walked."""
        self._digest = None
        line = self._take(b"signature ", True)
        signature = None
        if line != b"none":
            try:
                signature = a2b_base64(line)
            except ValueError:
                raise self._malformed(0)
            # a2b_base64 overlooks what is no base64 at all; but 384 bytes need all that a line has
            # room for.
            if len(signature) != 384:
                raise self._malformed(0)
        if (signature is None) != (self.manifest.key is None):
            raise self._malformed(0)
        if self._line:
            raise self._malformed(1)
        return signature

    def _header(self):
        manifest = self.manifest
        try:
            if self._take(b"insigh-ota-manifest ", True) != b"1":
                raise ValueError
            key = self._take(b"key ", True)
            if key != b"none":
                _hex(key, 8)
                manifest.key = str(key, "utf-8")
            manifest.sequence = _decimal(self._take(b"sequence ", True))
            line = self._take(b"board ")
            if line is not None:
                manifest.board = _board(line)
            for name in ("mpy", "requires"):
                line = self._take(name.encode() + b" ")
                if line is not None:
                    setattr(manifest, name, _decimal(line))
        except ValueError:
            raise self._malformed(0)

    def _take(self, name, must=False):
        """What follows name on the next line. None, or Refused if it must, for another line."""
        line = self._line
        if not line.startswith(name):
            if must:
                raise self._malformed(1)
            return None
        if self._digest:
            self._digest.update(line)
        self._number += 1
        self._read()
        return line[len(name) : -1]

    def _read(self):
        line = self._file.readline(_SIGNATURE_LINE)
        if line and line[-1] != 10:
            raise self._malformed(1)
        if len(line) > _LONGEST_LINE and not line.startswith(b"signature "):
            raise self._malformed(1)
        self._line = line

    def _malformed(self, further):
        return _refused("malformed line %d" % (self._number + further))


def _verify(key, keys, digest, signature):
    """Raise Refused unless one of the files holds the key of that id, and the signature is its."""
    from .signature import is_key, key_id, verify

    detail = "unknown key " + key
    for path in keys:
        try:
            with open(path, "rb") as file:
                modulus = file.read(385)
        except OSError as error:
            if error.args[0] not in (2, 20, 21):  # ENOENT, ENOTDIR, EISDIR
                raise
            modulus = b""
        if not is_key(modulus):
            detail += ", no key in " + path
        elif key_id(modulus) == key.encode():
            if verify(modulus, digest, signature):
                return
            raise _refused("bad signature")
    raise _refused(detail)


def _refused(detail):
    return Refused("manifest", detail)


# Each value has one spelling only. These raise ValueError for any other.


def _decimal(raw):
    if not raw.isdigit() or len(raw) > 10 or b"%d" % int(raw) != raw or int(raw) > _MOST:
        raise ValueError
    return int(raw)


def _hex(raw, size):
    value = unhexlify(raw)
    if len(value) != size or hexlify(value) != raw:
        raise ValueError
    return value


def _board(raw):
    if not 0 < len(raw) <= _LONGEST_BOARD or any(c < 32 or c == 127 for c in raw):
        raise ValueError
    return _utf8(raw)


def _path(raw):
    name = _utf8(raw)
    path = clean_path(name)
    if not name or path != "/" + name:
        raise ValueError
    return path


def _utf8(raw):
    try:
        return utf8(raw)
    except Refused:
        raise ValueError
