# A keyboard: Ctrl-C, or a soft reset, at one of the hooks that the host has put into the source.

import _sim
import micropython as _micropython
from micropython import const

_SOFT_RESET = const(3)
_HIT = const(26)
_INTERRUPT = const(27)

_special = None
_left = 0  # hooks until the key is pressed
_kind = 0  # 0: Ctrl-C, 1: a soft reset, 2: Ctrl-C twice
_in_main = False
_works = True  # Ctrl-C does, unless the node has switched it off


class _MicroPython:
    # The real kbd_intr would make this process one that Ctrl-C of the host's terminal ends.
    def __getattr__(self, name):
        return getattr(_micropython, name)

    def kbd_intr(self, char):
        global _works
        _works = char >= 0


def install(left, op, kind):
    global _left, _kind, _special
    _left = left
    _kind = kind
    _special = _sim.special
    _sim.special = _begin
    _sim.key_op = op
    _sim.load("_frozen").stand_ins["micropython"] = _MicroPython()


def _begin(name):
    # As on a board: Ctrl-C works again at the start of each of the two files.
    global _in_main, _works
    _works = True
    _in_main = name == "main.py"
    return _special and _special(name)


def hit():
    global _left
    _sim.event(_HIT)
    if _left:
        _left -= 1
        if not _left:
            _press()
    tap()


def tap():
    if _sim.key_op < 0:
        _sim.key_op = 0
        if _in_main:
            _press()


def _press():
    global _left, _kind
    if _kind == 1:
        _sim.event(_INTERRUPT)
        _sim.end(_SOFT_RESET)
    if _works:
        _sim.event(_INTERRUPT)
        if _kind:
            _left, _kind = 1, 0
        raise KeyboardInterrupt
