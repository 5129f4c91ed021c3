"""How long to wait after a failure: more each time, drawn at random, remembered across sleeps.

"Full jitter": the whole pause is drawn at random. Ten thousand nodes that lost one broker at the
same moment come back spread over the pause, not all at once.
"""

import os

from micropython import const

# Marks the RTC's memory as ours; the byte behind it counts failures in a row.
_MARK = const(b"ota\x01")
_MOST_DOUBLINGS = const(6)
# What ticks_add() takes on a 32-bit port: some six days.
_LONGEST_MS = const((1 << 29) - 1)

_failures = 0


def _rtc():
    try:
        import machine

        rtc = machine.RTC()
        memory = bytes(rtc.memory())
        # An application may keep its own data there: then the count is kept in RAM only.
        if not memory or (memory[:4] == _MARK and len(memory) == 5):
            return rtc, memory
    except (ImportError, AttributeError, OSError):
        pass  # not every port has such memory
    return None, b""


def remember(failed):
    """Count a failure, or begin again at none. Writes nothing where nothing changes."""
    global _failures
    rtc, memory = _rtc()
    before = memory[4] if memory else _failures
    _failures = min(before + 1, 255) if failed else 0
    # Only where pause_ms() has put its mark: an application may look whether there is anything.
    if memory and _failures != before:
        rtc.memory(_MARK + bytes((_failures,)))


def pause_ms(base_s):
    """A random time up to base_s (seconds), doubled for each failure in a row after the first."""
    rtc, memory = _rtc()
    failures = memory[4] if memory else _failures
    if rtc and not memory:
        rtc.memory(_MARK + bytes((failures,)))
    longest_ms = min(base_s * 1000 << min(max(failures - 1, 0), _MOST_DOUBLINGS), _LONGEST_MS)
    return int.from_bytes(os.urandom(8), "big") % (longest_ms + 1)
