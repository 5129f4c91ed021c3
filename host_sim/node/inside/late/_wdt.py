# machine.WDT: the host enforces it.

import time

import _sim
from micropython import const

_WDT = const(18)

# There is one, whoever asks for it; the last one to ask says how long it waits.
_timeout = _told = 0


class WDT:
    def __init__(self, id=0, timeout=5000):
        global _timeout, _told
        _timeout = timeout
        _told = time.ticks_ms()
        _sim.event(_WDT, timeout)

    def feed(self):
        # Tell the host at most 16 times a timeout; it allows for that.
        global _told
        now = time.ticks_ms()
        if time.ticks_diff(now, _told) * 16 >= _timeout:
            _told = now
            _sim.event(_WDT, _timeout)
