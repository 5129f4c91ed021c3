"""One bounded connection to a named host: TCP, verified TLS where asked, a limit on each wait.

Serves both the control channel (as the socket that umqtt.simple works on) and the download.
"""

import select
import socket
import time

from micropython import const

from .errors import Transient, name_of
from .wire import ETIMEDOUT, Wire

_OUT = const(256)
# What umqtt.simple asks for in one read is a topic or a payload; no request is nearly this long.
_LONGEST_READ = const(2048)
_LONGEST_SKIP = const(1 << 20)
_ECONNRESET = const(104)
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)


class Link:
    """A connected socket shaped as umqtt.simple wants it, and a stream for the download.

    limits: Limits; reason: of the Transient that open() raises; least: bytes that have to come in
    each wait_ms, against a peer that drips. Small writes are gathered and leave together, before
    the next read at the latest. `skipped` counts the bytes of reads that were too long to be given
    out: who gets an empty result looks at it. Reads and writes raise OSError.
    """

    def __init__(self, limits, reason="can not connect", least=0):
        self.skipped = 0
        self._longest_read = _LONGEST_READ
        self._limits = limits
        self._reason = reason
        self._least = least
        self._sock = None
        self._wire = None
        self._stream = None  # the wire, or TLS over it
        self._ahead = None  # a byte that readable() has read; b"" for the end of the stream
        self._byte = bytearray(1)
        self._out = bytearray(_OUT)
        self._used = 0
        self._after = None

    def open(self, host, port, context=None):
        """Connect to host:port; with context (ssl.SSLContext) verify chain and host name.

        Raises Transient with the reason; nothing has been sent then.
        """
        try:
            # The one wait that only the port can end.
            address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1]
        except (OSError, IndexError):  # some ports give an empty list
            # The host is not quoted: a redirect may have named it, and put anything there.
            raise Transient(self._reason, "the host's name is not known")
        wait_ms = self._limits.next_ms()
        if not wait_ms:
            raise Transient(self._reason, "the time for all of it is over")
        try:
            self._sock = sock = socket.socket()
        except OSError as error:
            raise Transient(self._reason, "no socket, " + name_of(error))
        try:
            sock.settimeout(wait_ms / 1000)
            try:
                # Writes are gathered here already; without this an acknowledgement of ours would
                # hold back the next message until the peer's delayed one.
                sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
            except (OSError, ValueError):
                pass  # not every port has it
            try:
                sock.connect(address)
            except OSError as error:
                raise Transient(self._reason, "the host does not answer, " + name_of(error))
            wire = self._take(sock)
            if context:
                wire.patient = True
                try:
                    self._stream = context.wrap_socket(wire, server_hostname=host)
                except (OSError, ValueError) as error:
                    from .trust import verdict

                    raise Transient(self._reason, verdict(error))
                wire.patient = False
        except BaseException:
            self.abort()
            raise

    def adopt(self, sock):
        """Work on an application's connected socket, until release()."""
        self._take(sock)
        self._longest_read = _LONGEST_SKIP  # its messages may be long

    def release(self):
        """Send what is queued and give the application's socket back, as it was."""
        try:
            self.flush()
        except OSError:
            pass  # the application will meet it as well
        sock, self._sock, self._stream = self._sock, None, None
        sock.setblocking(True)
        return sock

    def send_after(self, data):
        """Let data (bytes) follow whatever is sent next, in the same segment."""
        self._after = data

    def write(self, data, n=None):
        """Queue the first n (default: all) bytes of data for the next read or flush."""
        if n is None:
            n = len(data)
        if self._used + n > _OUT:
            self.flush()
            if n > _OUT:
                self._send(memoryview(data)[:n])
                return n
        self._out[self._used : self._used + n] = data if n == len(data) else memoryview(data)[:n]
        self._used += n
        return n

    def flush(self):
        """Send what is queued."""
        if self._used:
            after, self._after = self._after, None
            if after:
                self.write(after)
            used, self._used = self._used, 0
            self._send(memoryview(self._out)[:used])

    def read(self, n):
        """Exactly n bytes; b"" for more than any request has, after having read past them."""
        if n < 0:
            raise OSError(_ECONNRESET)  # a topic longer than its message: to a stream, "read all"
        if n > self._longest_read:
            self._skip(n)
            return b""
        data = bytearray(n)
        got = self.readinto(data, n) if n else 0
        if got < n:
            view = memoryview(data)
            while got < n:
                more = self.readinto(view[got:], n - got)
                if not more:
                    # umqtt.simple would index into nothing.
                    raise OSError(_ECONNRESET)
                got += more
        return bytes(data)

    def readinto(self, buffer, n):
        """Read up to n bytes into buffer, as soon as some are there; 0 at the stream's end."""
        if self._used:
            self.flush()
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            buffer[: len(ahead)] = ahead
            return len(ahead)
        if n < len(buffer):
            buffer = memoryview(buffer)[:n]
        while True:
            n = self._stream.readinto(buffer)
            if n is None:
                self._wait(select.POLLIN)
            elif n < 0:
                raise OSError(-n)
            else:
                return n

    def readline(self, limit):
        """One line with its end, of at most limit bytes."""
        line = bytearray()
        byte = self._byte
        while len(line) < limit and self.readinto(byte, 1):
            line += byte
            if byte[0] == 10:
                break
        return bytes(line)

    def readable(self, wait_ms):
        """True when something to read is there, or comes within wait_ms."""
        self.flush()
        if self._ahead is not None:
            return True
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        while True:
            # Reading, not polling, tells: in TLS there are records that hold nothing for us, and
            # bytes that have left the socket already.
            n = self._stream.readinto(self._byte)
            if n is not None:
                self._ahead = bytes(self._byte) if n > 0 else b""
                return True
            left = time.ticks_diff(end, time.ticks_ms())
            if left <= 0:
                return False
            self._wire.wait(select.POLLIN, left)

    def connect(self, address):
        """umqtt.simple calls this on its new socket: this one is connected already."""

    def setblocking(self, flag):
        """umqtt.simple calls this to wait without limit: the limit stays."""

    def settimeout(self, timeout_s):
        """umqtt.simple calls this to wait without limit: the limit stays."""

    def close(self):
        """Send what is queued and close."""
        try:
            if self._stream:
                self.flush()
        except OSError:
            pass
        self.abort()

    def abort(self):
        """Close without sending anything more."""
        stream, self._stream = self._stream, None
        sock, self._sock = self._sock, None
        self._used = 0
        for each in (stream, sock):
            if each and each is not self._wire:
                try:
                    each.close()
                except OSError:
                    pass
        self._wire = None

    def _take(self, sock):
        self._sock = sock
        self._wire = self._stream = Wire(sock, self._limits, self._least)
        return self._wire

    def _skip(self, n):
        if n > _LONGEST_SKIP:
            raise OSError(ETIMEDOUT)  # not worth the radio: as good as a dead broker
        self.skipped += n
        scratch = bytearray(256)
        while n:
            got = self.readinto(scratch, min(n, 256))
            if not got:
                raise OSError(_ECONNRESET)
            n -= got

    def _send(self, data):
        while data:
            n = self._stream.write(data)
            if n is None:
                self._wait(select.POLLOUT)
            elif n < 0:
                raise OSError(-n)
            else:
                data = data[n:]

    def _wait(self, flag):
        if not self._wire.wait_long(flag):
            raise OSError(ETIMEDOUT)
