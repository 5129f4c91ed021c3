"""What the agent does with a transaction: open it, end its trial well, clear up after it.

What a power cut can interrupt half way is in recovery.py, which has the formats, too.
"""

import os
import sys
from binascii import crc32

from micropython import const

from .. import recovery
from ..errors import Refused
from ..recovery import done, exists, load, read_head, read_state, write_state

_DIR = const("/.ota")
_STATE = const("/.ota/state")
_JOURNAL = const("/.ota/journal")
# A cut while it leaves /.ota would also hide the name that comes next there (docs/design.md): that
# must not be `state`, so it comes last.
_SEQUENCE = const("/.ota/verified")
_FOLDER = const(0x4000)
_COUNTED = const("ota.counted")
# Free blocks of a flash on which a folder may be removed.
_LEAST_FREE = const(1)
_LONGEST_REASON = const(80)
# A node that has run for so long does not reset all the time.
_LONG_MS = const(60000)
# What is no litter; report.py writes the last two.
_KEPT = const(("report", "owed", "attempts", "done", "request"))
# Six days: what ESP-IDF counts in, quarters of a millisecond, has 32 bits.
_LONGEST_MS = const((1 << 29) - 1)
_ENDLESS = const(1 << 29)


def make_folder():
    """Make /.ota if it is not there."""
    done(os.mkdir, _DIR)


def save(name, text):
    """recovery.save(), where there may be no /.ota yet."""
    make_folder()
    recovery.save(name, text)


def forget(name):
    """Remove /.ota/<name> if it exists, and the folder with it when nothing else is in it."""
    done(os.remove, _DIR + "/" + name)
    _leave()


def _leave():
    """Remove /.ota when nothing is in it; on a full flash later, at another contact.

    littlefs takes a folder out in two steps. Where the second finds no free block, the first
    remove after it fails, and then every write, on a fresh mount as well.
    """
    info = os.statvfs("/")
    if _LEAST_FREE <= info[3] <= info[2]:  # a full one may count itself below zero
        done(os.rmdir, _DIR)


def in_transaction():
    """True from the commit until the new tree is confirmed or the old one is back."""
    try:
        os.stat(_STATE)
        return True
    except OSError as error:
        if error.args[0] == 2:
            return False
        raise  # the chip's: nothing may be taken for litter


def check_way_back(agent):
    """Raise Refused when our boot.py did not run: nothing would finish or undo an install.

    It may be missing, somebody else's, or one that is frozen into the firmware, which wins.
    """
    import __main__

    if not hasattr(__main__, "_trial"):
        raise Refused("can not apply", "this agent's boot.py did not run, so there is no way back")
    # Of a frozen one nothing can be seen, but that no file has run after boot.py.
    if getattr(__main__, "__file__", "") == "boot.py" and exists("/main.py"):
        agent.progress("notice", "/main.py has not run: a frozen one comes before it")


def prepare():
    """Make everything ready that a commit needs, so that it is one write.

    The journal and all that it names are complete and closed. Raises Refused when something that
    waits to be committed is not there any more.
    """
    gone = None
    for kind, place, _, _, path in recovery.lines(_JOURNAL):  # to its end, which closes it
        if kind in "amr" and not exists(place):
            gone = path
    if gone:
        raise Refused("can not apply", "changed on flash, " + gone)
    # The package may break the one that is installed. An agent in the firmware needs no copy.
    source = "/" + recovery.__file__.lstrip("/")
    if exists(source):
        _copy_recovery(source)
    _copy_journal()


def commit():
    """From here on what is prepared will be installed, whatever happens."""
    write_state("commit", 0)


def _copy_recovery(source):
    buffer = bytearray(512)
    total = 0
    with open(source, "rb") as file, open(_DIR + source[source.rfind("/") :], "wb") as copy:
        while True:
            n = file.readinto(buffer)
            if not n:
                break
            piece = memoryview(buffer)[:n]
            total = crc32(piece, total)
            copy.write(piece)
        # Its own CRC-32 at the end, by which boot.py knows that flash has not changed it. Source
        # must stay source, so the four bytes are a comment, and a number makes them readable.
        number = 0
        while True:
            end = b"\n#%d " % number
            sum_ = crc32(end, total).to_bytes(4, "little")
            if min(sum_) > 32 and max(sum_) < 127:
                break
            number += 1
        copy.write(end + sum_)


