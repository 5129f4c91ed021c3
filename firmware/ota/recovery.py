"""Everything that must survive a power cut: install, trial, roll back.

boot.py runs it before anything else of the node, so it imports nothing of ours. It decides from
what is on flash, never from memory, and every step may be repeated at any time.

    /.ota/state      from the commit to the end of the transaction; boot.py looks for it
    /.ota/journal    a line for each touched path; complete before the commit, never changed
    /.ota/journal2   the same once more, for when flash loses a bit of one of them
    /.ota/recovery.* this module as it was at the commit, which boot.py runs until the end
    /.ota/<place>    a staged member; <place>~ what it replaces; <place>! a mark: a roll back has
                     tried to bring that back
    /.ota/reserve    blocks that a roll back may need; /.ota/report what the platform is owed

    phase    boot.py                    success    failure                      power fails
    commit   finishes the install       trial      back, if something is in     commit, once more;
                                                   the way; else once more      20 times: back
    trial    counts; the new tree runs  no state   back                         trial, counted
    back     returns to the old tree    no state   back, once more              back, once more

Small files hold `\\n<text> <CRC-32 of it>\\n`, twice where that is short. The text of state is
    [2, phase, boots, reason, wakes, tried, end, since]
    boots    commit, back: that tried; trial: 8 for each that nothing explains, 1: a soft reset
    wakes    that tried the control channel and failed; tried: 1 when this boot is one of them
    end      of the trial, by the clock; since: the clock at the last boot

Journal: a head, a line for each path, and `=` with the CRC-32 of all that in four bytes.
    [2, file id, most boots, wakes, days, deadline s, at once, watchdog s, memory, sequence]
    at once: `e:1` is due after the install, not after the confirm; memory: [piece, all], bytes
    that the package took, or 0; sequence: its number, or null
    <kind> <place> <depth> <sum> <path>
    <kind>: a (add), m (make a folder; with a depth of 1 it moves whole), r (replace), d (delete),
    u (see resume.py); <place>: `<n>` or `<folder>/<n>`; <depth>: how many folders above <path>
    (for m: with itself) are new, then it waits in them; <sum>: its CRC-32; -…: unsigned, resume.py
"""

import json
import os
import sys
from binascii import crc32

from micropython import const

_DIR = const("/.ota/")
_STATE = const("/.ota/state")
# So much text littlefs keeps inside the folder: then a full flash does not stop a roll back.
_LONGEST = const(115)
_FOLDER = const(0x4000)
# CRC-32 of anything that ends in its own CRC-32.
_RESIDUE = const(0x2144DF1C)
# ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY: littlefs says so before it changes anything.
_IN_THE_WAY = const((2, 17, 20, 21, 39))
# Resets must not wear out a flash that fails at every boot: then it gets pauses.
_MOST_TRIES = const(20)
_PAUSE_MS = const(600000)
# After so many tries a roll back leaves out what always fails.
_PATIENT = const(3)
_CRASH = const(8)
# As in the ESP32 port; the name would take the room of other code.
_DEEPSLEEP_RESET = const(4)
_DAY_S = const(86400)
_HOUR_S = const(3600)
# A clock that has gone further between two boots has been set.
_MONTH_S = const(30 * 86400)
_TICKS = const(50)
# A module of this boot once it has been counted: a package's own boot.py may call boot() again.
_COUNTED = const("ota.counted")


def exists(path):
    """0x4000 for a folder, 0x8000 for a file, 0 for nothing. OSError when it can not be read."""
    return (done(os.stat, path) or (0,))[0]


def done(call, *args):
    """Call it; None when something is in its way. Other errors are flash's: see install()."""
    try:
        return call(*args) or True
    except OSError as error:
        if error.args[0] not in _IN_THE_WAY:
            raise


def save(name, text):
    """Make text the content of /.ota/<name> (the folder is there); after a cut: old or new."""
    text = "\n%s %08x\n" % (text, crc32(text))
    aside, name = _DIR + "~", _DIR + name
    remove(aside)
    with open(aside, "w") as file:
        file.write(text if len(text) > 63 else text + text)
    # Once more where somebody has put a folder in its place.
    done(os.rename, aside, name) or remove(name) or os.rename(aside, name)


def load(name):
    """The text of /.ota/<name>; None when there is none, "" when flash has damaged it."""
    try:
        with open(_DIR + name, "rb") as file:
            for line in file.read().split(b"\n"):
                text, _, found = line.rpartition(b" ")
                if found == b"%08x" % crc32(text):
                    return text.decode()
    except OSError as error:
        if error.args[0] == 2:
            return None
    return ""


def read_state():
    """The state; None when no transaction is open, or one of another version.

    A damaged one has to be rolled back, which is right in every phase.
    """
    text = load("state")
    if text == "":
        return 2, "back", 0, "rolled back: damaged"
    if text and text[1] == "2":
        return json.loads(text)


def write_state(phase, boots, reason="", wakes=0, tried=0, end=0, since=0):
    """Write the state."""
    save("state", json.dumps((2, phase, boots, reason, wakes, tried, end, since)))


