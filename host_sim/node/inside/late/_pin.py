# machine.Pin: remembers its level, and shows it to a modem, if there is one.

import sys

import _sim

_levels = {}


class Pin:
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_UP = 2
    PULL_DOWN = 1

    def __init__(self, id, mode=-1, pull=-1, value=None):
        self._id = id
        if value is not None:
            self.value(value)

    def value(self, level=None):
        if level is None:
            return _levels.get(self._id, 0)
        level = 1 if level else 0
        if _levels.get(self._id, 0) != level:
            _levels[self._id] = level
            if "_virtual" in sys.modules:
                _sim.load("_uart").pin(self._id, level)

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)