def _copy_journal():
    """For when flash loses a bit of the first one. What is unchanged needs no line in it."""
    total = 0
    with open(_JOURNAL, "rb") as file, open(_JOURNAL + "2", "wb") as copy:
        for line in file:
            end = line[0] == 61
            if end or line[0] != 117:  # =, u
                total = crc32(b"=" if end else line, total)
                copy.write(b"=" + total.to_bytes(4, "little") if end else line)
            if end:
                break


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


def _first_version():
    """The open trial of an agent of the first version, whose recovery runs it; or None."""
    try:
        with open(_STATE) as file:
            fields = file.read().split(" ", 9)
    except (OSError, UnicodeError):
        return None
    return fields[1:] if len(fields) == 10 and fields[:2] == ["1", "trial"] else None


def keep_sequence(number):
    """Make number (int; None for none) the least that this node will take from now on."""
    if number is not None:
        with open(_SEQUENCE, "w") as file:
            file.write(str(number))
    # Of the first version it is there already.
    done(os.rename, _SEQUENCE, "/ota.sequence")


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


def on_trial():
    """What memory an update needs, (largest piece, all) in bytes, or 0; None without a trial."""
    state = read_state()
    if state and state[1] == "trial" and _COUNTED in sys.modules:
        return read_head()[1][8]
    return 0 if _first_version() else None


def count_failed_wake():
    """Count a wake of a trial that has tried the control channel and failed, once in a boot."""
    state = in_transaction() and read_state()
    if state and state[1] == "trial" and not state[5]:
        state[4:6] = state[4] + 1, 1
        write_state(*state[1:])


def owed():
    """The report that the platform has not acknowledged, `<1 or 2> <file id> …`, or None.

    One that flash has damaged is made again from what the journal says; "" when that is gone.
    """
    text = load("report")
    if text and text[0] == "1" and in_transaction() and not read_head()[1][6]:
        # A cut has ended the confirm. It will be made again, if the rehearsal still allows it.
        return None
    if text != "":
        return text
    try:
        with open(_DIR + "/report") as file:
            text = file.read()
    except (OSError, UnicodeError):
        pass
    if text[:2] == "1 " and text.count(" ") == 1:
        return text  # the first version's
    journal, head = read_head()
    if not journal:
        return ""
    if in_transaction():
        return "1 " + head[1]
    return "2 %s rolled back: the report was damaged on flash" % head[1]


def put_owed_aside():
    """Keep what the platform is owed through a transaction that it knows nothing of."""
    text = load("report")
    if text is not None and not of_application(text):
        os.rename(_DIR + "/report", _DIR + "/owed")


def of_application(text):
    """True for a report that is not for the platform: no request's file id begins like that."""
    return text[2:3] == "("


def discard(moved=None):
    """Remove what no transaction needs; nothing while one is open, of whatever version.

    moved: called after each file.
    """
    if in_transaction() or not exists(_DIR):
        return
    for entry in os.ilistdir(_DIR):
        path = _DIR + "/" + entry[0]
        if entry[1] == _FOLDER:
            _empty(path, moved)
        elif entry[0] not in _KEPT:
            os.remove(path)
            moved and moved()
    _leave()


def _empty(path, moved):
    # Not by recursion: a package may have folders in folders deeper than the stack of a node.
    above = path.count("/")
    while path.count("/") >= above:
        if _clear(path, moved):
            path = path[: path.rfind("/")]
            continue
        deeper = path
        for entry in os.ilistdir(path):  # only folders are left
            inside = path + "/" + entry[0]
            if not _clear(inside, moved):
                deeper = inside
        path = deeper


def _clear(folder, moved):
    """Remove the files in a folder, and the folder; not True when it has folders in it."""
    for entry in os.ilistdir(folder):
        if entry[1] != _FOLDER:
            os.remove(folder + "/" + entry[0])
        moved and moved()
    return done(os.rmdir, folder)


def status():
    """{"state", "file_id", "boots", "boots_most", "undelivered"} for people and applications.

    state: "idle", "staged", "commit", "trial" or "back"; boots: how many of `boots_most` the trial
    has used up, or how often the install or the roll back was tried; undelivered: the waiting
    report, or None; what waits aside for a package of the application's comes first.
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
    }


def reset_after_flash_error(agent):
    """Write nothing more before a reset, for the reason that recovery.install() gives.

    A few times in a wake: flash that always fails must not keep a battery awake.
    """
    import time

    import machine

    from ..backoff import again

    first = machine.reset_cause() in (machine.PWRON_RESET, machine.DEEPSLEEP_RESET)
    long = time.ticks_diff(time.ticks_ms(), agent.born) > _LONG_MS
    if first or long or again():
        agent.reset()
