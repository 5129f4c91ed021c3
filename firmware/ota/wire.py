"""One bounded connection: TCP, or TLS over it, with a limit on each wait.

The socket itself never blocks: every wait is here, so that no peer, slow or silent, can make it
longer than the limits allow, in the middle of a packet or of a TLS handshake either.
"""

import io
import select
import time

from micropython import const

_ETIMEDOUT = const(110)


class Limits:
    """How long one contact may wait, and whom to tell that it goes on.

    wait_ms: the longest that nothing may move; total_ms: the longest that all of it may take;
    step: called when bytes have moved, and when a step is over, well or badly, and another begins
    (their number is bounded): a watchdog's `feed`; bool does nothing.
    """

    def __init__(self, wait_ms, total_ms, step=bool):
        self.wait_ms = wait_ms
        self.step = step
        self._total_ms = total_ms
        self.renew()

    def renew(self):
        """Begin again, with all the time."""
        self._end = time.ticks_add(time.ticks_ms(), self._total_ms)

    def left_ms(self):
        """What is left of all the time, in ms; 0 when it is over."""
        return max(0, time.ticks_diff(self._end, time.ticks_ms()))

    def next_ms(self):
        """The longest that the next wait may take, in ms."""
        return min(self.wait_ms, self.left_ms())


class Wire(io.IOBase):
    """A connection, which dial() or adopt() makes.

    limits: Limits; least: bytes that have to move in each limits.wait_ms, against a peer that
    drips.
    """

    def __init__(self, limits, least=0):
        self.limits = limits
        self._least = least
        self._moved = 0
        self._since = time.ticks_ms()
        self.patient = False
        self.sock = self.stream = None

    def adopt(self, sock):
        """Work on a socket that is connected already."""
        sock.setblocking(False)
        self.sock = sock
        self.stream = self
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def receive(self, buffer, wait=True):
        """Read into buffer as soon as something is there; 0 at the end. Raises OSError.

        wait: False returns None where nothing is there yet.
        """
        while True:
            n = self.stream.readinto(buffer)
            if n is None:
                if not wait:
                    return n
                self.wait(select.POLLIN)
            elif n < 0:
                raise OSError(-n)
            else:
                return n

    def send(self, data):
        """Send all of data, a memoryview. Raises OSError."""
        # Between two requests on one connection nothing moves.
        self._moved = 0
        self._since = time.ticks_ms()
        while data:
            n = self.stream.write(data)
            if n is None:
                self.wait(select.POLLOUT)
            elif n < 0:
                raise OSError(-n)
            else:
                data = data[n:]

    def close(self):
        """Close it, in whatever state."""
        stream, self.stream = self.stream, None
        sock, self.sock = self.sock, None
        for each in (stream, sock):
            if each and each is not self:
                try:
                    each.close()
                except OSError:
                    pass

    def wait(self, flag, wait_ms=None):
        """Wait for the socket, at most wait_ms; False when nothing has moved.

        Without wait_ms as long as the limits allow. Raises OSError then.
        """
        longest_ms = self.limits.next_ms() if wait_ms is None else wait_ms
        if longest_ms or wait_ms is not None:
            self._poller.modify(self.sock, flag)
            for _ in self._poller.ipoll(longest_ms):
                return True
        if wait_ms is None:
            raise OSError(_ETIMEDOUT)
        return False

    # As TLS wants a stream: bytes moved, None for "not yet", minus an errno for an error. C code
    # is between here and the caller, so that nothing is raised.

    def readinto(self, buffer):
        """Bytes from the socket into buffer."""
        return self._move(self.sock.readinto, buffer, select.POLLIN)

    def write(self, data):
        """As much of data to the socket as goes."""
        return self._move(self.sock.write, data, select.POLLOUT)

    def ioctl(self, request, argument):
        """Nothing: whoever opened the socket closes it."""
        return 0

    def _move(self, call, data, flag):
        limits = self.limits
        try:
            n = call(data)
            while n is None and self.patient:  # in the handshake TLS would ask in circles
                self.wait(flag)
                n = call(data)
        except OSError as error:
            return -abs(error.args[0])  # those of TLS are below zero
        if not n:
            return n
        limits.step()
        self._moved += n
        now = time.ticks_ms()
        if time.ticks_diff(now, self._since) >= limits.wait_ms:
            # A peer that drips could keep a node awake until its battery is empty.
            if self._moved < self._least:
                return -_ETIMEDOUT
            self._since = now
            self._moved = 0
        return n if limits.left_ms() else -_ETIMEDOUT
