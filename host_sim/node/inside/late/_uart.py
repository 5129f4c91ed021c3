# machine.UART, at whose other end is a modem of the host's (host_sim/modem).
#
# Each frame to the host says how late it is; the answer is what has arrived by then, and for how
# long nothing more will.

import socket
from struct import pack, unpack

import _virtual
from micropython import const

_OPEN = const(0)
_POLL = const(1)
_WRITE = const(2)
_PIN = const(3)
_FIFO = const(128)  # the chip's own buffer, behind the driver's

ports = {}  # of the host, by number of the UART; set at power-up
_lines = {}


class _Line:
    def __init__(self, port):
        self.held = b""
        self.size = 256 + _FIFO
        self.quiet_until = 0
        self.sock = socket.socket()
        self.sock.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])

    def exchange(self, kind, data=b""):
        if self.sock is None:
            return
        now = _virtual.now()
        room = max(0, self.size - len(self.held))
        self.sock.write(pack("<BIHH", kind, now, room, len(data)) + data)
        head = self.sock.read(6)
        if len(head) < 6:  # the modem is gone: the line is silent
            self.sock.close()
            self.sock = None
            return
        quiet, size = unpack("<IH", head)
        if size:
            self.held += self.sock.read(size)
        self.quiet_until = now + quiet

    def poll(self):
        if _virtual.now() >= self.quiet_until:
            self.exchange(_POLL)

    def take(self, most):
        self.poll()
        data = self.held[:most]
        self.held = self.held[most:]
        return data

    def wait(self, ms):
        # Go on to when something may come, but not by more than that; how long it took.
        if self.sock is not None:
            ms = min(ms, max(1, self.quiet_until - _virtual.now()))
        _virtual.go_on(ms)
        return ms


def pin(number, level):
    for line in _lines.values():
        line.exchange(_PIN, bytes((number, level)))


class UART:
    INV_TX = 1
    INV_RX = 2

    def __init__(self, id, *args, **options):
        if id not in (0, 1, 2):
            raise ValueError("UART(%d) does not exist" % id)
        if id not in _lines and id in ports:
            _lines[id] = _Line(ports[id])
        self._line = _lines.get(id)
        self._timeout = 0
        self.init(*args, **options)

    def init(self, baudrate=115200, bits=8, parity=None, stop=1, **options):
        # What this leaves out has no effect here: tx, rx, rts, cts, txbuf, timeout_char, invert.
        self._timeout = options.get("timeout", self._timeout)
        if self._line:
            if "rxbuf" in options:
                self._line.size = max(options["rxbuf"], _FIFO + 1) + _FIFO
            self._line.held = b""
            self._line.exchange(_OPEN, pack("<I", baudrate))

    def deinit(self):
        if self._line:
            self._line.held = b""

    def any(self):
        _virtual.ask()
        if not self._line:
            return 0
        self._line.poll()
        return len(self._line.held)

    def _read(self, most, end=None):
        # Until there are so many bytes, or one line, or nothing came for `timeout`.
        data, left = b"", self._timeout
        while self._line:
            held = self._line.take(most - len(data))
            if end is not None and end in held:
                at = held.index(end) + len(end)
                self._line.held = held[at:] + self._line.held
                return data + held[:at]
            data += held
            if len(data) >= most:
                return data
            if held:
                left = self._timeout
            if left <= 0:
                break
            left -= self._line.wait(left)
        if not self._line:
            _virtual.go_on(left)
        return data or None

    def read(self, n=-1):
        return self._read(n if n is not None and n >= 0 else 1 << 30)

    def readline(self, n=-1):
        return self._read(n if n is not None and n >= 0 else 1 << 30, b"\n")

    def readinto(self, buffer, n=-1):
        data = self._read(len(buffer) if n < 0 else min(n, len(buffer)))
        if data is None:
            return None
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def write(self, data):
        if isinstance(data, str):
            data = data.encode()
        if self._line:
            for at in range(0, len(data), 1024):
                self._line.exchange(_WRITE, bytes(data[at : at + 1024]))
        return len(data)

    def flush(self):
        pass

    def txdone(self):
        return True
