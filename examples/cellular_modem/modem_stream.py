"""A modem's own connections, shaped as umqtt.simple and the agent want them.

The driver of the modem is yours. It is asked for `open(host, port, tls)`, which returns a number,
and `send(n, data)`, `receive(n, most)` (bytes, b"" for none yet), `is_open(n)` and `close(n)`, as
the AT commands of such modems are. With tls it has to verify the server's certificate and name.
"""

import io
import time

_WAIT_MS = 20000
_ETIMEDOUT = 110


class ModemSocket(io.IOBase):
    """One connection, with the methods of a socket that are needed."""

    def __init__(self, modem, tls=False):
        self._modem = modem
        self._tls = tls
        self._number = None
        self._blocking = True
        self._ahead = b""

    def connect(self, address):
        """Connect to (host, port). Raises OSError."""
        self._number = self._modem.open(address[0], address[1], self._tls)

    def setblocking(self, blocking):
        """Whether a read waits."""
        self._blocking = blocking

    def settimeout(self, timeout_s):
        """None and more than 0: reads wait."""
        self._blocking = timeout_s != 0

    def ioctl(self, request, argument):
        """As select.poll() asks: what of argument is ready."""
        if request != 3:  # MP_STREAM_POLL
            return -22
        ready = argument & 4
        if argument & 1 and (self._fill() or not self._modem.is_open(self._number)):
            ready |= 1
        return ready

    def readinto(self, buffer, n=None):
        """Read what is there; None for nothing yet (when not blocking), 0 at the end."""
        n = min(n or len(buffer), len(buffer))
        give_up = time.ticks_add(time.ticks_ms(), _WAIT_MS)
        while not self._fill():
            if not self._modem.is_open(self._number):
                return 0
            if not self._blocking:
                return None
            if time.ticks_diff(give_up, time.ticks_ms()) < 0:
                raise OSError(_ETIMEDOUT)
            time.sleep_ms(10)
        n = min(n, len(self._ahead))
        buffer[:n] = self._ahead[:n]
        self._ahead = self._ahead[n:]
        return n

    def read(self, n):
        """Read n bytes; fewer at the end; None for nothing yet (when not blocking)."""
        data = bytearray(n)
        done = 0
        while done < n:
            got = self.readinto(memoryview(data)[done:])
            if got is None and not done:
                return None
            if got == 0:
                break
            done += got or 0
        return bytes(data[:done])

    def readline(self):
        """Read up to and with the next line feed."""
        line = b""
        while not line.endswith(b"\n") and len(line) < 1024:
            c = self.read(1)
            if not c:
                break
            line += c
        return line

    def write(self, data, n=None):
        """Send all of it."""
        n = len(data) if n is None else n
        self._modem.send(self._number, bytes(memoryview(data)[:n]))
        return n

    def close(self):
        """Close it."""
        if self._number is not None:
            self._modem.close(self._number)
            self._number = None

    def _fill(self):
        if not self._ahead and self._number is not None:
            self._ahead = self._modem.receive(self._number, 1024)
        return self._ahead


class Sockets:
    """Stands where umqtt.simple looks for the module `socket`. tls: bool, by the modem."""

    def __init__(self, modem, tls):
        self._modem = modem
        self._tls = tls

    def socket(self, *_):
        """A connection that is not open yet."""
        return ModemSocket(self._modem, self._tls)

    def getaddrinfo(self, host, port, *_):
        """The modem knows names."""
        return ((0, 0, 0, "", (host, port)),)


class Response:
    """What open_stream= has to return."""

    def __init__(self, status_code, raw):
        self.status_code = status_code
        self.raw = raw

    def close(self):
        """End the connection."""
        self.raw.close()


def get(modem, url):
    """GET an https URL through the modem. The URL holds the device key: it is not for any log."""
    host, _, path = url[len("https://") :].partition("/")
    name, _, port = host.partition(":")
    sock = ModemSocket(modem, tls=True)
    try:
        sock.connect((name, int(port or 443)))
        # HTTP/1.0: the body ends with the connection, and has no chunks. The agent counts bytes.
        sock.write(("GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n" % (path, host)).encode())
        status = int(sock.readline().split(b" ")[1])
        while sock.readline() not in (b"\r\n", b""):
            pass
    except Exception:
        sock.close()
        raise
    return Response(status, sock)
