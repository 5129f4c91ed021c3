"""One bounded connection to a named host: TCP, verified TLS where asked, a limit on each wait.

Serves both the control channel (as the socket that umqtt.simple works on) and the download.
"""

import socket

from micropython import const

from .errors import Transient, name_of

_OUT = const(256)
# What umqtt.simple asks for in one read is a topic or a payload; no request is nearly this long.
_LONGEST_READ = const(2048)
_LONGEST_SKIP = const(1 << 20)
_ECONNRESET = const(104)
_IPPROTO_TCP = const(6)
_TCP_NODELAY = const(1)
_ETIMEDOUT = const(110)


def trust(ca, reason):
    """An ssl.SSLContext that accepts only chains to the certificate in the file ca (DER or PEM).

    Raises Transient with this reason when there is no such file or it holds no certificate.
    """
    import ssl

    try:
        with open(ca, "rb") as file:
            anchor = file.read()
    except OSError:
        raise Transient(reason, "trust anchor %s is missing" % ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        if b"-----BEGIN CERTIFICATE-----" in anchor:
            import binascii

            # Not every build reads PEM.
            if anchor.count(b"-----BEGIN CERTIFICATE-----") > 1:
                raise Transient(reason, "trust anchor %s holds more than one certificate" % ca)
            anchor = anchor.split(b"-----BEGIN CERTIFICATE-----")[1].split(b"-----END")[0]
            anchor = binascii.a2b_base64(anchor)
        context.load_verify_locations(cadata=anchor)
    except (ValueError, OSError):
        raise Transient(reason, "trust anchor %s is not a certificate" % ca)
    return context


# What Mbed TLS says of a refused certificate, and what this library says. In its order of looking:
# a certificate can be wrong in several ways, and its signer matters most.
_VERDICTS = (
    ("not correctly signed", "certificate is not signed by the trust anchor"),
    ("does not match", "certificate is for another host"),
    ("has expired", "certificate has expired"),
    ("starts in the future", "certificate is not valid yet, or this node's clock is not set"),
)


def _verdict(error):
    text = str(error)
    for theirs, ours in _VERDICTS:
        if theirs in text:
            return ours
    if isinstance(error, OSError) and error.args and error.args[0] == -29184:
        return "server does not speak TLS"
    return "TLS failed, " + name_of(error)


class Link:
    """A connected socket shaped as umqtt.simple wants it, and a stream for the download.

    timeout_ms: limit of each single wait; reason: of the Transient that open() raises. Small
    writes are gathered and leave together, before the next read at the latest. `skipped` counts
    the bytes of reads that were too long to be given out: who gets an empty result looks at it.
    """

    def __init__(self, timeout_ms, reason="can not connect"):
        self.skipped = 0
        self._reason = reason
        self._timeout_s = timeout_ms / 1000
        self._sock = None
        self._stream = None
        self._out = bytearray(_OUT)
        self._view = memoryview(self._out)
        self._used = 0
        self._after = None

    def open(self, host, port, context=None):
        """Connect to host:port; with context (ssl.SSLContext) verify chain and host name.

        Raises Transient with the reason; nothing has been sent then.
        """
        try:
            address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1]
        except (OSError, IndexError):  # some ports give an empty list
            # The host is not quoted: a redirect may have named it, and put anything there.
            raise Transient(self._reason, "the host's name is not known")
        try:
            self._sock = self._stream = socket.socket()
        except OSError as error:
            raise Transient(self._reason, "no socket, " + name_of(error))
        try:
            self._sock.settimeout(self._timeout_s)
            try:
                # Writes are gathered here already; without this an acknowledgement of ours would
                # hold back the next message until the peer's delayed one.
                self._sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
            except (OSError, ValueError):
                pass  # not every port has it
            try:
                self._sock.connect(address)
            except OSError as error:
                raise Transient(self._reason, "the host does not answer, " + name_of(error))
            if context:
                try:
                    self._stream = context.wrap_socket(self._sock, server_hostname=host)
                except (OSError, ValueError) as error:
                    raise Transient(self._reason, _verdict(error))
        except BaseException:
            self.abort()
            raise

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
                self._send(data if n == len(data) else memoryview(data)[:n])
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
            self._send(self._view[:used])

    def read(self, n):
        """Exactly n bytes; b"" for more than any request has, after having read past them."""
        self.flush()
        if n < 0:
            raise OSError(_ECONNRESET)  # a topic longer than its message: to a stream, "read all"
        if n > _LONGEST_READ:
            self._skip(n)
            return b""
        data = self._stream.read(n)
        if data is None or len(data) < n:
            raise OSError(_ECONNRESET)  # ECONNRESET: umqtt.simple would index into nothing
        return data

    def readinto(self, buffer, n):
        """Read up to n bytes into buffer; 0 at the end of the stream."""
        self.flush()
        return self._stream.readinto(buffer, n)

    def readline(self, limit):
        """One line with its end, of at most limit bytes."""
        self.flush()
        return self._stream.readline(limit)

    def readable(self, wait_ms):
        """True when something to read is there, or comes within wait_ms."""
        import select

        poller = select.poll()
        poller.register(self._stream, select.POLLIN)
        return bool(poller.poll(wait_ms))

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
            if each:
                try:
                    each.close()
                except OSError:
                    pass

    def _skip(self, n):
        if n > _LONGEST_SKIP:
            raise OSError(_ETIMEDOUT)  # not worth the radio: as good as a dead broker
        self.skipped += n
        scratch = bytearray(256)
        while n:
            got = self._stream.readinto(scratch, min(n, 256))
            if not got:
                raise OSError(_ECONNRESET)
            n -= got

    def _send(self, data):
        if self._stream.write(data) != len(data):
            raise OSError(_ETIMEDOUT)
