"""A socket that never waits longer than its limits, for plain use and under TLS.

The socket itself never blocks: every wait is here, so that no peer, slow or silent, can make it
longer than the limits allow, in the middle of a packet or of a TLS handshake either.
"""

import io
import select
import time

from micropython import const

ETIMEDOUT = const(110)


class Limits:
    """How long one contact may wait, and whom to tell that it goes on.

    wait_ms: the longest that nothing may move; total_ms: the longest that all of it may take;
    feed: called when bytes have moved (a watchdog's `feed`), or None.
    """

    def __init__(self, wait_ms, total_ms, feed=None):
        self.wait_ms = wait_ms
        self.feed = feed
        self._total_ms = total_ms
        self.renew()

    def renew(self):
        """Begin again, with all the time."""
        self._end = time.ticks_add(time.ticks_ms(), self._total_ms)

    def for_download(self):
        """The same, but that it ends early enough for a report to be sent after it."""
        left_ms = self.left_ms()
        return Limits(self.wait_ms, left_ms - min(2 * self.wait_ms, left_ms // 2), self.feed)

    def left_ms(self):
        """What is left of all the time, in ms; 0 when it is over."""
        return max(0, time.ticks_diff(self._end, time.ticks_ms()))

    def next_ms(self):
        """The longest that the next wait may take, in ms."""
        return min(self.wait_ms, self.left_ms())


class Wire(io.IOBase):
    """The stream of a connected socket, as TLS wants it: errors are returned, not raised.

    least: bytes that have to move in each wait_ms. readinto() and write() return the number of
    bytes, None for "not yet" (while patient: only after a wait), or minus an errno.
    """

    def __init__(self, sock, limits, least=0):
        sock.setblocking(False)
        self.patient = False
        self._sock = sock
        self._limits = limits
        self._least = least
        self._moved = 0
        self._since = time.ticks_ms()
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def readinto(self, buffer):
        """Read what is there, at most as much as buffer takes."""
        return self._move(self._sock.readinto, buffer, select.POLLIN)

    def write(self, data):
        """Write as much of data as goes."""
        return self._move(self._sock.write, data, select.POLLOUT)

    def ioctl(self, request, argument):
        """TLS asks for it; who made the socket closes it."""
        return 0

    def wait(self, flag, wait_ms):
        """Wait for the socket, at most wait_ms; False when nothing has moved."""
        self._poller.modify(self._sock, flag)
        for _ in self._poller.ipoll(wait_ms):
            return True
        return False

    def wait_long(self, flag):
        """Wait as long as the limits allow; False when nothing has moved."""
        wait_ms = self._limits.next_ms()
        return wait_ms > 0 and self.wait(flag, wait_ms)

    def _move(self, call, data, flag):
        try:
            n = call(data)
            while n is None and self.patient:
                if not self.wait_long(flag):
                    return -ETIMEDOUT
                n = call(data)
        except OSError as error:
            return -error.args[0]
        if not n:
            return n
        limits = self._limits
        if limits.feed:
            limits.feed()
        self._moved += n
        now = time.ticks_ms()
        if time.ticks_diff(now, self._since) >= limits.wait_ms:
            # A peer that drips could keep a node awake until its battery is empty.
            if self._moved < self._least:
                return -ETIMEDOUT
            self._since = now
            self._moved = 0
        return n if limits.left_ms() else -ETIMEDOUT
