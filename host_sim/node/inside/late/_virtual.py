# `time` of a node with a modem: virtual throughout. It goes on where the node waits, and a little
# where it asks for the time, so equal runs take equal times, however busy the host is. While the
# host works for the modem it stands still. For nodes with one thread.

import sys
import time as _time

import _clock
import _sim
import _timer
from micropython import const

_BLOCK = const(24)
_SET = const(25)
_TELL_MS = const(250)  # how much the host's timers and watchdog may lag behind
_ASK_US = const(50)  # what asking for the time takes

_start_ms = _time.ticks_ms()
_start_s = _time.time()
_owed = 0  # ms that the host does not know of yet
_us = 0


def now():
    # Milliseconds since power-up.
    return _clock._ahead


def go_on(ms):
    # In steps, so that timers' callbacks run in between.
    global _owed
    while ms > 0:
        step = min(ms, _TELL_MS - _owed)
        _clock._ahead += step
        _owed += step
        ms -= step
        if _owed >= _TELL_MS:
            _owed = 0
            _timer.block(_BLOCK, _TELL_MS, False)


def ask():
    global _us
    _us += _ASK_US
    if _us >= 1000:
        _us -= 1000
        go_on(1)


class _Virtual(_clock._Clock):
    def ticks_ms(self):
        ask()
        return _time.ticks_add(_start_ms, _clock._ahead)

    def ticks_us(self):
        ask()
        return _time.ticks_add(_start_ms, _clock._ahead * 1000 + _us)

    def time(self):
        return int(_start_s + _clock._ahead / 1000)

    def time_ns(self):
        return int(_start_s * 1000 + _clock._ahead) * 1000000

    def sleep(self, seconds):
        self.sleep_us(int(seconds * 1000000))

    def sleep_ms(self, ms):
        if ms > 0:
            go_on(int(ms))

    def sleep_us(self, us):
        global _us
        _us += us
        if _us >= 1000:
            ms = _us // 1000
            _us -= ms * 1000
            go_on(ms)


def set_time(t):
    global _start_s
    seconds = _time.mktime((t[0], t[1], t[2], t[4], t[5], t[6], 0, 0)) - _clock._clock.time()
    _start_s += seconds
    _sim.event(_SET, 0, seconds * 1000)


def install():
    global _start_s
    _start_s += _clock._ahead // 1000
    _clock._ahead = 0
    _clock.set_time = set_time
    _clock._clock = clock = _Virtual()
    _clock.advance(0)
    sys.modules["utime"] = clock
    _sim.time = _timer.time = _time  # they wait for the host
