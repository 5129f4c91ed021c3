"""A package with a manifest: what it lists, in its order, and nothing before it was verified."""

import hashlib
from binascii import hexlify

from micropython import const

from .. import drop
from ..errors import Refused
from .manifest import Lines, check, check_target, receive
from .vetting import clean_path

_MANIFEST = const("/.ota/manifest")
_FLOOR = const("/ota.sequence")
_BUFFER = const(512)
_KEY_SIZE = const(384)


class SignedReader:
    """Walks a package as TarReader does. Raises Refused where it is not what its manifest says.

    reader: a TarReader at the manifest, its first member; config: the node's. When it is made the
    manifest has been received, verified and found to be meant for this node; nothing else of the
    package has been looked at. Folders are passed over: nobody has signed them, and files bring
    their own. `signed`: by one of the node's keys; `sequence`: the package's if so, else None;
    `digest`: what the member's content must have, str of hex digits. Raises OSError when flash
    fails. Call close().

    begun: how many files an earlier wake has staged, where reader goes on behind them. The
    manifest that it has received is verified once more, on flash.
    """

    def __init__(self, reader, config, feed, begun=None):
        keys = config["keys"]
        if begun is None:
            manifest = receive(reader, reader.size, _MANIFEST, keys, bytearray(_BUFFER), feed)
        else:
            manifest = check(_MANIFEST, keys, feed)
        drop("package.signature")
        if config["require_signature"] and not manifest.signed:
            raise Refused("manifest", "not signed, and this node requires it")
        check_target(manifest, config["board"], floor())
        self.signed = manifest.signed
        self.sum = manifest.sum  # CRC-32 of what has come
        # If not, who can send a package can raise the floor above all that the owner will sign.
        self.sequence = manifest.sequence if manifest.signed else None
        self.name = self.digest = None
        self.size = 0
        self.is_folder = False
        self.source = reader
        self._left = 0
        self._hash = None
        # Other packages do not reach them at all.
        self._keys = [clean_path(key) for key in keys] if self.signed else ()
        ca = config["ca"]
        self._anchors = [clean_path(path) for path in ([ca] if type(ca) is str else ca)]
        self.lines = Lines(_MANIFEST)
        for _ in range(begun or 0):
            self.lines.next_file()

    def next(self):
        """Go to the next member; False behind the last one, when all that was listed has come."""
        listed = self.lines.next_file()
        while self.source.next():
            if not self.source.is_folder:
                break
        else:
            if listed:
                raise Refused("manifest", listed[0] + " is missing")
            return False
        self.begin(listed, self.source)
        return True

    def go_on(self):
        """Be inside the member that the reader is in; again() gets what was there before."""
        self.begin(self.lines.next_file(), self.source)

    def again(self, buffer, n):
        """Take n bytes of the member that an earlier wake has staged, in their order."""
        self._hash.update(memoryview(buffer)[:n])
        self._left -= n

    def begin(self, listed, reader):
        """Take a member, which another reader may bring, for what a line of the manifest lists."""
        self.source = reader
        self.name = reader.name
        if not listed or clean_path(self.name) != listed[0] or self.source.size != listed[1]:
            raise Refused("manifest", self.name + " is not what comes next")
        self.size = self._left = listed[1]
        self._is_key = listed[0] in self._keys
        if self._is_key and self.size != _KEY_SIZE:
            raise self._no_key()
        self.digest = hexlify(listed[2]).decode()
        self._hash = hashlib.sha256()
        if not self.size:
            self._compare()

    def readinto(self, buffer, n):
        """Read at most n bytes of the member; its last ones only if all of it is right."""
        n = self.source.readinto(buffer, n)
        if n:
            # What signature.is_key() asks for.
            first, last = self._left == self.size, self._left == n
            if self._is_key and ((first and buffer[0] < 128) or (last and not buffer[n - 1] & 1)):
                raise self._no_key()
            self._hash.update(buffer if n == len(buffer) else memoryview(buffer)[:n])
            self._left -= n
            if not self._left:
                self._compare()
        return n

    def deletions(self):
        """Iterate over the paths to delete; not before next() has returned False."""
        for path in self.lines.deletions():
            if path in self._keys:
                raise Refused("manifest", path + " is a key: bring another in its place")
            if path in self._anchors:  # another may take its place as well
                raise Refused("can not apply", "protected path " + path)
            yield path

    def close(self):
        """Close the manifest."""
        self.lines.close()

    def _no_key(self):
        # With the last key the node loses whoever could repair it, and does not notice on trial.
        return Refused("manifest", clean_path(self.name) + " would hold no key")

    def _compare(self):
        if hexlify(self._hash.digest()).decode() != self.digest:
            raise Refused("manifest", self.name + " has another content")


def floor():
    """The highest sequence number that this node has confirmed, 0 when there was none."""
    try:
        with open(_FLOOR) as file:
            return int(file.read())
    except ValueError:
        pass  # nothing of ours writes such a file: whoever did may want an older package taken
    except OSError as error:
        if error.args[0] == 2:  # ENOENT
            return 0
        if error.args[0] != 21:  # EISDIR
            raise
    raise Refused("manifest", _FLOOR + " is no number")
