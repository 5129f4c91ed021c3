"""What a node remembers across sleeps without flash: failures, a refusal, what its broker is like.

How long to wait after a failure: more each time, drawn at random. "Full jitter": the whole pause
is drawn. Ten thousand nodes that lost one broker at the same moment come back spread over the
pause, not all at once.
"""

import os
import sys

from micropython import const

# In the RTC's memory, behind this mark: a byte that counts failures in a row; four that say what
# note() was told, if it was; and three of the broker: contacts, and one more than how late a
# retained message came, in ms.
_MARK = const(b"ota\x02")
# As the version before this one left it: without those three.
_OLD_MARK = const(b"ota\x01")
# So many contacts after power-on are patient, and then each 24th: the first behind the others is
# the one that comes after 23 short ones.
_FIRST = const(3)
_NEXT = const(26)
# No message is waited for longer than that, see control.py.
_LATEST_MS = const(10000)
_MOST_DOUBLINGS = const(6)
# What ticks_add() takes on a 32-bit port: some six days.
_LONGEST_MS = const((1 << 29) - 1)

# The same, where the application has that memory, or nobody has put anything there yet. It stays
# when this module is dropped.
_kept = sys.modules.setdefault("ota.kept", [_MARK + b"\0\0\0\0"])


def _rtc():
    """What is kept; the RTC if its memory is ours to use, or None; whether it is there already."""
    try:
        import machine

        rtc = machine.RTC()
        memory = bytes(rtc.memory())
        if memory[:4] == _OLD_MARK and len(memory) in (5, 9):
            memory = _MARK + memory[4:] + b"\0\0\0"  # else an update of the agent would blind it
        if memory[:4] == _MARK and len(memory) in (8, 12):
            _kept[0] = memory
            return memory, rtc, True
        # An application may keep its own data there: then it all is kept in RAM only.
        if not memory:
            return _kept[0], rtc, False
    except (ImportError, AttributeError, OSError):
        pass  # not every port has such memory
    return _kept[0], None, False


def _keep(rtc, memory):
    """Keep it in RAM, and in the RTC's memory, which is written only where something changes."""
    _kept[0] = memory
    if rtc and rtc.memory() != memory:
        rtc.memory(memory)


def remember(failed, learned=None):
    """Count a failure, or begin again at none; with None neither.

    learned: what a contact has learned of the broker, or None: (whether it was patient, how late a
    retained message came in ms, or -1: nobody knows).
    """
    memory, rtc, ours = _rtc()
    if failed is not None:
        failures = min(memory[4] + 1, 255) if failed else 0
        memory = memory[:4] + bytes((failures,)) + memory[5:]
    if learned:
        patient, late_ms = learned
        contacts = memory[-3]
        contacts = min(contacts, _FIRST - 1) + 1 if patient else contacts + 1
        late = memory[-2:]
        if late_ms >= 0:
            # Less by and by where messages come sooner now: one bad moment of a network must not
            # keep the radio on for years. Never nothing, once one came behind the fence.
            before_ms = int.from_bytes(late, "big") - 1
            late_ms = min(max(late_ms, before_ms - before_ms // 8), _LATEST_MS)
            late = (late_ms + 1).to_bytes(2, "big")
        memory = memory[:-3] + bytes((contacts,)) + late
    elif not ours:
        rtc = None  # an application may look whether there is anything
    _keep(rtc, memory)


def again():
    """Count a failure that a reset follows; False when it would be the fourth, or nobody knows."""
    memory, rtc, _ = _rtc()
    if not rtc or memory[4] > 2:
        return False
    _keep(rtc, memory[:4] + bytes((memory[4] + 1,)) + memory[5:])
    return True


def seen(mark):
    """True when mark was the last that note() was told, before a deep sleep as well.

    mark: 4 bytes, the CRC-32 of what was refused.
    """
    return mark == _rtc()[0][5:-3]


def note(mark):
    """Keep mark in RAM, and in the RTC's memory where the application keeps nothing there."""
    memory, rtc, _ = _rtc()
    _keep(rtc, memory[:5] + mark + memory[-3:])


def known():
    """What is known of the broker: (whether the next contact has to be patient, late_ms).

    late_ms: how late a retained message came, in ms; -1: none seen, as after power-on.
    """
    memory = _rtc()[0]
    due = not _FIRST <= memory[-3] < _NEXT
    return due, int.from_bytes(memory[-2:], "big") - 1


def pause_ms(base_s):
    """A random time up to base_s (seconds), doubled for each failure in a row after the first."""
    memory, rtc, _ = _rtc()
    _keep(rtc, memory)
    longest_ms = min(base_s * 1000 << min(max(memory[4] - 1, 0), _MOST_DOUBLINGS), _LONGEST_MS)
    return int.from_bytes(os.urandom(8), "big") % (longest_ms + 1)
