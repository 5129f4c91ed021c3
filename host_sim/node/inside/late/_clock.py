# `time` of a node whose time jumps: it slept, or was blocked, and no real time had to pass.
#
# Whoever has said `import time` finds the wrapper below; `from time import ticks_ms` of before the
# first jump keeps the function as it was.

import sys
import time as _time

import _sim
from micropython import const

import __main__

_LIGHT_SLEEP = const(23)
_SET = const(25)

_ahead = 0  # ms


class _Clock:
    def __getattr__(self, name):
        return getattr(_time, name)

    def ticks_ms(self):
        return _time.ticks_add(_time.ticks_ms(), _ahead)

    def ticks_us(self):
        return _time.ticks_add(_time.ticks_us(), _ahead * 1000)

    def time(self):
        return _time.time() + _ahead / 1000

    def time_ns(self):
        return _time.time_ns() + _ahead * 1000000

    def gmtime(self, secs=None):
        return _time.gmtime(int(self.time()) if secs is None else secs)

    def localtime(self, secs=None):
        return _time.localtime(int(self.time()) if secs is None else secs)


_clock = _Clock()


def advance(ms):
    global _ahead
    _ahead += ms
    if sys.modules.get("time") is not _clock:
        sys.modules["time"] = _clock
        for module in [__main__] + list(sys.modules.values()):
            # A module of stock firmware that is not used yet would load to answer.
            if not isinstance(module, _sim.Frozen):
                if getattr(module, "__dict__", {}).get("time") is _time:
                    module.time = _clock


def sleep(ms):
    # Timers and the watchdog stand still; no real time has to pass.
    _sim.event(_LIGHT_SLEEP, ms)
    advance(ms)


def set_time(t):
    ms = int((_time.mktime((t[0], t[1], t[2], t[4], t[5], t[6], 0, 0)) - _clock.time()) * 1000)
    advance(ms)
    _sim.event(_SET, 0, ms)
