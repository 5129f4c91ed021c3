"""What the agent does with a transaction: open it, tell of it, clear up after it.

What a power cut can interrupt half way is in recovery.py, which has the formats, too.
"""

import os
import struct
from binascii import crc32

from micropython import const

from .. import recovery
from ..recovery import done, exists, load, read_head, read_state, write_state

_DIR = const("/.ota")
_STATE = const("/.ota/state")
# A cut while it leaves /.ota would also hide the name that comes next there (docs/design.md): that
# must not be `state`, so it comes last.
_SEQUENCE = const("/.ota/verified")
_FOLDER = const(0x4000)
_COUNTED = const("ota.counted")
# Free blocks of a flash on which a folder may be removed.
_LEAST_FREE = const(1)
# Bytes of those of a mark.
_NUMBERS = const(44)
# A node that has run for so long does not reset all the time.
_LONG_MS = const(60000)
#: What is no litter; report.py writes the last two.
KEPT = ("report", "owed", "attempts", "done", "request")


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


def read_mark():
    """What /.ota/mark says (marks.py): ten numbers, then two paths; None without any."""
    try:
        with open("/.ota/mark", "rb") as file:
            data = file.read()
    except OSError:
        return None
    data, sum_ = data[:-4], data[-4:]
    if len(data) <= _NUMBERS or crc32(data) != int.from_bytes(sum_, "little"):
        return None
    *mark, same = struct.unpack_from("<11I", data)
    waits, path = data[_NUMBERS:].decode().split("\0")
    return mark + [waits + path[len(path) - same :], path]


def in_transaction():
    """True from the commit until the new tree is confirmed or the old one is back."""
    try:
        os.stat(_STATE)
        return True
    except OSError as error:
        if error.args[0] == 2:
            return False
        raise  # the chip's: nothing may be taken for litter


def commit():
    """From here on what is prepared will be installed, whatever happens."""
    write_state("commit", 0)


def keep_sequence(number):
    """Make number (int; None for none) the least that this node will take from now on."""
    if number is not None:
        with open(_SEQUENCE, "w") as file:
            file.write(str(number))
    # Of the first version it is there already.
    done(os.rename, _SEQUENCE, "/ota.sequence")


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


def discard(moved=None, keep=None):
    """Remove what no transaction needs; nothing while one is open, of whatever version.

    moved: called after each file; keep: a Request: what was staged of this package stays. Size 0:
    of whatever size.
    """
    if in_transaction() or not exists(_DIR):
        return
    if keep and kept(keep):
        return
    for entry in os.ilistdir(_DIR):
        path = _DIR + "/" + entry[0]
        if entry[1] == _FOLDER:
            _empty(path, moved)
        elif entry[0] not in KEPT:
            os.remove(path)
            moved and moved()
    _leave()


def kept(request):
    """How many bytes of the package of that file id and size earlier wakes have staged."""
    mark = read_mark()
    if request[2] and not (load("attempts") or "").endswith(" %d" % request[2]):
        return 0  # the platform has another one under the same id by now
    try:
        with open("/.ota/journal", "rb") as file:
            if mark and file.readline().startswith(b'[2, "%s", ' % request[0]):
                return mark[0]
    except OSError:
        pass
    return 0


def clear_up():
    """Remove what is counted of attempts: their package has ended."""
    done(os.remove, "/.ota/mark")
    forget("attempts")


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