def read_head():
    """(path of a whole copy of the journal or None, its head as a list)."""
    for name in "journal", "journal2":
        path = _DIR + name
        if exists(path) > _FOLDER and crc_of(path) == _RESIDUE:
            with open(path) as file:
                return path, json.loads(file.readline())
    return None, (2, "-", 3, 24, 7, 900, 1, 0, 0, None)


def crc_of(path, moved=None):
    """CRC-32 of a file; moved is called after each piece."""
    total = 0
    buffer = bytearray(512)
    with open(path, "rb") as file:
        while True:
            n = file.readinto(buffer)
            if not n:
                return total
            total = crc32(memoryview(buffer)[:n], total)
            moved and moved()


def install(moved=None):
    """Finish the committed transaction and begin its trial; the node has to be reset after it.

    Rolls back instead, which ends the transaction, when what waits is not what was staged, or when
    somebody has been at its paths meanwhile. moved: called after each line of the journal. After
    OSError the node has to be reset before anything is written: littlefs is wrong in RAM (it
    believes, say, that a failed rename still goes on), and its next write may remove files.
    """
    journal, head = read_head()
    wrong = _move_in(journal, moved) if journal else "journal"
    if wrong:
        return roll_back("can not apply: changed on flash, " + wrong)
    if head[6]:
        # Before the trial begins: once it has, nobody would know that a report is owed.
        save("report", "1 " + head[1])
    write_state("trial", 0)


def roll_back(reason):
    """Return to the old tree and owe `e:2` with reason (str). What install() says holds here."""
    write_state("back", 0, reason)
    _finish_back(0, reason)


def _finish_back(caution, reason):
    journal, head = read_head()
    if not journal or _move_out(journal, caution):
        reason = "rolled back, but not whole: lost"
    save("report", ("2 %s %s" % (head[1], reason))[:_LONGEST])
    # Without a state all that is left in /.ota is litter, which the agent removes.
    os.remove(_STATE)


def boot():
    """What boot.py does while a transaction is open. Resets the node when the tree has changed."""
    state = read_state()
    if not state or _COUNTED in sys.modules:
        return
    sys.modules[_COUNTED] = sys
    import machine

    phase, tries, reason = state[1:4]
    pause = True
    try:
        if phase == "trial":
            reason = _count(state, machine)
            if not reason:
                return globals().clear()  # else the tick would keep this module in RAM
            phase, tries = "back", 0
        tries += 1
        if tries > _MOST_TRIES and phase == "commit":
            phase, tries, reason = "back", 1, "can not apply: failed 20 times"
        # Counted first. And littlefs hides names after a cut until something is written.
        write_state(phase, tries, reason)
        pause = tries > _MOST_TRIES
        if phase == "back":
            # After a power cut it was not the file that failed.
            cut = machine.reset_cause() == machine.PWRON_RESET
            _finish_back(not cut and tries > _PATIENT, reason)
        else:
            install()
    except Exception:
        if phase == "trial":
            # Not counted, but the tree is whole: once more on a fresh mount, and then without.
            if machine.reset_cause() != machine.SOFT_RESET:
                machine.soft_reset()
            return
        # It may be between old and new: nothing of it runs. Flash that takes nothing any more must
        # not make the node reset for ever, so it sleeps before it tries again.
        if pause:
            machine.deepsleep(_PAUSE_MS)
    # The tree has changed under the modules that are loaded, or flash has failed: begin again.
    machine.reset()


