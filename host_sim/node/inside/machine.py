# What a node expects of `machine`, as on an ESP32. The host decides what happens after a reset or
# a sleep, and keeps the time of timers and watchdog.

import time

import _sim
from micropython import const

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5
TIMER_WAKE = 4

# Events (boot.py on the host has the same numbers).
_RESET = const(16)
_SLEEP = const(17)


def reset():
    _sim.end(_RESET)


def soft_reset():
    raise SystemExit


def reset_cause():
    return _sim.cause


def wake_reason():
    return TIMER_WAKE if _sim.cause == DEEPSLEEP_RESET else 0


def deepsleep(ms=None):
    _sim.end(_SLEEP, -1 if ms is None else ms)


def lightsleep(ms=0):
    _sim.load("_clock").sleep(ms)


def idle():
    time.sleep_ms(1)


def unique_id():
    return b"\x24\x0a\xc4\x00\x00\x01"


def freq(_hz=None):
    return 240000000


def disable_irq():
    return 0


def enable_irq(_state):
    pass


def __getattr__(name):
    # The larger parts cost heap only when used: Timer, RTC, WDT, UART, Pin.
    try:
        return getattr(_sim.load("_" + name.lower()), name)
    except ImportError:
        raise AttributeError(name)
