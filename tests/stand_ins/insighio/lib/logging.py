# The field's logging: lines on standard output, with a level.

import sys

from utime import ticks_ms

CRITICAL, ERROR, WARNING, INFO, DEBUG = 50, 40, 30, 20, 10
_NAMES = {CRITICAL: "CRIT", ERROR: "ERROR", WARNING: "WARN", INFO: "INFO", DEBUG: "DEBUG"}
_level = INFO


def _log(level, text, args):
    if level < _level:
        return
    try:
        text = text % args
    except TypeError:
        pass
    print("[%s:%6d] %s" % (_NAMES[level], ticks_ms(), text))


def debug(text, *args):
    _log(DEBUG, text, args)


def info(text, *args):
    _log(INFO, text, args)


def warning(text, *args):
    _log(WARNING, text, args)


def error(text, *args):
    _log(ERROR, text, args)


def exception(e, text, *args):
    _log(ERROR, text, args)
    sys.print_exception(e)


def setLevel(level):
    global _level
    _level = level


def setLevelByName(name):
    for level, known in (
        (DEBUG, "DEBUG"),
        (INFO, "INFO"),
        (WARNING, "WARNING"),
        (ERROR, "ERROR"),
        (CRITICAL, "CRITICAL"),
    ):
        if known == name:
            setLevel(level)
            return
    raise ValueError("Invalid logging level name: " + name)
