"""Whether the next update would work: tried before a trial is confirmed, never in an idle check.

A package that changes nothing goes the way of a real one, through the same code, in the same
phases, with the same large pieces of memory, under the load of the application as it is now: a
version that can not be updated again must not be kept. Nothing is written to flash.
"""

import gc
import io
import os
from binascii import crc32

from micropython import const

from .. import drop
from ..errors import OtaError, name_of
from ..request import Request

# One of these every node has.
_MEMBERS = const(("boot.py", "main.py"))
_BLOCK = const(512)
# In a boot on trial memory is in more pieces than in others, and this code lies in between: that
# there is enough of it has been seen before.
_NO_MEMORY = const("ota: the rehearsal ran out of memory")


def rehearse(agent, piece):
    """What keeps this node from being updated again, as str; None when nothing does.

    piece: the largest piece of memory, in bytes, that the last package took.
    Raises OSError when flash fails.
    """
    if not any(name in _MEMBERS for name in os.listdir("/")):
        return None  # all of it is in the firmware, and nothing is at hand to pack
    try:
        # On a chip a machine.py on flash, a stub of somebody's tests, comes before the built-in
        # one: an install would not end in its reset, and the old version run on in the new tree.
        import machine

        if not hasattr(machine, "reset"):
            return "the module machine is not the chip's"
        del machine
        package = Package(agent, piece)
        try:
            # That a new boot.py, or what ran after it, has left the sign by which an agent knows
            # that there is a way back: else no package would ever be taken again.
            from .attempt import check_way_back

            check_way_back(agent)
            del check_way_back
            # What lies between would cost the large pieces of memory, and hide a broken version.
            gc.collect()
            package.secure()
            from ..arrival import stage

            stage(agent, package.request, package)
            del stage
            gc.collect()
        finally:
            package.close()
        # Not before: it would be in RAM beside what a real update has there.
        from .parts import load_all

        load_all()
    except MemoryError:
        print(_NO_MEMORY)
    except OtaError as error:
        if package.failed:
            raise package.failed  # download.py takes it for the network's
        reason = str(error)
        if "no TLS" not in reason:  # which has memory of its own
            return reason
        print(_NO_MEMORY)
    except OSError:
        raise  # flash's: says nothing of this version
    except Exception as error:
        return name_of(error)


class Package:
    """A response whose body is such a package: a tar of one file, in gzip where piece is not 0.

    TLS is set up as for a real one, but speaks to nobody. `failed` is the OSError of a flash that
    could not be read, or None.
    """

    status_code = 200
    failed = None

    def __init__(self, agent, piece):
        names = os.listdir("/")
        self._member = next(name for name in _MEMBERS if name in names)
        size = os.stat("/" + self._member)[6]
        bits = 0
        while piece >> bits > 1:
            bits += 1
        self._bits = max(9, bits) if piece else 0
        self._size = size
        self._tls = agent.open_stream is None and agent.config
        tar = _BLOCK + size + -size % _BLOCK + 2 * _BLOCK
        self._tar = tar
        kind = ".tar.gz" if piece else ".tar"
        self.request = Request("rehearsal", kind, tar + 30 if piece else tar)
        self._pieces = self._gzip() if piece else self._plain()
        self._piece = b""
        self.raw = self

    def secure(self):
        """Set up TLS before what asks and what reads is loaded, as a real update does."""
        if self._tls:
            # All that a connection needs, and what takes memory of the chip's own.
            from ..trust import secured, trust
            from ..wire import Wire

            context = trust(self._tls["ca"], "no trust")
            try:
                self._tls = context.wrap_socket(
                    Wire(None), server_hostname="localhost", do_handshake_on_connect=False
                )
            except OSError:
                raise MemoryError  # of TLS's own: nothing has been said on it yet
            del context, secured, trust
            drop("dial", "trust")  # as download.py does

    def open_stream(self, _url):
        """In the place of a connection to the platform."""
        if self._tls:
            from ..https import get

            del get
            drop("https")  # as fetch.py does
        return self

    def readinto(self, buffer, n):
        """As a response's."""
        if not self._piece:
            try:
                self._piece = next(self._pieces)
            except StopIteration:
                return 0
            except OSError as error:
                self.failed = error
                raise
        n = min(n, len(self._piece))
        buffer[:n] = self._piece[:n]
        self._piece = self._piece[n:]
        return n

    def close(self):
        """As a response's, and more than once."""
        tls, self._tls = self._tls, None
        if hasattr(tls, "close"):
            try:
                tls.close()
            except OSError:
                pass  # nobody is there

    def _plain(self):
        """The tar, in pieces (POSIX.1-1988)."""
        header = bytearray(_BLOCK)
        file = io.BytesIO(header)
        for at, text in (0, self._member), (124, "%011o" % self._size), (148, " " * 8), (156, "0"):
            file.seek(at)
            file.write(text)
        header = bytearray(file.getvalue())
        header[148:154] = b"%06o" % sum(header)
        header[154] = 0
        yield bytes(header)
        with open("/" + self._member, "rb") as file:
            while True:
                piece = file.read(_BLOCK)
                if not piece:
                    break
                yield piece + bytes(-len(piece) % _BLOCK)
        yield bytes(2 * _BLOCK)

    def _gzip(self):
        """The same in gzip (RFC 1952), stored in one block, with the word of our packager."""
        size = self._tar.to_bytes(2, "little")
        yield b"\x1f\x8b\x08\x04" + bytes(6) + b"\x05\x00OW\x01\x00" + bytes((self._bits,))
        yield b"\x01" + size + bytes(255 - byte for byte in size)
        total = 0
        for piece in self._plain():
            total = crc32(piece, total)
            yield piece
        yield total.to_bytes(4, "little") + self._tar.to_bytes(4, "little")
