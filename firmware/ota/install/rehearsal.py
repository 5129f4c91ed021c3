"""Whether the next update would work: tried before a trial is confirmed, never in an idle check.

A package that changes nothing goes the way of a real one, through the same code, in the same
phases, with the same large pieces of memory, under the load of the application as it is now: a
version that can not be updated again must not be kept. Nothing is written to flash.
"""

import gc
import io
import os
import sys
from binascii import crc32

from micropython import const

from .. import drop
from ..errors import OtaError, Transient, name_of
from ..request import Request

# One of these every node has.
_MEMBERS = const(("boot.py", "main.py"))
_BLOCK = const(512)
# What an update loads beside the way of its bytes, by phases; and what the next contact needs. By
# all names that another module asks for when it is too late: a package may bring some modules of
# one release to the others of another.
_PHASES = const(
    (
        "request:ask_policy install.attempt:check_space install.attempt:count_attempt"
        " install.attempt:was_told",
        "package.vetting:enough_for package.vetting:free_blocks",
        "install.staging:Staging.finish install.staging:Staging.delete"
        " install.staging:Staging.leave_open",
        "install.journal:Journal.line install.journal:Journal.end install.journal:Places.make"
        " install.journal:Places.make_group",
        "install.ending:prepare install.ending:install install.ending:fail"
        " install.report:stand_before install.report:finish install.report:done",
        "request:read install.transaction:prepare install.transaction:commit"
        " install.transaction:discard install.transaction:forget install.transaction:save"
        " install.transaction:owed install.transaction:keep_sequence"
        " install.transaction:reset_after_flash_error",
        "recovery:install recovery:boot",
        "package.signed:SignedReader package.manifest:receive package.signature:verify",
        # A node that last took a .tar has not seen this one.
        "package.inflate:Gzip",
        "config:complete backoff:remember backoff:note backoff:seen serve:step local:install",
        "install.attempt:outcome_of install.attempt:end_attempt",
        # Where a request stands on flash each contact begins with it, and broken would end there.
        "install.report:put_back install.kept:has_ended",
    )
)


def rehearse(agent, stage, piece):
    """What keeps this node from being updated again, as str; None when nothing does.

    stage: cycle.stage; piece: the largest piece of memory, in bytes, that the last package took.
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
            from .transaction import check_way_back

            check_way_back(agent)
            del check_way_back
            # What lies between would cost the large pieces of memory, and hide a broken version.
            gc.collect()
            stage(agent, package.request, package)
            gc.collect()
        finally:
            package.close()
        for names in _PHASES:
            names = [name.split(":") for name in names.split(" ")]
            for home, name in names:
                module = __name__.replace("install.rehearsal", home)
                parts = name.split(".")
                __import__(module, None, None, (parts[0],))
                found = sys.modules[module]
                for part in parts:
                    found = getattr(found, part)
                found = None  # else its code stays in RAM
            drop(*[home for home, _ in names])
    except MemoryError:
        # In this boot memory is in more pieces than in others, and this code lies in between: that
        # there is enough of it has been seen before.
        print("ota: the rehearsal ran out of memory")
    except OtaError as error:
        if package.failed:
            raise package.failed  # download.py takes it for the network's
        return str(error)
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

    def open_stream(self, _url):
        """In the place of a connection to the platform."""
        if self._tls:
            # All that a connection needs, and what takes memory of the chip's own.
            try:
                from ..https import get
                from ..trust import trust
                from ..wire import Wire

                context = trust(self._tls["ca"], "no trust")
            except OSError as error:
                self.failed = error
                raise
            wire = Wire(None, "")
            self._tls = context.wrap_socket(
                wire, server_hostname="localhost", do_handshake_on_connect=False
            )
            del context, get, trust
            drop("https", "trust")  # as fetch.py does
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


def try_anchors(config, limits):
    """What is wrong with anchors that the update on trial has touched, as str, or None.

    A wrong root that is kept would let no package come any more to put it right.
    config: a complete configuration; limits: Limits of this contact. Raises Transient when the
    download's server can not be asked, OSError when flash fails.
    """
    from ..package.vetting import clean_path
    from ..recovery import lines, read_head

    paths = [config["ca"]] if type(config["ca"]) is str else config["ca"]
    anchors = [clean_path(path) for path in paths]
    # The copy that is whole: flash may have lost the other one.
    journal = read_head()[0]
    touched = False
    for line in lines(journal) if journal else ():  # to its end, which closes it
        touched = touched or line[4] in anchors
    if not touched:
        return None
    from ..https import address
    from ..trust import trust
    from ..wire import Wire

    try:
        context = trust(paths, "no trust", True)
    except Transient as error:
        return str(error)
    wire = Wire(limits, "can not download")
    try:
        wire.open(*address(config["server"]), context)
    except Transient as error:
        text = str(error).split(": ", 1)[1]
        if not text.startswith("certificate is not signed"):
            raise  # the trial goes on, and this wake counts as one that failed
        return text
    finally:
        wire.close()
    return None
