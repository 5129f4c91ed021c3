# A resolver without a server: getaddrinfo of a name blocks, and callbacks and feeds wait with it.

import socket as _socket
import sys

import _sim
from micropython import const

_BLOCK = const(24)


class _Socket:
    def __getattr__(self, name):
        return getattr(_socket, name)

    def getaddrinfo(self, host, *rest):
        if host.replace(".", "").isdigit():
            return _socket.getaddrinfo(host, *rest)
        ms, answers = _sim.chip[3:]
        _sim.load("_timer").block(_BLOCK, ms)
        if not answers:
            raise OSError(-202)  # EAI_FAIL
        return _socket.getaddrinfo(host, *rest)


def install():
    sys.modules["socket"] = _Socket()
