# machine.Timer: the host keeps the time.

import sys
import time
from _thread import start_new_thread

import _sim
from micropython import const, schedule

_ARM = const(19)
_DISARM = const(20)
_FIRED = const(21)

_timers = [None] * 4
_due = bytearray(2)
_listening = False


def _listen():
    # A thread that only waits: the host writes two bytes when a timer is due, and the callback
    # runs in the main thread between two bytecodes, as on a board.
    due = _due
    readinto = _sim.control.readinto
    while readinto(due) == 2:
        while True:
            try:
                schedule(_fire, due[0] << 8 | due[1])
                break
            except RuntimeError:  # the queue is full
                time.sleep_ms(1)


def _fire(due):
    timer = _timers[due >> 8]
    if timer.armed == due & 255:
        if not timer.periodic:
            timer.armed = 0
        try:
            timer.callback(timer)
        except BaseException as e:
            sys.print_exception(e, sys.stderr)
    _sim.event(_FIRED)


class Timer:
    ONE_SHOT = 0
    PERIODIC = 1

    def __new__(cls, id, **kw):
        if not 0 <= id < len(_timers):
            raise ValueError("invalid Timer number")
        if _timers[id] is None:
            timer = _timers[id] = object.__new__(cls)
            timer.id = id
            timer.armed = timer.serial = 0
        return _timers[id]

    def __init__(self, id, **kw):
        if kw:
            self.init(**kw)

    def init(self, mode=PERIODIC, period=-1, callback=None, freq=0, tick_hz=1000, hard=False):
        global _listening
        if not _listening:
            start_new_thread(_listen, ())
            _listening = True
        self.callback = callback
        self.periodic = mode
        period = int(1000 / freq) if freq else period * 1000 // tick_hz
        # A number for each arming: a callback under way for an earlier one is void.
        self.serial = self.armed = self.serial % 255 + 1
        _sim.event(_ARM, self.id | self.armed << 8 | mode << 16, period)

    def deinit(self):
        self.armed = 0
        _sim.event(_DISARM, self.id)
