# What firmware/ota asks of `select`, for sockets of the host.

from _host import ask
from micropython import const

POLLIN = 1
POLLOUT = 4

_POLL = const(44)  # operations.py has the same number


class poll:
    def register(self, sock, flag):
        self._sock, self._flag = sock, flag

    modify = register

    def ipoll(self, wait_ms):
        if ask(_POLL, self._sock.number, self._flag, str(wait_ms).encode())[0]:
            return ((self._sock, self._flag),)
        return ()