def _count(state, machine):
    """Count a boot of the trial; returns why that is over, or None."""
    import time

    head = read_head()[1]
    boots, end, now = state[2], state[6], int(time.time())
    # Soft resets are a person who looks; 0 is a reset over USB.
    weights = {_DEEPSLEEP_RESET: 0, machine.SOFT_RESET: 1, 0: 1}
    boots += weights.get(machine.reset_cause(), _CRASH)
    passed = now - state[7]
    if not end:
        end = now + _DAY_S * head[4]
    elif not 0 < passed < _MONTH_S:
        # A clock that stands still or goes back has been forgotten, one that jumps has been set.
        end += passed - _HOUR_S
    over = (boots // _CRASH > head[2] and 2) or (state[4] >= head[3] and 3) or (now > end and 4)
    if over:
        what = ("boots", "wakes", "days")[over - 2]
        return "rolled back: %d %s without confirm" % (head[over], what)
    # Ticks that are left, when the trial ends by the clock, its watchdog: trial.confirm()
    # finds it, and may change it.
    left = sys.modules[_COUNTED] = [_TICKS, end, None]

    def tick(_):
        # A tick can get lost, so all are counted. In light sleep none comes: the clock ends that.
        left[0] -= 1
        if left[0] < 0 or 0 < time.time() - left[1] < _MONTH_S:
            machine.reset()

    try:
        # On flash before any new code runs, and before the timer, which crashes some chips.
        write_state("trial", boots, "", state[4], 0, end, now)
    finally:
        for number in (2, 0) if head[5] else ():  # those that every chip has
            try:
                # The node that hangs, or sits at the REPL after main.py raised, would stay there
                # for ever. New code can take a timer for itself, or feed a watchdog: so both.
                left[2] = machine.WDT(timeout=head[5] * 1200)
                # Not where the boot before ended at once: the timer may have crashed the chip.
                0 <= passed < 3 or machine.Timer(number).init(period=head[5] * 20, callback=tick)
                break
            except Exception:
                pass


def lines(journal, moved=None, only=None):
    """(kind, where it waits, depth, sum, path) of lines of kinds in only; moved follows each."""
    with open(journal, "rb") as file:
        file.readline()
        for line in file:
            if line[0] == 61:
                return  # =, the end: what follows is no text
            if not only or line[0] in only:
                # In bytes: each new str is looked for among all names that there are.
                kind, place, depth, sum_, path = line[:-1].split(b" ", 4)
                depth = int(depth)
                at = len(path)
                for _ in range(depth - (kind == b"m")):
                    at = path.rfind(b"/", 0, at)
                # Inside a new folder by its name there.
                place = b"/.ota/" + place + path[at:]
                yield chr(line[0]), place.decode(), depth, sum_, path.decode()
            moved and moved()


def _move_in(journal, moved):
    """Move what waits into its places. Returns one that is not as it was, or None."""
    # Added files first, then replaced ones, stale twins last: whenever the power fails in between,
    # what a replaced module of the boot path imports is there, and of x.py and x.mpy at least one.
    for turn in b"am", b"r", b"d":
        wrong = None
        for line in lines(journal, moved, turn):  # to its end, which closes it
            if not (wrong or done(_move, moved, *line)):
                wrong = line[4]
        if wrong:
            return wrong


def _move(moved, kind, staged, depth, sum_, path):
    there, waits, saved = exists(path), exists(staged), staged + "~"
    if kind == "m":
        if not waits:
            os.stat(path)  # moved before a cut, or lost
        elif there or depth > 1:
            # The application has made such a folder meanwhile: its members move one by one.
            _make_way(path + "/")
        else:
            os.rename(staged, path)
        return
    if (there | waits | exists(saved)) & _FOLDER or (waits and there and kind == "a"):
        raise OSError(17)  # somebody has made it meanwhile
    if kind == "d":
        if exists(saved):
            done(os.remove, path)
        elif there:
            os.rename(path, saved)
        else:
            open(staged, "w").close()  # gone already: a mark, that it is not lost
        return
    # What was verified is what is installed.
    if sum_[0] != 45 and crc_of(staged if waits else path, moved) != int(sum_, 16):
        raise OSError(2)
    # A cut between two renames leaves no file at path: then only the second one remains. There is
    # no such moment where the old file was copied aside.
    if kind == "r" and not exists(saved):
        os.stat(staged)
        os.rename(path, saved)
    if waits:
        _make_way(path)
        os.rename(staged, path)
    os.stat(path)


def _make_way(path, force=None):
    """Make the folders above path. force: what else is in the place of one goes."""
    at = path.find("/", 1)
    while at > 0:
        if not exists(path[:at]) & _FOLDER:
            force and remove(path[:at])
            os.mkdir(path[:at])
        at = path.find("/", at + 1)


def _move_out(journal, caution):
    """Return to the old tree, whatever is in the way. True: something could not be brought back.

    caution: leave out a file that was tried already: it always fails, flash has no room, say.
    """
    lost = None
    # What the new tree brought goes before what needs room comes.
    remove(_DIR + "reserve")
    for kind, staged, depth, _, path in lines(journal, None, b"am"):
        # What still waits has not moved: what is there instead is somebody else's.
        if not exists(staged):
            if kind == "m":
                path += "/"
            else:
                remove(path)
            while depth:
                depth -= 1
                path = path[: path.rfind("/")]
                # One that is gone went before a cut, and those above it may not have. One that is
                # not empty has a later line in it, or something that the new code wrote itself.
                if not done(os.remove, path) and exists(path):
                    break
            else:
                _make_way(path, True)
    for kind, staged, _, _, path in lines(journal, None, b"rd"):
        if exists(path) and exists(staged):
            continue  # it has never moved
        saved, mark = staged + "~", staged + "!"
        tried = exists(mark)
        if exists(saved) > _FOLDER:
            if tried and caution:
                lost = True
                continue
            # That it is not lost, and whether it is this one that fails.
            tried or open(mark, "w").close()
            if exists(path) & _FOLDER:
                remove(path)
            _make_way(path, True)
            os.rename(saved, path)
        elif not (tried or exists(staged) or (kind == "d" and exists(path))):
            lost = True
    return lost


def remove(path):
    """Remove a file, or a folder with all that is in it."""
    inside = path  # not by recursion: folders in folders may be deeper than the stack of a node
    while exists(path):
        if done(os.remove, inside) or not exists(inside):
            inside = inside[: inside.rfind("/")]
        else:
            for entry in os.ilistdir(inside):
                deeper = inside + "/" + entry[0]
                done(os.remove, deeper)
            inside = deeper
