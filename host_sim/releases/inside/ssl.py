# What firmware/ota asks of `ssl`: the host has TLS, and speaks it over a stream of ours. It does
# verify, but with another library than a chip's: its errors have other texts.

from _host import ask, fetch, take
from micropython import const

PROTOCOL_TLS_CLIENT = 0
CERT_REQUIRED = 2

# operations.py has the same numbers.
_CONTEXT, _ANCHOR, _WRAP, _SHAKE = const(50), const(51), const(52), const(53)
_READ, _WRITE, _IN, _OUT = const(54), const(55), const(56), const(57)
_EAGAIN = const(11)
_PIECE = const(1024)


class SSLContext:
    def __init__(self, _protocol):
        self.verify_mode = 0
        self._number = ask(_CONTEXT)[0]

    def load_verify_locations(self, cadata):
        ask(_ANCHOR, self._number, 0, cadata)

    def wrap_socket(self, stream, server_hostname, do_handshake_on_connect=True):
        if self.verify_mode != CERT_REQUIRED:
            raise ValueError("not verified")
        number = ask(_WRAP, self._number, 0, server_hostname.encode())[0]
        wrapped = _Stream(stream, number)
        if do_handshake_on_connect:
            wrapped.shake()
        return wrapped


class _Stream:
    def __init__(self, stream, number):
        self._stream, self._number = stream, number

    def _try(self, *question):
        # The answer, or None when the peer has to say something first, and has not yet.
        while True:
            try:
                answer = ask(*question)
            except OSError as error:
                self._tell()  # an alert, perhaps
                if error.args[0] != _EAGAIN:
                    raise
            else:
                return answer
            buffer = bytearray(_PIECE)
            got = self._stream.readinto(buffer)
            if got is None:
                return None
            if got < 0:
                raise OSError(-got)
            ask(_IN, self._number, got, memoryview(buffer)[:got])

    def _tell(self):
        data = memoryview(fetch(_OUT, self._number))
        while data:
            done = self._stream.write(data)
            if done is not None:
                if done < 0:
                    raise OSError(-done)
                data = data[done:]

    def shake(self):
        # The stream waits by itself meanwhile.
        self._try(_SHAKE, self._number)
        self._tell()

    def readinto(self, buffer, n=-1):
        answer = self._try(_READ, self._number, len(buffer) if n < 0 else n)
        if answer is None:
            return None
        take(buffer, answer[1])
        return answer[1]

    def write(self, data):
        answer = self._try(_WRITE, self._number, 0, data)
        self._tell()
        return answer and answer[0]

    def close(self):
        pass
