"""The end of a trial: the new tree is kept, or given up. And what status() tells.

Also of one that an agent of the first version has begun, whose recovery runs it.
"""

import os
import sys

from micropython import const

from ..recovery import exists, load, read_head, read_state, write_state
from .transaction import discard, keep_sequence, of_application, owed, read_mark, save

_STATE = const("/.ota/state")
_JOURNAL = const("/.ota/journal")
_COUNTED = const("ota.counted")
_LONGEST_REASON = const(80)
# Six days: what ESP-IDF counts in, quarters of a millisecond, has 32 bits.
_LONGEST_MS = const((1 << 29) - 1)
_ENDLESS = const(1 << 29)


def on_trial():
    """What memory an update needs, (largest piece, all) in bytes, or 0; None without a trial."""
    state = read_state()
    if state and state[1] == "trial" and _COUNTED in sys.modules:
        return read_head()[1][8]
    return 0 if _first_version() else None


def confirm(own_watchdog=False):
    """Keep the new tree. True when a trial ended by this, False when none was open.

    own_watchdog: the application has one, and its period stays.
    """
    state = read_state()
    first = _first_version()
    if first:
        on_trial, file_id, at_once = first[3] != "0", first[1], first[7] == "installed"
        watchdog_s, sequence = 0, None
    else:
        # If not, this very boot installed it: the new tree has not run yet.
        on_trial = state and state[1] == "trial" and _COUNTED in sys.modules
        _, file_id, _, _, _, _, at_once, watchdog_s, _, sequence = read_head()[1]
    if not on_trial:
        return False
    text = "1 " + file_id
    if not (at_once or of_application(text)):
        save("report", text)
    # Before the state goes: a cut in between must not leave the floor where it was.
    keep_sequence(sequence)
    # Without a state there is no way back, and what is left is litter.
    os.remove(_STATE)
    left = sys.modules.get(_COUNTED)
    if type(left) is list:  # the first version's recovery left another thing there
        left[:2] = _ENDLESS, float("inf")  # the timer's ticks, and the clock
        if left[2] and not own_watchdog:
            # The watchdog can not be stopped: the application gets the period that it has said, or
            # has six days to come back to the agent.
            import machine

            machine.WDT(timeout=watchdog_s * 1000 or _LONGEST_MS)
    discard()
    return True


def give_up(reason):
    """End a trial badly. True: then the node has to be reset, and its boot rolls back.

    By the code of before: what is wrong may be wrong with recovery as well.
    """
    if on_trial() is None:
        return False
    reason = reason[:_LONGEST_REASON]
    first = _first_version()
    if first:
        first[0], first[2], first[8] = "back", "0", reason
        with open(_STATE + "~", "w") as file:
            file.write("1 " + " ".join(first))
        os.rename(_STATE + "~", _STATE)
    else:
        write_state("back", 0, reason)
    return True


def _first_version():
    """The open trial of an agent of the first version, whose recovery runs it; or None."""
    try:
        with open(_STATE) as file:
            fields = file.read().split(" ", 9)
    except (OSError, UnicodeError):
        return None
    return fields[1:] if len(fields) == 10 and fields[:2] == ["1", "trial"] else None


def status():
    """{"state", "file_id", "boots", "boots_most", "undelivered", "staged"} for applications.

    state: "idle", "staged", "commit", "trial" or "back"; boots: how many of `boots_most` the trial
    has used up, or how often the install or the roll back was tried; undelivered: the waiting
    report, or None; what waits aside for a package of the application's comes first; staged: how
    many bytes of a package the wakes so far have brought.
    """
    state, head = read_state(), None
    first = _first_version()
    if first:
        state, head = (1, "trial", int(first[2]) * 8), (1, first[1], int(first[4]))
    elif state or exists(_JOURNAL):
        head = read_head()[1]
    trial = state and state[1] == "trial"
    return {
        "state": state[1] if state else "staged" if head else "idle",
        "file_id": head[1] if state else None,
        "boots": state[2] // 8 if trial else state[2] if state else 0,
        "boots_most": head[2] if trial else 0,
        "undelivered": load("owed") or owed(),
        "staged": 0 if state else (read_mark() or (0,))[0],
    }
