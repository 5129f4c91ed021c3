# machine.WDT: the host enforces it.

import time

import _sim
from micropython import const

_WDT = const(18)


class WDT:
    def __init__(self, id=0, timeout=5000):
        self._timeout = timeout
        self._told = time.ticks_ms()
        _sim.event(_WDT, timeout)

    def feed(self):
        # Tell the host at most 16 times a timeout; it allows for that.
        now = time.ticks_ms()
        if time.ticks_diff(now, self._told) * 16 >= self._timeout:
            self._told = now
            _sim.event(_WDT, self._timeout)
