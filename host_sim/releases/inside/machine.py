# What a node expects of `machine`, as on an ESP32. The host decides what happens after a reset or
# a sleep. No time passes here: a timer never fires, and a watchdog never bites.

from _host import ask, fetch
from micropython import const

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

# operations.py has the same numbers.
_RESET, _SOFT_RESET, _SLEEP, _CAUSE, _RTC = const(3), const(4), const(5), const(6), const(7)


def reset():
    ask(_RESET)


def soft_reset():
    ask(_SOFT_RESET)


def deepsleep(ms=0):
    ask(_SLEEP, ms)


def reset_cause():
    return ask(_CAUSE)[0]


def unique_id():
    return b"\x24\x0a\xc4\x00\x00\x01"


class RTC:
    def memory(self, data=None):
        if data is None:
            return fetch(_RTC)
        ask(_RTC, 1, 0, data)


class Timer:
    def __init__(self, number):
        pass

    def init(self, **_):
        pass


class WDT:
    def __init__(self, id=0, timeout=5000):
        pass

    def feed(self):
        pass
