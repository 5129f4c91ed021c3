# machine.Timer: the host keeps the time.

import sys
import time
from _thread import allocate_lock, start_new_thread

import _sim
from micropython import const, schedule

_ARM = const(19)
_DISARM = const(20)
_FIRED = const(21)
_PANIC = const(22)
_GO_ON = const(255)  # from the host, instead of a timer's number; then, that no callback is due

# How many numbers there are (0: not checked, before 1.25), whether the odd ones crash the chip,
# and whether an interrupt is to be had: 0 yes, 1 no, the chip aborts, 2 no, OSError says so.
_checked, _crash, _refused = getattr(_sim, "chip", (4, 0, 0))[:3]
_timers = [None] * 4
_due = bytearray(2)
_waiting = allocate_lock()
_listening = False
_drained = False


def _listen():
    global _drained
    # A thread that only waits: the host writes two bytes when a timer is due, and the callback
    # runs in the main thread between two bytecodes, as on a board.
    due = _due
    readinto = _sim.control.readinto
    while readinto(due) == 2:
        if due[0] == _GO_ON:
            if due[1]:
                _drained = True
            else:
                _waiting.release()
            continue
        while True:
            try:
                schedule(_fire, due[0] << 8 | due[1])
                break
            except RuntimeError:  # the interpreter's queue is full; the host counts the board's
                time.sleep_ms(1)


def listen():
    global _listening
    if not _listening:
        start_new_thread(_listen, ())
        _listening = True


def block(code, ms, jump=True):
    # Do nothing, callbacks neither, until the host has let the time pass; then those that are due.
    # Without `jump` the node's own clock is there already.
    global _drained
    listen()
    _drained = False
    _waiting.acquire()
    _sim.event(code, ms)
    _waiting.acquire()
    if jump:
        _sim.load("_clock").advance(ms)
    _waiting.release()
    while not _drained:
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
        if not _checked:
            id &= 3  # group and index, whatever else the number says
        elif not 0 <= id < _checked:
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
        if _refused == 1 or (_crash and self.id & 1):
            _sim.end(_PANIC)
        if _refused:
            raise OSError(-261, "ESP_ERR_NOT_FOUND")
        listen()
        self.callback = callback
        self.periodic = mode
        period = int(1000 / freq) if freq else period * 1000 // tick_hz
        # A number for each arming: a callback under way for an earlier one is void.
        self.serial = self.armed = self.serial % 255 + 1
        _sim.event(_ARM, self.id | self.armed << 8 | mode << 16, period)

    def deinit(self):
        self.armed = 0
        _sim.event(_DISARM, self.id)
