"""A connection shaped as umqtt.simple wants its socket."""

import select
import time

from micropython import const

from .wire import Wire

_MOST_OUT = const(256)
# What umqtt.simple asks for in one read is a topic or a payload; no request is nearly this long.
_LONGEST_READ = const(2048)
_ECONNRESET = const(104)


class Link:
    """The control channel's connection, within limits (Limits).

    Small writes are gathered and leave together, before the next read at the latest. `skipped`
    counts the bytes of reads that were too long to be given out (longest, in bytes): who gets an
    empty result looks at it. `kind` is the first byte that was read after it was set to None: of
    a packet, its kind and flags. Reads and writes raise OSError.
    """

    def __init__(self, limits, longest=_LONGEST_READ):
        self.wire = Wire(limits)
        self.skipped = 0
        self.kind = None
        self._longest = longest
        self._ahead = None  # a byte that readable() has read; b"" for the end of the stream
        self._byte = bytearray(1)
        self._out = bytearray()
        self._after = b""

    def send_after(self, data):
        """Let data (bytes) follow whatever is sent next, in the same segment."""
        self._after = data

    def write(self, data, n=None):
        """Queue the first n (default: all) bytes of data for the next read or flush."""
        if isinstance(data, str):
            data = data.encode()  # an application's topic or payload
        if n is not None:
            data = memoryview(data)[:n]
        if len(self._out) + len(data) > _MOST_OUT:
            self.flush()
        if len(data) > _MOST_OUT:
            self.wire.send(memoryview(data))
        else:
            self._out.extend(data)
        return len(data)

    def flush(self):
        """Send what is queued."""
        if self._out:
            self._out.extend(self._after)
            self._after = b""
            try:
                self.wire.send(memoryview(self._out))
            finally:
                self._out[:] = b""

    def read(self, n):
        """Exactly n bytes; b"" for more than the longest, after having read past them."""
        self.flush()
        if n < 0:
            raise OSError(_ECONNRESET)  # a topic longer than its message: to a stream, "read all"
        if n > self._longest:
            from .request import skip

            return skip(self, n)
        data = bytearray(n)
        view = memoryview(data)
        at = 0
        while at < n:
            if self._ahead is not None:
                got = len(self._ahead)
                view[:got] = self._ahead
                self._ahead = None
            else:
                got = self.wire.receive(view[at:])
            if not got:
                raise OSError(_ECONNRESET)  # umqtt.simple would index into nothing
            at += got
        if self.kind is None:
            self.kind = data[0]
        return bytes(data)

    def readable(self, wait_ms):
        """True when something to read is there, or comes within wait_ms."""
        self.flush()
        end = time.ticks_add(time.ticks_ms(), wait_ms)
        while self._ahead is None:
            # Reading, not polling, tells: in TLS there are records that hold nothing for us, and
            # bytes that have left the socket already.
            n = self.wire.receive(self._byte, False)
            if n is not None:
                self._ahead = bytes(self._byte) if n else b""
                break
            left_ms = time.ticks_diff(end, time.ticks_ms())
            if left_ms <= 0:
                return False
            self.wire.wait(select.POLLIN, left_ms)
        return True

    def connect(self, *_):
        """What umqtt.simple asks of a new socket: this one is connected, and its limits stay."""
        return self

    setblocking = settimeout = connect

    def close(self):
        """Send what is queued and close."""
        try:
            self.flush()
        except OSError:
            pass
        self.wire.close()
