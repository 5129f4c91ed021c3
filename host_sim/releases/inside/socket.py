# What firmware/ota asks of `socket`; the host has the real ones. They never block.

import sys

from _host import ask, take
from micropython import const

AF_INET = 2
SOCK_STREAM = 1

# operations.py has the same numbers.
_CONNECT, _SEND, _RECEIVE, _SHUT = const(40), const(41), const(42), const(43)
_EAGAIN = const(11)


def getaddrinfo(host, port, *_):
    return [(AF_INET, SOCK_STREAM, 6, "", (host, port))]


class socket:
    number = None

    def __init__(self, *_):
        pass

    def settimeout(self, _):
        pass

    setblocking = settimeout

    def setsockopt(self, *_):
        pass

    def connect(self, address):
        self.number = ask(_CONNECT, address[1], 0, address[0].encode())[0]

    def readinto(self, buffer, n=-1):
        size = len(buffer) if n < 0 else n
        try:
            got = ask(_RECEIVE, self.number, size)[1]
        except OSError as error:
            if error.args[0] == _EAGAIN:
                return None
            raise
        take(buffer, got)
        return got

    def write(self, data):
        try:
            return ask(_SEND, self.number, 0, data)[0]
        except OSError as error:
            if error.args[0] == _EAGAIN:
                return None
            raise

    def close(self):
        number, self.number = self.number, None
        if number is not None:
            ask(_SHUT, number)


sys.modules["usocket"] = sys.modules[__name__]  # umqtt.simple's name for it
