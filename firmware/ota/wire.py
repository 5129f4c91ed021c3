"""One bounded connection to a named host: TCP, verified TLS where asked, a limit on each wait.

The socket itself never blocks: every wait is here, so that no peer, slow or silent, can make it
longer than the limits allow, in the middle of a packet or of a TLS handshake either.
"""

import io
import select
import socket
import time

from micropython import const

from .errors import Transient, name_of

_ETIMEDOUT = const(110)
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)


class Limits:
    """How long one contact may wait, and whom to tell that it goes on.

    wait_ms: the longest that nothing may move; total_ms: the longest that all of it may take;
    feed: called when bytes have moved or a step has ended (a watchdog's `feed`), or None.
    """

    def __init__(self, wait_ms, total_ms, feed=None):
        self.wait_ms = wait_ms
        self.feed = feed
        self._total_ms = total_ms
        self.renew()

    def renew(self):
        """Begin again, with all the time."""
        self._end = time.ticks_add(time.ticks_ms(), self._total_ms)

    def step(self):
        """A step is over, well or badly, and another begins: their number is bounded."""
        if self.feed:
            self.feed()

    def left_ms(self):
        """What is left of all the time, in ms; 0 when it is over."""
        return max(0, time.ticks_diff(self._end, time.ticks_ms()))

    def next_ms(self):
        """The longest that the next wait may take, in ms."""
        return min(self.wait_ms, self.left_ms())


class Wire(io.IOBase):
    """A connection. limits: Limits; reason: of the Transient that open() raises; least: bytes that
    have to move in each limits.wait_ms, against a peer that drips.
    """

    def __init__(self, limits, reason, least=0):
        self._limits = limits
        self._reason = reason
        self._least = least
        self._moved = 0
        self._since = time.ticks_ms()
        self._patient = False
        self._sock = self._stream = None

    def open(self, host, port, context=None):
        """Connect to host:port; with context (ssl.SSLContext) verify chain and host name.

        Raises Transient with the reason; nothing has been sent then.
        """
        # Two waits in a row must not be one to the watchdog.
        self._limits.step()
        # The host is not quoted: a redirect may have named it, and put anything there.
        detail = "the host's name is not known"
        try:
            # The one wait that only the port can end.
            places = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        except OSError:
            places = ()
        try:
            for family, kind, protocol, _, address in places:  # some ports give an empty list
                self._limits.step()
                wait_ms = self._limits.next_ms()
                if not wait_ms:
                    detail = "the time for all of it is over"
                    break
                try:
                    self._sock = sock = socket.socket(family, kind, protocol)
                    sock.settimeout(wait_ms / 1000)
                    try:
                        # Small writes are gathered already; without this an acknowledgement of
                        # ours would hold back the next message until the peer's delayed one.
                        sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
                    except (OSError, ValueError):
                        pass  # not every port has it
                    sock.connect(address)
                    detail = None
                    break
                except OSError as error:
                    detail = "the host does not answer, " + name_of(error)
                    if not self._sock:
                        detail = "no socket, " + name_of(error)
                    self.close()
            if detail:
                raise Transient(self._reason, detail)
            self.adopt(sock)
            if context:
                self._patient = True
                try:
                    self._stream = context.wrap_socket(self, server_hostname=host)
                except (OSError, ValueError) as error:
                    from .trust import verdict

                    raise Transient(self._reason, verdict(error))
                self._patient = False
        except BaseException:
            self.close()
            raise

    def adopt(self, sock):
        """Work on a socket that is connected already."""
        sock.setblocking(False)
        self._sock = sock
        self._stream = self
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def receive(self, buffer):
        """Read into buffer as soon as something is there; 0 at the end. Raises OSError."""
        while True:
            n = self.receive_now(buffer)
            if n is not None:
                return n
            self._wait_or_raise(select.POLLIN)

    def receive_now(self, buffer):
        """Read what is there into buffer; None for nothing yet, 0 at the end. Raises OSError."""
        n = self._stream.readinto(buffer)
        if n is not None and n < 0:
            raise OSError(-n)
        return n

    def send(self, data):
        """Send all of data, a memoryview. Raises OSError."""
        while data:
            n = self._stream.write(data)
            if n is None:
                self._wait_or_raise(select.POLLOUT)
            elif n < 0:
                raise OSError(-n)
            else:
                data = data[n:]

    def close(self):
        """Close it, in whatever state."""
        stream, self._stream = self._stream, None
        sock, self._sock = self._sock, None
        for each in (stream, sock):
            if each and each is not self:
                try:
                    each.close()
                except OSError:
                    pass

    def wait(self, flag, wait_ms):
        """Wait for the socket, at most wait_ms; False when nothing has moved."""
        self._poller.modify(self._sock, flag)
        for _ in self._poller.ipoll(wait_ms):
            return True
        return False

    # As TLS wants a stream: bytes moved, None for "not yet", minus an errno for an error. C code
    # is between here and the caller, so that nothing is raised.

    def readinto(self, buffer):
        """Bytes from the socket into buffer."""
        return self._move(self._sock.readinto, buffer, select.POLLIN)

    def write(self, data):
        """As much of data to the socket as goes."""
        return self._move(self._sock.write, data, select.POLLOUT)

    def ioctl(self, request, argument):
        """Nothing: whoever opened the socket closes it."""
        return 0

    def _wait_or_raise(self, flag):
        wait_ms = self._limits.next_ms()
        if not wait_ms or not self.wait(flag, wait_ms):
            raise OSError(_ETIMEDOUT)

    def _move(self, call, data, flag):
        limits = self._limits
        try:
            n = call(data)
            while n is None and self._patient:  # in the handshake TLS would ask in circles
                self._wait_or_raise(flag)
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
